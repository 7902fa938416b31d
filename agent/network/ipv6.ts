/**
 * The host's part in networks with IPv6. It is turned on with the first of them only: a host that routes IPv6 is more than
 * most are, and its kernel stops hearing router advertisements, so that the interfaces that live on them are told to go on.
 */
import type { Logger } from "../../common/base/logger.ts";
import { familyOf } from "./address.ts";
import type { ClusterNetwork } from "./cluster.ts";
import { listLinks } from "./fabric.ts";
import { exchange, NETLINK, type Netlink } from "./netlink.ts";
import { setLink } from "./rtnetlink.ts";
import type { Sysctls } from "./sysctl.ts";

/** `none`: the kernel has no IPv6, or it is turned off on this host. */
export type Ipv6Use = "none" | "off" | "on";

/** What it is done with. */
export interface Ipv6World {
  readonly netlink: Netlink;
  readonly sysctls: Sysctls;
  readonly logger: Logger;
}

/** IN6_ADDR_GEN_MODE_NONE (linux/if_link.h). */
const NO_ADDRESS = "1";
const FORWARDING = "net/ipv6/conf/all/forwarding";

/** Whether the kernel would give IPv6 to a device: it has none at all for those whose MTU is below 1,280 (RFC 8200 §5). */
export async function hasIpv6(sysctls: Sysctls, device: string): Promise<boolean> {
  const isOff = await sysctls.read("net/ipv6/conf/default/disable_ipv6");
  return isOff === "0" && (await sysctls.read(`net/ipv6/conf/${device}/disable_ipv6`)) !== undefined;
}

/** Whether a network of this host or a task elsewhere that is published has IPv6. */
export function hasIpv6Networks({ networks, remote }: Pick<ClusterNetwork, "networks" | "remote">): boolean {
  return (
    networks.some(({ subnet }) => familyOf(subnet.address) === 6) ||
    remote.some(({ address }) => familyOf(address) === 6)
  );
}

/** Keeps a device free of IPv6. */
export async function withoutIpv6(sysctls: Sysctls, device: string): Promise<void> {
  await sysctls.write(`net/ipv6/conf/${device}/accept_ra`, "0");
  await sysctls.write(`net/ipv6/conf/${device}/disable_ipv6`, "1");
}

/**
 * Keeps a device free of IPv6 but for what `routeIpv6` gives it, which is left alone. The kernel gives IPv6 to each new
 * device, and to one whose MTU was below 1,280 and is not any more, with an address and an ear for router advertisements.
 */
export async function tameIpv6(sysctls: Sysctls, device: string): Promise<void> {
  if (!(await hasIpv6(sysctls, device))) return;
  const read = (name: string) => sysctls.read(`net/ipv6/conf/${device}/${name}`);
  const isOff = (await read("disable_ipv6")) === "1";
  const isOurs = isOff || (await read("addr_gen_mode")) === NO_ADDRESS;
  if (!isOurs || (await read("accept_ra")) !== "0") await withoutIpv6(sysctls, device);
}

/** Sees to it that the host routes IPv6, over this device too; cheap when it does. */
export async function routeIpv6(
  { netlink, sysctls, logger }: Ipv6World,
  { name, index }: { readonly name: string; readonly index: number },
  signal: AbortSignal,
): Promise<void> {
  const disabled = `net/ipv6/conf/${name}/disable_ipv6`;
  if ((await sysctls.read(disabled)) !== "0") {
    const message = setLink({ index }, { ipv6: false });
    await exchange(netlink, { protocol: NETLINK.ROUTE, message, label: `keep ${name} without addresses` }, signal);
    await sysctls.write(disabled, "0");
  }
  if ((await sysctls.read(FORWARDING)) === "1") return;
  for (const link of await listLinks(netlink, signal)) {
    const heed = `net/ipv6/conf/${link.name}/accept_ra`;
    if ((await sysctls.read(heed)) === "1") await sysctls.write(heed, "2");
  }
  await sysctls.write(FORWARDING, "1");
  logger.info({ sysctl: "net.ipv6.conf.all.forwarding", value: 1 }, "ipv6 forwarding turned on");
}
