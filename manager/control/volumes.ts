/**
 * Volumes: objects that people made, and what the nodes told of their copies, put together by name.
 *
 *   remove ── each copy is marked in the store ──▶ dispatcher ──▶ agent deletes it, tells its volumes ──▶ the mark goes with it
 */
import { create, equals } from "@bufbuild/protobuf";
import { withTimeout } from "../../common/base/clock.ts";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import { volumeProblems } from "../../common/model/validate-volume.ts";
import {
  type CreateVolumeRequest,
  type RemoveVolumeRequest,
  type VolumeView,
  VolumeViewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type NodeVolumes, type Volume, VolumeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, VolumeSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { mayBecome, volumeSources } from "../volume-names.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { volumeUsers } from "./volume-users.ts";

/** How often a write is tried again when nodes told of their volumes meanwhile. */
const ATTEMPTS_MAX = 5;
/** How long the nodes may take to delete a volume before the caller is told that it goes on without them. */
const DELETED_TIMEOUT_MS = 60_000;

type ListedView = Pick<View, "nodeVolumes" | "nodes" | "services" | "specVersion" | "volumes">;

/** The volumes of these names, or all, sorted by name. Throws `not_found` for a name that nobody knows. */
export function listVolumes(view: ListedView, names: readonly string[]): VolumeView[] {
  const volumes = new Map<string, VolumeView>();
  const viewOf = (name: string) => {
    const shown = volumes.get(name) ?? create(VolumeViewSchema, { name });
    volumes.set(name, shown);
    return shown;
  };
  for (const volume of view.volumes.values()) viewOf(volume.name).volume = volume;
  for (const { nodeId, volumes: copies } of view.nodeVolumes.values()) {
    const hostname = view.nodes.get(nodeId)?.description?.hostname ?? "";
    for (const volume of copies) {
      if (!volume.removing)
        viewOf(volume.name).copies.push({ $typeName: "swarm.v1.VolumeCopy", nodeId, hostname, volume });
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
    for (const source of new Set(volumeSources(view.specVersion(id, specVersion)?.spec))) {
      if (!source.includes("{{")) volumes.get(source)?.serviceNames.push(name);
      else
        for (const volume of volumes.values()) {
          if (mayBecome(source, volume.name) && !volume.serviceNames.includes(name)) volume.serviceNames.push(name);
        }
    }
  }
}

function compare(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}

/** Makes a volume; one that exists as it is asked for is fine, as in Docker. */
export async function createVolume(
  { store, random }: ControlDependencies,
  request: CreateVolumeRequest,
  signal: AbortSignal,
): Promise<Volume> {
  const given = create(VolumeSpecSchema, request.spec ?? {});
  const id = newId<Branded<"volume">>(random);
  const spec = create(VolumeSpecSchema, { ...given, name: given.name || id });
  const problems = volumeProblems(spec);
  if (problems.length > 0) throw invalidFields(problems);
  const { name } = spec;
  const present = store.view.byName("volume", name);
  if (present) return requireSame(present, spec);
  const [place] = copiesOf(store.view, name);
  if (place && Object.keys(spec.options).length > 0) {
    const hostname = store.view.nodes.get(place.nodeId)?.description?.hostname ?? place.nodeId;
    throw new SwarmError("already_exists", `volume ${name} exists on ${hostname}, without options`);
  }
  const object = create(VolumeSchema, { id, name, spec });
  const { conflicts } = await store.commit([{ type: "create", kind: "volume", object }], { signal });
  if (conflicts.length > 0) throw new SwarmError("aborted", `create volume ${name}: the store changed, try again`);
  return store.view.volumes.get(id) ?? object;
}

function requireSame(present: Volume, { name, driver, options, labels }: Volume["spec"] & object): Volume {
  const { spec = create(VolumeSpecSchema) } = present;
  const local = (word: string) => word || "local";
  const same = equals(
    VolumeSpecSchema,
    create(VolumeSpecSchema, { name, driver: local(spec.driver), options: spec.options, labels: spec.labels }),
    create(VolumeSpecSchema, { name, driver: local(driver), options, labels }),
  );
  if (same) return present;
  throw new SwarmError("already_exists", `volume ${name} exists with another driver, other options or labels`);
}

/** Removes a volume and its data on every node; see the API's word on `force`. */
export async function removeVolume(
  dependencies: ControlDependencies,
  { name, force }: RemoveVolumeRequest,
  signal: AbortSignal,
): Promise<void> {
  const { store, clock } = dependencies;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const { view } = store;
    const copies = copiesOf(view, name);
    const object = view.byName("volume", name);
    if (!object && copies.length === 0) throw new SwarmError("not_found", `no such volume: ${name}`);
    checkRemovable(view, name, { copies, force });
    const marked = copies.map((copy) => marking(view, copy, name));
    const proposals: Proposal[] = object ? [...marked, { type: "delete", kind: "volume", id: object.id }] : marked;
    const { conflicts } = await store.commit(proposals, { signal });
    if (conflicts.length > 0) continue;
    const options = { clock, timeoutMs: DELETED_TIMEOUT_MS, operation: `delete volume ${name} on its nodes` };
    return await withTimeout(options, signal, (inner) => deleted(store.view, name, inner));
  }
  throw new SwarmError("aborted", `remove volume ${name}: the store keeps changing, try again`);
}

/** What nodes have of a volume that nobody has removed yet. */
function copiesOf(view: Pick<View, "nodeVolumes">, name: string): NodeVolumes[] {
  return [...view.nodeVolumes.values()].filter(({ volumes }) =>
    volumes.some((volume) => volume.name === name && !volume.removing),
  );
}

function checkRemovable(
  view: View,
  name: string,
  { copies, force }: { readonly copies: readonly NodeVolumes[]; readonly force: boolean },
): void {
  const users = volumeUsers(view, name);
  if (users.length > 0) {
    const services = users.length === 1 ? `service ${users[0]}` : `services ${users.join(", ")}`;
    throw new SwarmError("failed_precondition", `volume ${name} is in use by ${services}`);
  }
  const away = copies.filter(({ nodeId }) => !isReady(view, nodeId)).map(({ nodeId }) => hostnameOf(view, nodeId));
  if (away.length === 0 || force) return;
  throw new SwarmError(
    "failed_precondition",
    `volume ${name} has data on ${away.join(", ")}, which ${away.length === 1 ? "is" : "are"} down: with --force it is deleted there when the node is back`,
  );
}

function isReady(view: Pick<View, "nodes">, nodeId: string): boolean {
  return view.nodes.get(nodeId)?.status?.state === NodeStatus_State.READY;
}

function hostnameOf(view: Pick<View, "nodes">, nodeId: string): string {
  return view.nodes.get(nodeId)?.description?.hostname || nodeId;
}

function marking(view: View, copy: NodeVolumes, name: string): Proposal {
  const volumes = copy.volumes.map((volume) => (volume.name === name ? { ...volume, removing: true } : volume));
  const version = view.version("nodevolumes", copy.nodeId) ?? 0n;
  return { type: "update", kind: "nodevolumes", object: { ...copy, volumes }, version };
}

/** Resolves when no node that is there has the volume any more. */
async function deleted(view: View, name: string, signal: AbortSignal): Promise<void> {
  const remains = () =>
    view.nodeVolumes
      .values()
      .some(
        ({ nodeId, volumes }) =>
          isReady(view, nodeId) && volumes.some((volume) => volume.name === name && volume.removing),
      );
  while (remains()) await view.waitForRevision(view.revision + 1, signal);
}
