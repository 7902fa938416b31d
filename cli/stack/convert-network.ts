/** Where a service is reached: published ports, how connections are dealt to its tasks, and its networks. */
import { isIP } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { isNodeNetwork, normaliseNetwork, overlayNetworks } from "../../common/model/networks.ts";
import { networkProblems } from "../../common/model/validate-network.ts";
import {
  EndpointSpec_Affinity,
  EndpointSpec_Mode,
  type EndpointSpecSchema,
  type NetworkAttachmentConfigSchema,
  NetworkSpecSchema,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type PortConfigSchema,
  type ServiceSpec,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { NAMESPACE_LABEL, recordOf } from "./convert-container.ts";
import { type ConvertContext, type ServiceSite, scopedName } from "./site.ts";
import {
  child,
  descend,
  entriesOf,
  flagOf,
  itemsOf,
  type MapNode,
  numberOf,
  type Tree,
  textOf,
  under,
} from "./tree.ts";

type EndpointInit = MessageInitShape<typeof EndpointSpecSchema>;
type AttachmentInit = MessageInitShape<typeof NetworkAttachmentConfigSchema>;
type NetworkInit = MessageInitShape<typeof NetworkSpecSchema> & { readonly name: string };
type PortInit = MessageInitShape<typeof PortConfigSchema>;

/** The network of services that name none. */
const DEFAULT = "default";

const PROTOCOLS: Readonly<Record<string, PortConfig_Protocol>> = {
  tcp: PortConfig_Protocol.TCP,
  udp: PortConfig_Protocol.UDP,
  sctp: PortConfig_Protocol.SCTP,
};

/** Ports and how they are balanced. */
export function convertEndpoint(site: ServiceSite): EndpointInit | undefined {
  const mode = site.at("deploy", "endpoint_mode");
  const word = textOf(mode) ?? "vip";
  if (mode !== undefined && word !== "vip" && word !== "dnsrr" && word !== "") {
    site.refuse(mode, "deploy.endpoint_mode", `must be one of vip, dnsrr, not ${JSON.stringify(word)}`);
  }
  const ports = itemsOf(site.at("ports")).map((item, index) => convertPort(site, item, `ports[${index}]`));
  const affinity = convertAffinity(site);
  if (ports.length === 0 && word !== "dnsrr" && affinity === EndpointSpec_Affinity.NONE) return undefined;
  return { mode: word === "dnsrr" ? EndpointSpec_Mode.DNSRR : EndpointSpec_Mode.VIP, ports, affinity };
}

/** `x-session-affinity`: the compose specification has no word for it, and others' programs pass over `x-`. */
function convertAffinity(site: ServiceSite): EndpointSpec_Affinity {
  const node = site.at("x-session-affinity");
  const word = textOf(node) ?? "none";
  if (node !== undefined && word !== "none" && word !== "client-ip") {
    site.refuse(node, "x-session-affinity", `must be one of none, client-ip, not ${JSON.stringify(word)}`);
  }
  return word === "client-ip" ? EndpointSpec_Affinity.CLIENT_IP : EndpointSpec_Affinity.NONE;
}

function convertPort(site: ServiceSite, item: Tree, path: string): PortInit {
  const node = (name: string) => child(item, name);
  const refuse = (name: string, message: string) => site.refuse(node(name) ?? item, `${path}.${name}`, message);
  const protocol = (textOf(node("protocol")) ?? "tcp").toLowerCase();
  if (!Object.hasOwn(PROTOCOLS, protocol))
    refuse("protocol", `must be one of tcp, udp, sctp, not ${JSON.stringify(protocol)}`);
  const mode = textOf(node("mode")) ?? "ingress";
  if (mode !== "ingress" && mode !== "host")
    refuse("mode", `must be one of ingress, host, not ${JSON.stringify(mode)}`);
  const hostIp = textOf(node("host_ip")) ?? "";
  if (hostIp !== "" && isIP(hostIp) === 0) refuse("host_ip", `${JSON.stringify(hostIp)} is not an IP address`);
  if (node("app_protocol") !== undefined) refuse("app_protocol", "is not supported: ports are forwarded as they are");
  return {
    name: textOf(node("name")) ?? "",
    protocol: PROTOCOLS[protocol] ?? PortConfig_Protocol.TCP,
    targetPort: numberOf(node("target")) ?? 0,
    publishedPort: numberOf(node("published")) ?? 0,
    publishMode: mode === "host" ? PortConfig_PublishMode.HOST : PortConfig_PublishMode.INGRESS,
    hostIp,
  };
}

/** The networks of a service: those that it names, or the stack's default one. Its own name is an alias on each. */
export function convertNetworks(site: ServiceSite): AttachmentInit[] {
  const { stack } = site.context;
  const networks = site.at("networks");
  const mode = site.at("network_mode");
  const named = networks?.kind === "map" ? [...networks.entries] : [];
  if (mode !== undefined && named.length > 0) {
    site.refuse(mode, "network_mode", "cannot be used together with networks");
    return [];
  }
  if (mode !== undefined) return modeOf(site, mode);
  if (named.length === 0) {
    const target = networkName(stack, DEFAULT, declaration(site.context.file, DEFAULT));
    return [{ target, aliases: isNodeNetwork(target) ? [] : [site.key] }];
  }
  const attachments = named.flatMap(([key, { key: place, value }]) => {
    const path = under("networks", key);
    const declared = declaration(site.context.file, key);
    if (declared === undefined && key !== DEFAULT) {
      const problem = `undefined network ${JSON.stringify(key)}: declare it under networks`;
      site.findings.problem(place, `${site.path}.${path}`, problem);
      return [];
    }
    const priority = numberOf(child(value, "priority")) ?? 0;
    return [{ key, value, priority, target: networkName(stack, key, declared) }];
  });
  // In an order of their own, so that moving lines in the file changes nothing.
  attachments.sort((left, right) => right.priority - left.priority || (left.target < right.target ? -1 : 1));
  return attachments.map(({ key, value, target }, index) => {
    site.note(`networks[${index}]`, value, under("networks", key));
    return convertAttachment(site, { key, value, target });
  });
}

/** What an attachment may say that cannot be done. */
const ATTACHMENT_REFUSED: Readonly<Record<string, string>> = {
  gw_priority: "is not supported: a task's way out is its first network that is not internal (see priority)",
  interface_name: "is not supported: interfaces are named eth0, eth1, …",
  link_local_ips: "are not supported",
  mac_address: "is not supported: it follows from the address",
};

function convertAttachment(
  site: ServiceSite,
  { key, value, target }: { readonly key: string; readonly value: Tree; readonly target: string },
): AttachmentInit {
  for (const [field, reason] of Object.entries(ATTACHMENT_REFUSED)) {
    const node = child(value, field);
    if (node !== undefined) site.refuse(node, `${under("networks", key)}.${field}`, reason);
  }
  const aliases = itemsOf(child(value, "aliases")).flatMap((item) => textOf(item) ?? []);
  const addresses = ["ipv4_address", "ipv6_address"].flatMap((field) => textOf(child(value, field)) ?? []);
  const own = isNodeNetwork(target) ? [] : [site.key];
  return {
    target,
    aliases: [...new Set([...aliases, ...own])],
    driverOpts: recordOf(child(value, "driver_opts")),
    addresses,
  };
}

function modeOf(site: ServiceSite, mode: Tree): AttachmentInit[] {
  const text = textOf(mode) ?? "";
  if (isNodeNetwork(text)) return [{ target: text }];
  if (text !== "") site.refuse(mode, "network_mode", `${JSON.stringify(text)} is not supported: host, none or bridge`);
  return [];
}

function declaration(file: MapNode, key: string): Tree | undefined {
  const section = child(file, "networks");
  return section?.kind === "map" ? section.entries.get(key)?.value : undefined;
}

function networkName(stack: string, key: string, declared: Tree | undefined): string {
  return scopedName(stack, key, textOf(child(declared, "name")));
}

/** The networks that the stack brings, as far as its services are on them, and those that must be there already. */
export function convertStackNetworks(
  context: ConvertContext,
  services: readonly ServiceSpec[],
): { readonly networks: NetworkInit[]; readonly externalNetworks: string[] } {
  const { file, stack, findings } = context;
  const used = new Set(services.flatMap((service) => overlayNetworks(service)));
  const networks: NetworkInit[] = [];
  const externalNetworks: string[] = [];
  const declared = entriesOf(child(file, "networks")).filter(
    ([key, node]) => !key.startsWith("x-") || node.kind === "map",
  );
  const all = declared.some(([key]) => key === DEFAULT) ? declared : [...declared, [DEFAULT, file] as const];
  for (const [key, node] of all) {
    const described = node === file ? undefined : node;
    const name = networkName(stack, key, described);
    if (flagOf(child(described, "external")) === true) {
      if (used.has(name)) externalNetworks.push(name);
      continue;
    }
    const spec = convertNetwork(context, { key, name, node: described });
    const tell = new Map(
      networkProblems(normaliseNetwork(create(NetworkSpecSchema, spec))).map((each) => [each.field, each]),
    );
    for (const { field, problem } of tell.values()) {
      const at = fieldNode(described, field) ?? described ?? file;
      findings.problem(at.place, `${under("networks", key)}.${fileField(field)}`, problem);
    }
    // As Docker: what nobody is on is not made.
    if (used.has(name)) networks.push(spec);
  }
  return { networks, externalNetworks };
}

function convertNetwork(
  { stack, findings }: ConvertContext,
  { key, name, node }: { readonly key: string; readonly name: string; readonly node: Tree | undefined },
): NetworkInit {
  const refuse = (field: string, problem: string, ...path: string[]) => {
    const at = descend(node, ...path);
    if (at !== undefined) findings.problem(at.place, `${under("networks", key)}.${field}`, problem);
  };
  if (flagOf(child(node, "enable_ipv4")) === false) refuse("enable_ipv4", "every network has IPv4", "enable_ipv4");
  const driver = textOf(descend(node, "ipam", "driver")) ?? "";
  if (driver !== "" && driver !== "default") {
    refuse(
      "ipam.driver",
      `${JSON.stringify(driver)} is not supported: the managers choose the addresses`,
      "ipam",
      "driver",
    );
  }
  if (Object.keys(recordOf(descend(node, "ipam", "options"))).length > 0) {
    refuse("ipam.options", "are not supported: the managers choose the addresses", "ipam", "options");
  }
  return {
    name,
    driver: textOf(child(node, "driver")) ?? "",
    driverOpts: recordOf(child(node, "driver_opts")),
    labels: { ...recordOf(child(node, "labels")), [NAMESPACE_LABEL]: stack },
    internal: flagOf(child(node, "internal")) ?? false,
    attachable: flagOf(child(node, "attachable")) ?? false,
    ipv6: flagOf(child(node, "enable_ipv6")) ?? false,
    ipam: itemsOf(descend(node, "ipam", "config")).map((config) => ({
      subnet: textOf(child(config, "subnet")) ?? "",
      gateway: textOf(child(config, "gateway")) ?? "",
      ipRange: textOf(child(config, "ip_range")) ?? "",
      auxAddresses: recordOf(child(config, "aux_addresses")),
    })),
  };
}

/** A field of a network's spec as the file has it: "ipam[0].subnet" stands at ipam.config[0].subnet. */
function fileField(field: string): string {
  return field.replace(/^ipam\[/, "ipam.config[").replaceAll(/\."([\w-]+)"/g, ".$1");
}

/** The deepest node of the file on the way to a field of the spec. */
function fieldNode(node: Tree | undefined, field: string): Tree | undefined {
  let at = node;
  for (const step of fileField(field).match(/"[^"]*"|[^.[\]"]+/g) ?? []) {
    const name = step.replaceAll('"', "");
    const next = at?.kind === "list" ? at.items[Number(name)] : child(at, name);
    if (next === undefined) break;
    at = next;
  }
  return at;
}
