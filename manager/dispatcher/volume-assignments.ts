/** What an agent must know of volumes: how those are made that its tasks mount, and which are to be deleted. Pure. */
import { create, equals } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type AssignmentChange,
  AssignmentChange_Action,
  AssignmentChangeSchema,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { NodeVolumes, Volume } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, type VolumeSpec, VolumeSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { mayBecome, volumeSources } from "../volume-names.ts";

/** The definitions of volumes with options that a spec's mounts name, sorted by name. */
export function volumeDefinitions(
  view: Pick<View, "volumes" | "byName">,
  spec: ServiceSpec | undefined,
): readonly VolumeSpec[] {
  const found = new Map<string, VolumeSpec>();
  const add = (volume: Pick<Volume, "spec"> | undefined) => {
    if (volume?.spec && hasOptions(volume.spec)) found.set(volume.spec.name, volume.spec);
  };
  for (const source of volumeSources(spec)) {
    if (!source.includes("{{")) add(view.byName("volume", source));
    else for (const volume of view.volumes.values()) if (mayBecome(source, volume.name)) add(volume);
  }
  return [...found.values()].sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** Whether agents hear of a volume: a plain one needs no definition. */
export function hasOptions({ options }: Pick<VolumeSpec, "options">): boolean {
  return Object.keys(options).length > 0;
}

export function sameDefinitions(left: readonly VolumeSpec[], right: readonly VolumeSpec[]): boolean {
  return (
    left.length === right.length &&
    left.every((spec, index) => {
      const other = right[index];
      return other !== undefined && equals(VolumeSpecSchema, spec, other);
    })
  );
}

/** The deletions that an agent has been told. */
export class PurgeSet {
  readonly #told = new Set<string>();

  /** Those it has not been told yet; what the node has deleted is forgotten. */
  update(copies: NodeVolumes | undefined): AssignmentChange[] {
    const changes: AssignmentChange[] = [];
    const removing = new Set<string>();
    for (const { name, createdAt, removing: isRemoving } of copies?.volumes ?? []) {
      if (!isRemoving || !createdAt) continue;
      const key = `${name} ${timestampMs(createdAt)}`;
      removing.add(key);
      if (this.#told.has(key)) continue;
      this.#told.add(key);
      const item = { case: "volume" as const, value: { name, createdAt } };
      changes.push(create(AssignmentChangeSchema, { action: AssignmentChange_Action.REMOVE, item }));
    }
    for (const key of this.#told) if (!removing.has(key)) this.#told.delete(key);
    return changes;
  }
}
