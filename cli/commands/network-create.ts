import { isIP } from "node:net";
import { SwarmError } from "../../common/base/error.ts";
import { present } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { parsePair } from "../flags/lists.ts";
import { ipamOf } from "../flags/network-ipam.ts";
import { parsedOrThrow } from "../flags/values.ts";
import { NETWORK_CREATE_REFUSED, refuseFlags } from "../refused.ts";

export const command: Command = {
  usage: "network create [OPTIONS] NETWORK",
  summary: "Create a network that spans the nodes",
  flags: {
    attachable: { kind: "boolean", help: "Kept and shown for Docker's clients: every service may be attached" },
    "aux-address": { kind: "list", value: "name=ip", help: "Addresses of the subnet that nobody gets" },
    driver: { kind: "text", short: "d", value: "string", help: "Driver to manage the Network", default: '"overlay"' },
    gateway: { kind: "list", value: "ip", help: "IPv4 or IPv6 gateway for the subnet" },
    internal: { kind: "boolean", help: "Restrict external access to the network" },
    "ip-range": { kind: "list", value: "cidr", help: "Allocate addresses from a part of the subnet" },
    "ipam-driver": { kind: "text", value: "string", help: "IP Address Management Driver", default: '"default"' },
    ipv4: { kind: "boolean", help: "IPv4 address assignment: always on" },
    ipv6: { kind: "boolean", help: "Enable IPv6 address assignment" },
    label: { kind: "list", value: "list", help: "Set metadata on a network" },
    opt: {
      kind: "list",
      short: "o",
      value: "list",
      help: "Set driver specific options: encrypted, com.docker.network.driver.mtu=BYTES",
    },
    scope: { kind: "text", value: "string", help: "Control the network's scope", default: '"swarm"' },
    subnet: { kind: "list", value: "cidr", help: "Subnet in CIDR format; one of each family" },
    ...NETWORK_CREATE_REFUSED.flags,
  },
  words: { min: 1, max: 1 },
  run,
};

async function run({ flags, words, io, connect }: Invocation): Promise<number> {
  refuseFlags(flags, NETWORK_CREATE_REFUSED);
  const [name = ""] = words;
  refuse(flags.text("scope") ?? "swarm", "swarm", "scope", "networks are of the whole cluster");
  refuse(flags.text("ipam-driver") ?? "default", "default", "ipam-driver", "the managers choose the addresses");
  if (flags.has("ipv4") && !flags.on("ipv4")) {
    throw new SwarmError("unimplemented", "--ipv4=false: every network has IPv4");
  }
  const pairs = (flag: string) => flags.list(flag).map((text) => parsedOrThrow(flag, text, parsePair));
  const subnets = flags.list("subnet");
  const ipam = ipamOf({
    subnets,
    gateways: flags.list("gateway"),
    ranges: flags.list("ip-range"),
    auxAddresses: pairs("aux-address"),
  });
  const spec = {
    name,
    driver: flags.text("driver") ?? "overlay",
    labels: Object.fromEntries(pairs("label")),
    driverOpts: Object.fromEntries(pairs("opt")),
    internal: flags.on("internal"),
    attachable: flags.on("attachable"),
    // A subnet of IPv6 asks for it as clearly as the flag does.
    ipv6: flags.on("ipv6") || (!flags.has("ipv6") && subnets.some((subnet) => isIP(subnet.split("/")[0] ?? "") === 6)),
    ipam,
  };
  const { network } = await (await connect()).createNetwork({ spec });
  io.out(`${present(network?.network, "network").id}\n`);
  return 0;
}

function refuse(value: string, only: string, flag: string, reason: string): void {
  if (value !== only) throw new SwarmError("unimplemented", `--${flag} ${value}: ${reason}: only ${only} is`);
}
