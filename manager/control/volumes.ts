/** Volumes: what the nodes told of them, put together by name. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { type VolumeView, VolumeViewSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { Mount_Type } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** The volumes of these names, or all, sorted by name. Throws `not_found` for a name that no node has. */
export function listVolumes(
  view: Pick<View, "nodeVolumes" | "nodes" | "services" | "specVersion">,
  names: readonly string[],
): VolumeView[] {
  const volumes = new Map<string, VolumeView>();
  for (const { nodeId, volumes: copies } of view.nodeVolumes.values()) {
    const hostname = view.nodes.get(nodeId)?.description?.hostname ?? "";
    for (const volume of copies) {
      const shown = volumes.get(volume.name) ?? create(VolumeViewSchema, { name: volume.name });
      shown.copies.push({ $typeName: "swarm.v1.VolumeCopy", nodeId, hostname, volume });
      volumes.set(volume.name, shown);
    }
  }
  addServices(view, volumes);
  for (const { copies } of volumes.values()) copies.sort((left, right) => compare(left.hostname, right.hostname));
  if (names.length === 0) return [...volumes.values()].sort((left, right) => compare(left.name, right.name));
  const missing = names.filter((name) => !volumes.has(name));
  if (missing.length > 0) throw new SwarmError("not_found", `no such volume: ${missing.join(", ")}`);
  return names.flatMap((name) => volumes.get(name) ?? []);
}

function addServices(view: Pick<View, "services" | "specVersion">, volumes: ReadonlyMap<string, VolumeView>): void {
  for (const { id, name, specVersion } of view.services.values()) {
    const mounts = view.specVersion(id, specVersion)?.spec?.task?.container?.mounts ?? [];
    const sources = new Set(mounts.filter(({ type }) => type === Mount_Type.VOLUME).map(({ source }) => source));
    for (const source of sources) volumes.get(source)?.serviceNames.push(name);
  }
}

function compare(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}
