/**
 * What joins one task's network namespace to the host, as operations for the shim: computed here, sent there, no
 * process spawned.
 *
 *     container's netns                           host's netns
 *     eth0 10.224.0.7/12  ───── veth pair ─────  v3f9k2… ── port of swarm0 (10.224.0.1/12)
 *     default via 10.224.0.1
 */
import type { TaskId } from "../../common/base/id.ts";
import { HOST_NETNS_FD, type NetlinkOp, type SetSysctlOp } from "../runtime/op.ts";
import { formatIpv4, type Ipv4, type Ipv4Prefix, macOf } from "./address.ts";
import { addAddress, addDefaultRoute, createVeth, LOOPBACK_INDEX, openPort, setLink } from "./rtnetlink.ts";

/**
 * How a task is on the network. `bridge` is a port of the host's bridge with an address of the cluster's pool; `host`
 * shares the host's namespace; `none` has loopback only. A bridge has 1,024 ports: a `routed` kind (veth with a /32
 * route on the host, no port) is to join this union for more tasks on one host.
 */
export type Attachment = BridgeAttachment | { readonly kind: "host" | "none" };

/** A port of the host's bridge. */
export interface BridgeAttachment {
  readonly kind: "bridge";
  readonly address: Ipv4Prefix;
}

/** What `bridgeOps` needs to know of the host's side. */
export interface AttachPoint {
  /** The bridge's index; it changes when somebody deletes the bridge and it is made anew. */
  readonly bridgeIndex: number;
  /** `vethGroup` of the bridge's name. */
  readonly group: number;
  readonly gateway: Ipv4;
  readonly mtu: number;
  /** Whether the kernel has IPv6 (`/proc/sys/net/ipv6` exists); then it is turned off on eth0. */
  readonly ipv6: boolean;
}

/** An operation of an attachment. */
export type AttachOp = NetlinkOp | SetSysctlOp;

/** "sw" in the upper half of the groups of our veths: names alone do not tell, podman's `veth01234567` has the same form. */
const VETH_GROUP = 0x7377;

/**
 * The link group of a bridge's veths on the host. It differs by bridge (FNV-1a of its name), so that agents which share a
 * network namespace do not take each other's links for left-overs.
 */
export function vethGroup(bridge: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(bridge)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return VETH_GROUP * 0x10000 + ((hash >>> 16) ^ (hash & 0xffff));
}

/**
 * eth0's index in its namespace: given, so that address and route can name it unread. Above those that the kernel's
 * fallback tunnels (tunl0, sit0, …) take in every new namespace.
 */
const ETH0_INDEX = 1000;

/** The host's end of a task's veth: `v` and 11 of the 25 characters of its id (57 bits); the limit is 15. */
export function vethName(taskId: TaskId): string {
  return `v${taskId.slice(0, 11)}`;
}

/** Whether a name has the form of `vethName`. */
export function isVethName(name: string): boolean {
  return /^v[a-z0-9]{11}$/.test(name);
}

/**
 * The operations that join a new network namespace to the bridge, in order, for the container's list of the plan.
 * The first needs the namespace to be new: a link of the task's name that still exists makes it fail with EEXIST.
 */
export function bridgeOps(taskId: TaskId, address: Ipv4Prefix, point: AttachPoint): readonly AttachOp[] {
  const veth = vethName(taskId);
  const pair = createVeth({
    index: ETH0_INDEX,
    name: "eth0",
    mac: macOf(address.address),
    mtu: point.mtu,
    peer: { name: veth, group: point.group, netnsFd: HOST_NETNS_FD },
  });
  const port = setLink({ name: veth }, { master: point.bridgeIndex, ...(point.ipv6 ? { ipv6: false } : {}) });
  return [
    ...loopbackOps(),
    // Before eth0 exists, so that it never has an address nor hears a router advertisement (CVE-2020-13401).
    ...(point.ipv6 ? [disableIpv6()] : []),
    netlinkOp("container", `create veth eth0, ${veth}`, pair),
    netlinkOp("host", `attach ${veth} to the bridge`, port),
    netlinkOp("host", `open port ${veth}`, openPort({ name: veth })),
    netlinkOp("container", `add address ${formatIpv4(address.address)} to eth0`, addAddress(ETH0_INDEX, address)),
    netlinkOp(
      "container",
      `add default route via ${formatIpv4(point.gateway)}`,
      addDefaultRoute(ETH0_INDEX, point.gateway),
    ),
  ];
}

/** The operation of a namespace that has loopback only. */
export function loopbackOps(): readonly AttachOp[] {
  return [netlinkOp("container", "bring lo up", setLink({ index: LOOPBACK_INDEX }, { up: true }))];
}

function disableIpv6(): SetSysctlOp {
  return { op: "set-sysctl", name: "net.ipv6.conf.default.disable_ipv6", value: "1" };
}

function netlinkOp(side: NetlinkOp["side"], label: string, message: Uint8Array): NetlinkOp {
  return { op: "netlink", side, message, label };
}
