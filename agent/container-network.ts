/** How a task's container is on the network, by what managers allocated for it. Pure. */
import { SwarmError } from "../common/base/error.ts";
import { isIpv4 } from "../common/model/task-addresses.ts";
import type { AssignedTask } from "./executor.ts";
import { gatewayOf, parseIpv4, parsePrefix } from "./network/address.ts";
import type { Attachment, InterfaceSpec } from "./network/attach.ts";

/**
 * An interface for each of the task's networks, in the order of its spec, then one on the nodes' own network where it has
 * an address there. Without any it must say `host` or `none`; else throws `failed_precondition`.
 */
export function attachmentOf({ task, template, networks }: AssignedTask): Attachment {
  const target = template.spec?.networks[0]?.target;
  if (target === "host" || target === "none") return { kind: target };
  const interfaces: InterfaceSpec[] = task.networks.flatMap(({ networkId, addresses }) => {
    const address = addresses.find(isIpv4);
    if (address === undefined) return [];
    const network = networks.network(networkId);
    const prefix = parsePrefix(address);
    const told = network?.ipam.map(({ gateway }) => parseIpv4(gateway)).find((each) => each !== undefined);
    return { address: prefix, gateway: told ?? gatewayOf(prefix), internal: network?.internal ?? false };
  });
  if (task.address !== "") {
    const address = parsePrefix(task.address);
    interfaces.push({ address, gateway: gatewayOf(address), internal: false });
  }
  if (interfaces.length === 0) throw new SwarmError("failed_precondition", "the task was given no address");
  return { kind: "routed", interfaces };
}

/**
 * Throws `failed_precondition` for networks that promise what this agent cannot keep: better no task than one whose traffic
 * is in clear, or that lacks addresses which others were told.
 */
export function checkNetworks({ task, networks }: AssignedTask): void {
  for (const { networkId } of task.networks) {
    const { name = "", encrypted = false, ipam = [] } = networks.network(networkId) ?? {};
    if (encrypted) {
      throw new SwarmError("failed_precondition", `network ${name} is encrypted, which this node cannot do yet`);
    }
    if (ipam.some(({ subnet }) => !isIpv4(subnet))) {
      throw new SwarmError(
        "failed_precondition",
        `network ${name} has IPv6, which this node cannot give its tasks yet`,
      );
    }
  }
}
