/** `127.0.0.1:8080:80/udp` → ports in their long form (docker/cli: toServicePortConfigs). Pure. */
import { isIP } from "node:net";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parsePublish, protocolName } from "../../common/model/ports.ts";
import type { PortConfig } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Normalise } from "./rule.ts";
import { child, mapping, numberOf, scalar, type Tree, textOf } from "./tree.ts";

/** Every short form of the list by the ports it stands for. */
export const asPorts: Normalise = (node, site) => {
  if (node.kind !== "list") return node;
  const items = node.items.flatMap((item) => {
    // A variable that was left in is nobody's port yet.
    if (item.kind !== "scalar" || item.text.includes("$")) return [item];
    const ports = readShort(item.text);
    if (ports.ok) return ports.value.map((port) => longForm(port, item.place));
    site.problem(item, ports.problem);
    return [];
  });
  return { ...node, items };
};

/** What is wrong with a port that is written short, or undefined. */
export function shortPortProblem(text: string): string | undefined {
  const parsed = readShort(text);
  return parsed.ok ? undefined : parsed.problem;
}

/** Which port of which host a long form takes: a later file's port with the same key takes its place. */
export function portKey(port: Tree): string {
  const protocol = textOf(child(port, "protocol")) ?? "tcp";
  const published = numberOf(child(port, "published")) ?? 0;
  if (published === 0) return `random:${textOf(child(port, "target")) ?? ""}/${protocol}`;
  return `${textOf(child(port, "host_ip")) ?? ""}:${published}/${protocol}`;
}

function longForm(port: PortConfig, place: Tree["place"]): Tree {
  return mapping(
    {
      mode: scalar("ingress", place),
      host_ip: port.hostIp === "" ? undefined : scalar(port.hostIp, place),
      target: scalar(port.targetPort, place),
      published: port.publishedPort === 0 ? undefined : scalar(port.publishedPort, place),
      protocol: scalar(protocolName(port.protocol), place),
    },
    place,
  );
}

function readShort(text: string): Parsed<readonly PortConfig[]> {
  if (/[=,\s]/.test(text)) return bad(`invalid port ${JSON.stringify(text)}`);
  const match = /^(?:(\[[^\]]*\]|[^:]*):(?=[^:]*:))?(.*)$/s.exec(text);
  const [, address, rest = ""] = match ?? [];
  const hostIp = address?.replace(/^\[|\]$/g, "") ?? "";
  if (address !== undefined && isIP(hostIp) === 0) return bad(`invalid IP address: ${JSON.stringify(hostIp)}`);
  const spread = /^(\d{1,5})-(\d{1,5}):(\d{1,5})(\/\w+)?$/.exec(rest);
  const specs = spread === null ? [rest.replace(/^:/, "")] : spreadOut(spread);
  const ports: PortConfig[] = [];
  for (const spec of specs) {
    const parsed = parsePublish(spec);
    if (!parsed.ok) return parsed;
    ports.push(...parsed.value.map((port) => ({ ...port, hostIp })));
  }
  if (ports.length === 0) return bad(`invalid hostPort: ${JSON.stringify(text)}`);
  const key = (port: PortConfig) => `${port.targetPort}/${protocolName(port.protocol)}`;
  // Docker's order: by the container's port, as text.
  return good(ports.toSorted((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)));
}

/** A range of host ports for one port of the container. */
function spreadOut([, first, last, target, protocol = ""]: RegExpExecArray): readonly string[] {
  const count = Number(last) - Number(first) + 1;
  if (count < 1 || count > 1000) return [];
  return Array.from({ length: count }, (_, index) => `${Number(first) + index}:${target}${protocol}`);
}
