/** Which of a task's addresses is used for what: managers and agents must agree. Pure. */
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";

/** "10.0.1.7" of "10.0.1.7/24". */
export function withoutLength(address: string): string {
  return address.split("/", 1)[0] ?? "";
}

/** Whether an address, with or without a length, is IPv4. */
export function isIpv4(address: string): boolean {
  return !address.includes(":");
}

/**
 * The addresses that published ports lead to, without lengths, one of a family at most: that on the nodes' own network, else
 * that on the first network that is not internal, since an answer must have a way out. IPv4 last.
 */
export function ingressAddresses(
  { address, networks }: Pick<Task, "address" | "networks">,
  isInternal: (networkId: string) => boolean,
): readonly string[] {
  const open = networks.filter(({ networkId }) => !isInternal(networkId)).flatMap(({ addresses }) => addresses);
  const ipv6 = open.find((each) => !isIpv4(each));
  const ipv4 = address === "" ? open.find(isIpv4) : address;
  return [ipv6, ipv4].flatMap((each) => (each === undefined ? [] : withoutLength(each)));
}
