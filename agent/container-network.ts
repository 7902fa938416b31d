/** How a task's container is on the network, by what managers allocated for it. Pure. */
import { SwarmError } from "../common/base/error.ts";
import { MTU_OPTION } from "../common/model/networks.ts";
import { isIpv4 } from "../common/model/task-addresses.ts";
import type { NetworkAssignment } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { AssignedTask } from "./executor.ts";
import { gatewayOf, parseIp, parseIpPrefix, parseIpv4, parsePrefix } from "./network/address.ts";
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
    const ipv6 = ipv6Of(addresses, network);
    return {
      address: prefix,
      gateway: told ?? gatewayOf(prefix),
      ipv6,
      internal: network?.internal ?? false,
      encrypted: network?.encrypted ?? false,
      mtu: mtuOption(network),
    };
  });
  if (task.address !== "") {
    const address = parsePrefix(task.address);
    interfaces.push({ address, gateway: gatewayOf(address), internal: false });
  }
  if (interfaces.length === 0) throw new SwarmError("failed_precondition", "the task was given no address");
  return { kind: "routed", interfaces };
}

/** What was asked of the network when it was made; its value was checked there. */
export function mtuOption(network: Pick<NetworkAssignment, "driverOpts"> | undefined): number | undefined {
  const text = network?.driverOpts[MTU_OPTION];
  return text === undefined ? undefined : Number(text);
}

function ipv6Of(addresses: readonly string[], network: NetworkAssignment | undefined): InterfaceSpec["ipv6"] {
  const text = addresses.find((address) => !isIpv4(address));
  if (text === undefined) return undefined;
  const { address, length } = parseIpPrefix(text);
  const gateway = network?.ipam.map((each) => parseIp(each.gateway)).find((each) => typeof each === "bigint");
  if (typeof address !== "bigint" || gateway === undefined) return undefined;
  return { address: { address, length }, gateway };
}

/** Throws `failed_precondition` for encrypted networks on a node that cannot: better no task than one in clear. */
export function checkEncryption({ task, networks }: AssignedTask, problem: string | undefined): void {
  if (problem === undefined) return;
  for (const { networkId } of task.networks) {
    const { name = "", encrypted = false } = networks.network(networkId) ?? {};
    if (encrypted) throw new SwarmError("failed_precondition", `network ${name} is encrypted: ${problem}`);
  }
}
