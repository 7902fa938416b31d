import { SwarmError } from "../common/base/error.ts";
import type { Peer } from "../common/rpc/service.ts";

/** A caller with a certificate speaks for its own node only. Throws `permission_denied`. */
export function requireNode({ identity }: Peer, nodeId: string): void {
  if (identity === undefined || (identity.kind === "node" && identity.nodeId === nodeId)) return;
  throw new SwarmError("permission_denied", `node_id: the caller's certificate is not that of ${nodeId}`);
}
