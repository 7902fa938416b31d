/** What nodes tell of their volumes, as the store keeps it. */
import { create, equals } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type NodeVolume, type NodeVolumes, NodeVolumesSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { Store } from "../store/store.ts";

/** One value of the store holds them all, and etcd takes 1.5 MiB: names have up to 255 letters. */
const VOLUMES_MAX = 4_096;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;
/** The node's removal may come between; more often than this is a bug somewhere. */
const ATTEMPTS_MAX = 10;
const RETRY_MS = 5;

/**
 * Stores the volumes of a node, unless they stand there already.
 * @throws invalid_argument for names that are none, resource_exhausted for too many, aborted when the store keeps changing.
 */
export async function storeNodeVolumes(
  { store, clock }: { readonly store: Store; readonly clock: Clock },
  nodeId: string,
  volumes: readonly NodeVolume[],
  signal: AbortSignal,
): Promise<void> {
  const told = checked(volumes);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const known = store.view.nodeVolumes.get(nodeId);
    const object = create(NodeVolumesSchema, { nodeId, volumes: told.map((volume) => marked(volume, known)) });
    if (known ? equals(NodeVolumesSchema, known, object) : volumes.length === 0) return;
    const proposal = proposalOf(object, store.view.version("nodevolumes", nodeId));
    const { conflicts } = await store.commit([proposal], { signal });
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY_MS, signal);
  }
  throw new SwarmError("aborted", `volumes of node ${nodeId}: the store keeps changing`);
}

/** Whether a volume was removed is not the node's to say; one that was made since under its name was not. */
function marked(volume: NodeVolume, known: NodeVolumes | undefined): NodeVolume {
  const { createdAt } = volume;
  const removing =
    known?.volumes.some(
      (other) =>
        other.removing &&
        other.name === volume.name &&
        other.createdAt?.seconds === createdAt?.seconds &&
        other.createdAt?.nanos === createdAt?.nanos,
    ) ?? false;
  return { ...volume, removing };
}

function proposalOf(object: NodeVolumes, version: bigint | undefined): Proposal {
  if (version === undefined) return { type: "create", kind: "nodevolumes", object };
  return { type: "update", kind: "nodevolumes", object, version };
}

/** Sorted by name, so that equal sets are equal objects. */
function checked(volumes: readonly NodeVolume[]): NodeVolume[] {
  if (volumes.length > VOLUMES_MAX) throw new SwarmError("resource_exhausted", `volumes: at most ${VOLUMES_MAX}`);
  const byName = new Map<string, NodeVolume>();
  for (const [index, volume] of volumes.entries()) {
    if (!NAME.test(volume.name))
      throw new SwarmError("invalid_argument", `volumes[${index}].name: is not a volume's name`);
    byName.set(volume.name, volume);
  }
  return [...byName.values()].sort((left, right) => (left.name < right.name ? -1 : 1));
}
