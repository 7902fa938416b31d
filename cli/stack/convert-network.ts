/** Where a service is reached: published ports, and the networks that nodes have. Others are refused until there are overlay networks. */
import { isIP } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  EndpointSpec_Mode,
  type EndpointSpecSchema,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type PortConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { ConvertContext, ServiceSite } from "./site.ts";
import { child, entriesOf, flagOf, itemsOf, type MapNode, numberOf, type Tree, textOf, under } from "./tree.ts";

type EndpointInit = MessageInitShape<typeof EndpointSpecSchema>;
type PortInit = MessageInitShape<typeof PortConfigSchema>;

const NOT_YET = "overlay networks are not supported yet";
/** What every node has; tasks are on the bridge unless they say otherwise. */
const NODE_NETWORKS = ["host", "none", "bridge"];

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
  if (ports.length === 0 && word !== "dnsrr") return undefined;
  return { mode: word === "dnsrr" ? EndpointSpec_Mode.DNSRR : EndpointSpec_Mode.VIP, ports };
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

/** The network that a service's tasks are in, if it is not the nodes' bridge. */
export function convertNetworks(site: ServiceSite): { target: string }[] {
  const networks = site.at("networks");
  const mode = site.at("network_mode");
  const named = entriesOf(networks);
  if (mode !== undefined && named.length > 0) {
    site.refuse(mode, "network_mode", "cannot be used together with networks");
    return [];
  }
  if (mode !== undefined) return modeOf(site, mode);
  return named.flatMap(([key, options]) => {
    const path = under("networks", key);
    const at = networks?.kind === "map" ? (networks.entries.get(key)?.key ?? networks.place) : site.node.place;
    for (const [option, value] of entriesOf(options)) {
      if (!option.startsWith("x-")) site.refuse(value, `${path}.${option}`, `${NOT_YET}, and others have no ${option}`);
    }
    const declared = declaration(site.context.file, key);
    if (declared === undefined && key !== "default") {
      site.findings.problem(
        at,
        `${site.path}.${path}`,
        `undefined network ${JSON.stringify(key)}: declare it under networks`,
      );
      return [];
    }
    const target = flagOf(child(declared, "external")) === true ? textOf(child(declared, "name")) : undefined;
    return target === undefined || target === "bridge" || !NODE_NETWORKS.includes(target) ? [] : [{ target }];
  });
}

function modeOf(site: ServiceSite, mode: Tree): { target: string }[] {
  const text = textOf(mode) ?? "";
  if (text === "host" || text === "none") return [{ target: text }];
  if (text !== "bridge" && text !== "") {
    site.refuse(mode, "network_mode", `${JSON.stringify(text)} is not supported: host, none or bridge`);
  }
  return [];
}

function declaration(file: MapNode, key: string): Tree | undefined {
  const section = child(file, "networks");
  return section?.kind === "map" ? section.entries.get(key)?.value : undefined;
}

/** Refuses declared networks that would have to be made. `default` without options is the nodes' bridge. */
export function checkNetworks({ file, findings }: ConvertContext): void {
  for (const [key, node] of entriesOf(child(file, "networks"))) {
    if (key.startsWith("x-")) continue;
    const path = under("networks", key);
    const said = entriesOf(node).filter(([name]) => !name.startsWith("x-"));
    if (flagOf(child(node, "external")) === true) {
      const name = textOf(child(node, "name")) ?? key;
      if (!NODE_NETWORKS.includes(name)) {
        findings.problem(
          node.place,
          path,
          `network ${JSON.stringify(name)} cannot be had: ${NOT_YET}, only host, none and bridge exist`,
        );
      }
    } else if (key !== "default" || said.length > 0) {
      findings.problem(node.place, path, `${NOT_YET}: tasks of all services share each node's bridge`);
    }
  }
}
