/** What a node tells anew of itself within a session, as the store keeps it: in its description. */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeDescription } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Store } from "../store/store.ts";

/** Others write the node meanwhile; more often than this is a bug somewhere. */
const ATTEMPTS_MAX = 10;
const RETRY_MS = 5;

/**
 * Changes the description of a node; `change` answers undefined where it is right as it is, and may be asked again. Throws
 * what `change` throws, `not_found`, and `aborted` when the store keeps changing.
 */
export async function changeDescription(
  { store, clock }: { readonly store: Store; readonly clock: Clock },
  nodeId: string,
  change: (description: NodeDescription) => NodeDescription | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const node = store.view.nodes.get(nodeId);
    if (!node?.description) throw new SwarmError("not_found", `node ${nodeId}: is not there`);
    const description = change(node.description);
    if (description === undefined) return;
    const object = { ...node, description };
    const { conflicts } = await store.commit([{ type: "update", kind: "node", object }], { signal });
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY_MS, signal);
  }
  throw new SwarmError("aborted", `description of node ${nodeId}: the store keeps changing`);
}
