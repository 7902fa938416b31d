/** Which of a task's addresses is used for what: managers and agents must agree. Pure. */
import type { NetworkAddresses, Task } from "../../proto/gen/swarm/v1/objects_pb.js";

/** "10.0.1.7" of "10.0.1.7/24". */
export function withoutLength(address: string): string {
  return address.split("/", 1)[0] ?? "";
}

/** Whether an address, with or without a length, is IPv4. */
export function isIpv4(address: string): boolean {
  return !address.includes(":");
}

/**
 * The IPv4 address that published ports lead to, without a length: that on the nodes' own network, else that on the first
 * network that is not internal, since an answer must have a way out. Empty when there is none.
 */
export function ingressAddress(
  { address, networks }: Pick<Task, "address" | "networks">,
  isInternal: (networkId: string) => boolean,
): string {
  if (address !== "") return withoutLength(address);
  const open: NetworkAddresses | undefined = networks.find(({ networkId }) => !isInternal(networkId));
  return withoutLength(open?.addresses.find(isIpv4) ?? "");
}
