/** What a spec says of networks, found in the store: ids and beginnings of ids become names, fixed addresses their one text. Pure. */
import { type FieldProblem, SwarmError } from "../../common/base/error.ts";
import { parseIpAddress, parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { canonicalAddress, isPredefinedNetwork } from "../../common/model/networks.ts";
import { hostProblem } from "../../common/model/validate-network.ts";
import type { Network } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { NetworkAttachmentConfig, ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { networkLookup } from "./lookups.ts";
import { resolveReference } from "./references.ts";

/** A network as far as attaching needs it: one that a stack is about to make has no more. */
export type AttachableNetwork = Pick<Network, "name" | "ipam">;

export interface ResolvedAttachments {
  readonly spec: ServiceSpec;
  /** Networks that are not there. */
  readonly missing: readonly FieldProblem[];
  readonly problems: readonly FieldProblem[];
}

/** `planned`: networks that will be there by then, by their names. */
export function resolveAttachments(
  view: View,
  spec: ServiceSpec,
  planned: ReadonlyMap<string, AttachableNetwork> = new Map(),
): ResolvedAttachments {
  const missing: FieldProblem[] = [];
  const problems: FieldProblem[] = [];
  if (!spec.task || spec.task.networks.length === 0) return { spec, missing, problems };
  const networks = spec.task.networks.map((attachment, index): NetworkAttachmentConfig => {
    const { target } = attachment;
    if (isPredefinedNetwork(target)) return attachment;
    const field = `networks[${index}]`;
    const network = planned.get(target) ?? findNetwork(view, target);
    if (network === undefined) {
      missing.push({ field, problem: `network ${target} not found` });
      return attachment;
    }
    const addresses = attachment.addresses.map(canonicalAddress);
    for (const address of addresses) {
      const problem = addressProblem(network, address);
      if (problem !== undefined) problems.push({ field: `${field}.addresses`, problem });
    }
    return { ...attachment, target: network.name, addresses };
  });
  const names = networks.map(({ target }) => target);
  names.forEach((name, index) => {
    if (names.indexOf(name) === index || spec.task?.networks[index]?.target === name) return;
    problems.push({ field: `networks[${index}]`, problem: `${name} stands twice` });
  });
  return { spec: { ...spec, task: { ...spec.task, networks } }, missing, problems };
}

/** Throws unless all that a spec says of networks can be: `not_found` that names the field, or `invalid_argument`. */
export function requireAttachable({ missing, problems }: ResolvedAttachments): void {
  const all = [...missing, ...problems];
  if (all.length === 0) return;
  const text = all.map(({ field, problem }) => `${field}: ${problem}`).join("; ");
  throw new SwarmError(missing.length > 0 ? "not_found" : "invalid_argument", text);
}

function findNetwork(view: View, target: string): Network | undefined {
  try {
    return resolveReference(networkLookup(view), target);
  } catch (reason) {
    // Nothing, or no text that could name something; an ambiguous one says what it could mean.
    if (reason instanceof SwarmError && (reason.code === "not_found" || !reason.message.includes("ambiguous"))) {
      return undefined;
    }
    throw reason;
  }
}

function addressProblem({ name, ipam }: AttachableNetwork, address: string): string | undefined {
  const family = parseIpAddress(address)?.family;
  for (const { subnet, gateway, auxAddresses } of ipam) {
    const prefix = parseIpPrefix(subnet);
    if (!prefix || prefix.family !== family) continue;
    if (address === gateway) return `${address} is the gateway of network ${name}`;
    const aux = Object.entries(auxAddresses).find(([, each]) => each === address);
    if (aux) return `${address} is reserved in network ${name} for ${aux[0]}`;
    return hostProblem(address, prefix);
  }
  return `network ${name} has no subnet for ${address}`;
}
