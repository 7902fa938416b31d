/** Published ports as Docker's users write them and read them. */
import { isIP } from "node:net";
import { create } from "@bufbuild/protobuf";
import {
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  PortConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { formatIpAddress, parseIpAddress } from "./ip-prefix.ts";
import { bad, good, type Parsed } from "./parsed.ts";
import { quoted } from "./units.ts";

const PROTOCOLS: Readonly<Record<string, PortConfig_Protocol>> = {
  tcp: PortConfig_Protocol.TCP,
  udp: PortConfig_Protocol.UDP,
  sctp: PortConfig_Protocol.SCTP,
};

/** Ports of one `--publish` at most: a wider range is a mistake and would bury every list. */
const RANGE_MAX = 1000;

interface Range {
  readonly first: number;
  readonly last: number;
}

/** Reads the value of `--publish`: `80`, `127.0.0.1:8080:80/udp`, `8000-8010:80-90`, or `published=8080,target=80,host-ip=127.0.0.1`. */
export function parsePublish(text: string): Parsed<readonly PortConfig[]> {
  return text.includes("=") ? parseLong(text) : parseShort(text);
}

/** "tcp", "udp" or "sctp". */
export function protocolName(protocol: PortConfig_Protocol): string {
  return PortConfig_Protocol[protocol].toLowerCase();
}

/** The one address of a node that the port is published on; empty for all of them, which `0.0.0.0` and `::` mean too. */
export function hostAddress({ hostIp }: Pick<PortConfig, "hostIp">): string {
  const address = parseIpAddress(hostIp);
  if (address === undefined) return hostIp;
  return address.value === 0n ? "" : formatIpAddress(address);
}

/** "192.0.2.1:", "[2001:db8::1]:"; empty for all addresses. */
function addressPrefix(port: PortConfig): string {
  const address = hostAddress(port);
  if (address === "") return "";
  return address.includes(":") ? `[${address}]:` : `${address}:`;
}

/** Which port of which address this one takes, in words: `8080/tcp`, `127.0.0.1:8080/tcp`. */
export function publishedPortKey(port: PortConfig): string {
  return `${addressPrefix(port)}${port.publishedPort}/${protocolName(port.protocol)}`;
}

/** Whether the two cannot both be had: the same port, on the same address or with one of them on all. */
export function samePublishedPort(left: PortConfig, right: PortConfig): boolean {
  const [one, other] = [hostAddress(left), hostAddress(right)];
  const meet = one === other || one === "" || other === "";
  return left.publishedPort === right.publishedPort && left.protocol === right.protocol && meet;
}

/** Whether the port is reached through every node. */
export function isIngress(port: PortConfig): boolean {
  return port.publishMode === PortConfig_PublishMode.INGRESS;
}

/** The ports of a service as `service ls` shows them: `*:8080->80/tcp`, neighbours joined: `127.0.0.1:8000-8002->80-82/tcp`. */
export function formatServicePorts(ports: readonly PortConfig[]): string {
  return joinRanges(ports.filter(isIngress)).join(", ");
}

/** The host-mode ports of a task as `service ps` shows them. */
export function formatTaskPorts(ports: readonly PortConfig[]): string {
  return joinRanges(ports.filter((port) => !isIngress(port))).join(", ");
}

function joinRanges(ports: readonly PortConfig[]): readonly string[] {
  const sorted = ports.toSorted(
    (a, b) =>
      a.protocol - b.protocol || hostAddress(a).localeCompare(hostAddress(b)) || a.publishedPort - b.publishedPort,
  );
  const groups: PortConfig[][] = [];
  for (const port of sorted) {
    const group = groups.at(-1);
    const last = group?.at(-1);
    const follows =
      last?.protocol === port.protocol &&
      hostAddress(last) === hostAddress(port) &&
      last.publishedPort + 1 === port.publishedPort &&
      last.targetPort + 1 === port.targetPort;
    if (group !== undefined && follows) group.push(port);
    else groups.push([port]);
  }
  return groups.flatMap(([first, ...rest]) => {
    if (first === undefined) return [];
    const last = rest.at(-1) ?? first;
    const range = (from: number, to: number) => (from === to ? `${from}` : `${from}-${to}`);
    const published = range(first.publishedPort, last.publishedPort);
    const address = addressPrefix(first) || "*:";
    return [`${address}${published}->${range(first.targetPort, last.targetPort)}/${protocolName(first.protocol)}`];
  });
}

function parseShort(text: string): Parsed<readonly PortConfig[]> {
  const [ports = "", protocolText = "tcp", ...more] = text.split("/");
  const protocol = protocolOf(protocolText);
  if (protocol === undefined || more.length > 0) return bad(`invalid protocol in ${quoted(text)}: tcp, udp or sctp`);
  const [, bracketed, plain, numbers = ""] = /^(?:\[([^\]]*)\]:|([^:]*):(?=[^:]*:))?(.*)$/s.exec(ports) ?? [];
  const hostIp = bracketed ?? plain ?? "";
  if ((bracketed ?? plain) !== undefined && isIP(hostIp) === 0) return bad(`invalid IP address: ${quoted(hostIp)}`);
  const parts = numbers.replace(/^:/, "").split(":");
  const [published, target, ...rest] = parts.length === 1 ? ["", ...parts] : parts;
  if (rest.length > 0) return bad(`invalid publish ${quoted(text)}: [address:][published:]target[/protocol]`);
  const targetRange = parseRange(target ?? "");
  if (targetRange === undefined) return bad(`invalid containerPort: ${quoted(target ?? "")}`);
  if (targetRange.first === 0) return bad("invalid containerPort: 0");
  if (published === "" || published === undefined) return good(portsOf(targetRange, undefined, { protocol, hostIp }));
  const publishedRange = parseRange(published);
  if (publishedRange === undefined) return bad(`invalid hostPort: ${quoted(published)}`);
  if (size(publishedRange) !== size(targetRange) && size(targetRange) !== 1) {
    return bad(`invalid ranges specified for container and host Ports: ${target} and ${published}`);
  }
  if (size(publishedRange) !== size(targetRange)) return bad(`a range of host ports needs as many container ports`);
  return good(portsOf(targetRange, publishedRange, { protocol, hostIp }));
}

