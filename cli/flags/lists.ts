/** List flags of services: how each value is read, and how `--X-add` and `--X-rm` edit what is there. Pure. */

import { isIP } from "node:net";
import { create } from "@bufbuild/protobuf";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parsePublish, publishedPortKey } from "../../common/model/ports.ts";
import {
  type NetworkAttachmentConfig,
  NetworkAttachmentConfigSchema,
  type PlacementPreference,
  PlacementPreferenceSchema,
  type PortConfig,
  type Ulimit,
  UlimitSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { parseCsvFields } from "./csv.ts";

/** Adds `added` to `present`; what has the same key is replaced in its place. */
export function merged<T>(present: readonly T[], added: readonly T[], keyOf: (item: T) => string): T[] {
  const byKey = new Map(present.map((item) => [keyOf(item), item]));
  for (const item of added) byKey.set(keyOf(item), item);
  return [...byKey.values()];
}

/** What stands before the first `=`. */
export function nameOf(assignment: string): string {
  const equals = assignment.indexOf("=");
  return equals < 0 ? assignment : assignment.slice(0, equals);
}

/** `key=value` as a pair; a bare key has the empty value. */
export function parsePair(text: string): Parsed<readonly [string, string]> {
  const key = nameOf(text);
  if (key === "") return bad("a name must stand before =");
  return good([key, text.slice(key.length + 1)]);
}

/** `KEY=value`, or `KEY`, which takes its value from the caller's environment as Docker does. */
export function parseVariable(text: string, environment: Readonly<Record<string, string | undefined>>): Parsed<string> {
  const name = nameOf(text);
  if (name === "") return bad(`invalid environment variable: ${text}`);
  const inherited = text.includes("=") ? undefined : environment[name];
  return good(inherited === undefined ? text : `${name}=${inherited}`);
}

/** `name:ip` or `name=ip` as the line `ip name`. */
export function parseHost(text: string): Parsed<string> {
  const match = /^([^:=]+)[:=]\[?(.*?)\]?$/.exec(text);
  const [, name, address = ""] = match ?? [];
  if (name === undefined) return bad(`bad format for add-host: ${JSON.stringify(text)} (name:ip)`);
  if (isIP(address) === 0) return bad(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  return good(`${address} ${name}`);
}

/** `spread=node.labels.zone`. */
export function parsePreference(text: string): Parsed<PlacementPreference> {
  const [key, spread] = parsePairLoose(text);
  if (key !== "spread") return bad(`unsupported placement preference ${JSON.stringify(key)}: only spread is`);
  return good(create(PlacementPreferenceSchema, { spread }));
}

/** `nofile=1024:2048`. */
export function parseUlimit(text: string): Parsed<Ulimit> {
  const match = /^([a-z]+)=(-?\d{1,18})(?::(-?\d{1,18}))?$/.exec(text);
  const [, name, soft, hard = soft] = match ?? [];
  if (name === undefined || soft === undefined || hard === undefined) {
    return bad(`invalid ulimit argument: ${text} (name=soft[:hard])`);
  }
  return good(create(UlimitSchema, { name, soft: BigInt(soft), hard: BigInt(hard) }));
}

/** `host`, or `name=front,alias=a,driver-opt=k=v,ip=10.0.1.9`; `ip` may stand once for each family. */
export function parseNetwork(text: string): Parsed<NetworkAttachmentConfig> {
  const network = create(NetworkAttachmentConfigSchema, {});
  if (!text.includes("=")) {
    network.target = text;
    return good(network);
  }
  const fields = parseCsvFields(text);
  if (!fields.ok) return fields;
  for (const { key, value = "" } of fields.value) {
    if (key === "name") network.target = value;
    else if (key === "alias") network.aliases.push(value);
    else if (key === "ip") network.addresses.push(value);
    else if (key === "driver-opt")
      network.driverOpts = { ...network.driverOpts, ...Object.fromEntries([parsePairLoose(value)]) };
    else return bad(`invalid field key ${key}`);
  }
  return network.target === "" ? bad("network name/id is not specified") : good(network);
}

/** Several `--publish` as ports; a later one for the same published port replaces the earlier. */
export function portKey(port: PortConfig): string {
  return port.publishedPort === 0 ? `random:${port.targetPort}/${port.protocol}` : publishedPortKey(port);
}

/** Which ports `--publish-rm` names, by target port: `80`, `80/udp`, or the whole `8080:80`. */
export function parsePortRemoval(text: string): Parsed<(port: PortConfig) => boolean> {
  const parsed = parsePublish(text);
  if (!parsed.ok) return parsed;
  const withProtocol = text.includes("/") || text.includes("=");
  return good((port) =>
    parsed.value.some(
      (removed) => removed.targetPort === port.targetPort && (!withProtocol || removed.protocol === port.protocol),
    ),
  );
}

function parsePairLoose(text: string): readonly [string, string] {
  const name = nameOf(text);
  return [name.trim(), text.slice(name.length + 1).trim()];
}
