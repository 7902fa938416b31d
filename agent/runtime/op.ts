/**
 * The language between TypeScript, which decides, and the C shim, which obeys: a plan is a list of these operations, in
 * order. Nothing here is text to be parsed; `plan.ts` encodes it as length-prefixed binary. A snapshot test reads plans
 * without root.
 *
 * Two processes carry a plan out. The *supervisor* runs the `host` list in the host's namespaces before it clones the
 * container's first process; that process then runs the `container` list inside its new namespaces and ends in `exec`.
 */
import type { Branded } from "../../common/base/id.ts";

/** A path on the host, made only from the agent's own directories and ids. */
export type HostPath = Branded<"host path">;

/** A path inside the container's root; the shim resolves it with openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS). */
export type ContainerPath = Branded<"container path">;

/** Which network namespace's socket a netlink message is sent on. */
export type NetlinkSide = "host" | "container";

/**
 * One netlink request, complete with its nlmsghdr (NLM_F_ACK set); the shim sends the bytes as they are and fails with
 * the errno of the acknowledgement. `IFLA_NET_NS_FD` attributes may name `HOST_NETNS_FD`, which the shim holds open
 * in the container's first process while it runs its list.
 */
export interface NetlinkOp {
  readonly op: "netlink";
  readonly side: NetlinkSide;
  readonly message: Uint8Array;
  /** What to call this step in an error: `create veth eth0`. */
  readonly label: string;
}

/** The descriptor number at which the shim keeps the host's network namespace open for NetlinkOps. */
export const HOST_NETNS_FD = 250;