function portsOf(
  target: Range,
  published: Range | undefined,
  common: { readonly protocol: PortConfig_Protocol; readonly hostIp: string },
): readonly PortConfig[] {
  return Array.from({ length: size(target) }, (_, index) =>
    create(PortConfigSchema, {
      ...common,
      targetPort: target.first + index,
      publishedPort: published === undefined || published.first === 0 ? 0 : published.first + index,
    }),
  );
}

function parseLong(text: string): Parsed<readonly PortConfig[]> {
  const port = create(PortConfigSchema, {});
  for (const field of text.split(",")) {
    const at = field.indexOf("=");
    const key = field.slice(0, at < 0 ? undefined : at).trim();
    const value = at < 0 ? "" : field.slice(at + 1).trim();
    if (at < 0) return bad(`invalid field: ${field}`);
    const problem = setLongField(port, key, value);
    if (problem !== undefined) return bad(problem);
  }
  return port.targetPort === 0 ? bad(`missing mandatory field "target"`) : good([port]);
}

function setLongField(port: PortConfig, key: string, value: string): string | undefined {
  switch (key) {
    case "target":
    case "published": {
      const range = parseRange(value);
      if (range === undefined || size(range) !== 1) return `invalid ${key} port ${quoted(value)}: a number to 65535`;
      if (key === "target") port.targetPort = range.first;
      else port.publishedPort = range.first;
      return undefined;
    }
    case "protocol": {
      const protocol = protocolOf(value);
      if (protocol === undefined) return `invalid protocol value ${quoted(value)}: tcp, udp or sctp`;
      port.protocol = protocol;
      return undefined;
    }
    case "mode":
      if (value !== "ingress" && value !== "host")
        return `invalid publish mode value ${quoted(value)}: ingress or host`;
      port.publishMode = value === "host" ? PortConfig_PublishMode.HOST : PortConfig_PublishMode.INGRESS;
      return undefined;
    case "name":
      port.name = value;
      return undefined;
    case "host-ip":
      if (isIP(value) === 0) return `invalid IP address: ${quoted(value)}`;
      port.hostIp = value;
      return undefined;
    default:
      return `invalid field key ${quoted(key)}: target, published, protocol, mode, host-ip or name`;
  }
}

function protocolOf(text: string): PortConfig_Protocol | undefined {
  const lower = text.toLowerCase();
  return Object.hasOwn(PROTOCOLS, lower) ? PROTOCOLS[lower] : undefined;
}

function size(range: Range): number {
  return range.last - range.first + 1;
}

function parseRange(text: string): Range | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  const range = { first, last };
  return last > 65535 || last < first || size(range) > RANGE_MAX ? undefined : range;
}
