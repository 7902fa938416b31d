/** The WireGuard keys that nodes tell, as the store keeps them: in the nodes' descriptions. */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeDescription } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Store } from "../store/store.ts";

const KEY_BYTES = 32;
/** Others write the node meanwhile; more often than this is a bug somewhere. */
const ATTEMPTS_MAX = 10;
const RETRY_MS = 5;

/**
 * Refuses what is no key, and the key of another node: whoever says that it has that one would take the other's packets
 * out of its way. Throws `invalid_argument`, `already_exists`.
 */
export function checkWireguardKey({ view }: Pick<Store, "view">, nodeId: string, key: Uint8Array): void {
  if (key.length === 0) return;
  if (key.length !== KEY_BYTES) throw new SwarmError("invalid_argument", "wireguard_key: is not of 32 bytes");
  for (const { id, description } of view.nodes.values()) {
    if (id !== nodeId && isSame(description, key)) {
      throw new SwarmError("already_exists", `wireguard_key: node ${id} has it`);
    }
  }
}

/** Stores the key of a node. Throws as `checkWireguardKey`, `not_found`, and `aborted` when the store keeps changing. */
export async function storeWireguardKey(
  { store, clock }: { readonly store: Store; readonly clock: Clock },
  nodeId: string,
  key: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  checkWireguardKey(store, nodeId, key);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const node = store.view.nodes.get(nodeId);
    if (!node?.description) throw new SwarmError("not_found", `node ${nodeId}: is not there`);
    if (isSame(node.description, key)) return;
    const object = { ...node, description: { ...node.description, wireguardKey: key } };
    const { conflicts } = await store.commit([{ type: "update", kind: "node", object }], { signal });
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY_MS, signal);
  }
  throw new SwarmError("aborted", `WireGuard key of node ${nodeId}: the store keeps changing`);
}

function isSame(description: NodeDescription | undefined, key: Uint8Array): boolean {
  return Buffer.compare(description?.wireguardKey ?? new Uint8Array(), key) === 0;
}
