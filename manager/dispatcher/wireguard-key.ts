/** The WireGuard keys that nodes tell, as the store keeps them: in the nodes' descriptions. */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeDescription } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Store } from "../store/store.ts";
import { changeDescription } from "./change-description.ts";

const KEY_BYTES = 32;
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

/** Stores the key of a node. Throws as `checkWireguardKey` and `changeDescription`. */
export async function storeWireguardKey(
  parts: { readonly store: Store; readonly clock: Clock },
  nodeId: string,
  wireguardKey: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  checkWireguardKey(parts.store, nodeId, wireguardKey);
  await changeDescription(
    parts,
    nodeId,
    (description) => (isSame(description, wireguardKey) ? undefined : { ...description, wireguardKey }),
    signal,
  );
}

function isSame(description: NodeDescription | undefined, key: Uint8Array): boolean {
  return Buffer.compare(description?.wireguardKey ?? new Uint8Array(), key) === 0;
}
