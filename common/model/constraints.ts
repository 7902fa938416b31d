/**
 * Placement constraints: `node.labels.zone==a`, `node.ip!=10.0.0.0/8`. Grammar and meaning are SwarmKit's
 * (manager/constraint), with one refusal more: an unknown key, which SwarmKit takes and then matches no node.
 */
import { BlockList, isIP } from "node:net";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import { bad, good, type Parsed } from "./parsed.ts";
import { quoted } from "./units.ts";

const FACTS = ["node.id", "node.hostname", "node.role", "node.ip", "node.platform.os", "node.platform.arch"] as const;
type Fact = (typeof FACTS)[number];

/** Which property of a node is asked for. */
export type ConstraintKey =
  | { readonly kind: "fact"; readonly fact: Fact }
  | { readonly kind: "node label" | "engine label"; readonly label: string };

/** One clause; several are joined by AND. */
export interface Constraint {
  readonly key: ConstraintKey;
  /** Whether it reads `==`; `!=` otherwise. */
  readonly equal: boolean;
  /** In lower case. */
  readonly value: string;
  /** As the user wrote it. */
  readonly text: string;
}

const KEY = /^[a-z_][a-z0-9\-_.]+$/i;
const VALUE = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;
const NODE_LABEL = "node.labels.";
const ENGINE_LABEL = "engine.labels.";
const ARCHITECTURES: Readonly<Record<string, string>> = { x86_64: "amd64", aarch64: "arm64" };

/** Reads `key==value` or `key!=value`. */
export function parseConstraint(text: string): Parsed<Constraint> {
  const match = /^(.*?)(==|!=)(.*)$/s.exec(text);
  const [, left, operator, right] = match ?? [];
  if (left === undefined || right === undefined) {
    return bad(`constraint ${quoted(text)}: expected one operator from ==, !=`);
  }
  const key = parseKey(left.trim());
  if (key === undefined) return bad(`constraint ${quoted(text)}: key ${quoted(left.trim())} is invalid`);
  const value = right.trim();
  if (!VALUE.test(value)) return bad(`constraint ${quoted(text)}: value ${quoted(value)} is invalid`);
  if (key.kind === "fact" && key.fact === "node.ip" && !isAddressOrNetwork(value)) {
    return bad(`constraint ${quoted(text)}: value ${quoted(value)} is not an IP address or network`);
  }
  return good({ key, equal: operator === "==", value: value.toLowerCase(), text });
}

/** Reads several; the first problem counts. */
export function parseConstraints(texts: readonly string[]): Parsed<readonly Constraint[]> {
  const constraints: Constraint[] = [];
  for (const text of texts) {
    const parsed = parseConstraint(text);
    if (!parsed.ok) return parsed;
    constraints.push(parsed.value);
  }
  return good(constraints);
}

/** Whether `node` satisfies one clause. A label that the node lacks counts as empty, as in SwarmKit. */
export function matches(constraint: Constraint, node: Node): boolean {
  const { key, value } = constraint;
  if (key.kind === "fact" && key.fact === "node.ip") return addressMatches(node, value) === constraint.equal;
  const actual = actualValue(key, node).toLowerCase();
  const same = isArchitecture(key) ? architecture(actual) === architecture(value) : actual === value;
  return same === constraint.equal;
}

/** Whether `node` satisfies every clause. */
export function matchesAll(constraints: readonly Constraint[], node: Node): boolean {
  return constraints.every((constraint) => matches(constraint, node));
}

/** An architecture under its OCI name, whether it came from uname or from an image: "x86_64" → "amd64". */
export function architecture(name: string): string {
  const lower = name.toLowerCase();
  return Object.hasOwn(ARCHITECTURES, lower) ? (ARCHITECTURES[lower] ?? lower) : lower;
}

/** The node's role: whoever runs a manager, or is meant to, is one. */
export function roleOf(node: Node): "manager" | "worker" {
  const manager = node.managerStatus !== undefined || node.spec?.desiredRole === NodeSpec_Role.MANAGER;
  return manager ? "manager" : "worker";
}

function parseKey(text: string): ConstraintKey | undefined {
  if (!KEY.test(text)) return undefined;
  const lower = text.toLowerCase();
  const fact = FACTS.find((name) => name === lower);
  if (fact !== undefined) return { kind: "fact", fact };
  const rest = (prefix: string) => (lower.startsWith(prefix) ? text.slice(prefix.length) : "");
  if (rest(NODE_LABEL) !== "") return { kind: "node label", label: rest(NODE_LABEL) };
  if (rest(ENGINE_LABEL) !== "") return { kind: "engine label", label: rest(ENGINE_LABEL) };
  return undefined;
}

function actualValue(key: ConstraintKey, node: Node): string {
  switch (key.kind) {
    case "node label":
      return own(node.spec?.labels, key.label);
    case "engine label":
      return own(node.description?.engine?.labels, key.label);
    case "fact":
      return factOf(key.fact, node);
  }
}

function factOf(fact: Fact, node: Node): string {
  switch (fact) {
    case "node.id":
      return node.id;
    case "node.hostname":
      return node.description?.hostname ?? "";
    case "node.role":
      return roleOf(node);
    case "node.ip":
      return addressOf(node);
    case "node.platform.os":
      return node.description?.platform?.os ?? "";
    case "node.platform.arch":
      return node.description?.platform?.architecture ?? "";
  }
}

function own(labels: Readonly<Record<string, string>> | undefined, key: string): string {
  return labels !== undefined && Object.hasOwn(labels, key) ? (labels[key] ?? "") : "";
}

function isArchitecture(key: ConstraintKey): boolean {
  return key.kind === "fact" && key.fact === "node.platform.arch";
}

/** The node's IP without the port it may come with: "10.0.0.7", "10.0.0.7:4711", "[::1]:4711". */
function addressOf(node: Node): string {
  const text = node.status?.address ?? "";
  if (isIP(text) !== 0) return text;
  return text
    .replace(/^ipv[46]:/, "")
    .replace(/:\d+$/, "")
    .replace(/^\[|\]$/g, "");
}

function isAddressOrNetwork(text: string): boolean {
  const [address = "", prefix, ...more] = text.split("/");
  const family = isIP(address);
  if (family === 0 || more.length > 0) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

function addressMatches(node: Node, value: string): boolean {
  const actual = addressOf(node);
  const [address = "", prefix] = value.split("/");
  if (isIP(actual) === 0 || isIP(actual) !== isIP(address)) return false;
  const family = isIP(address) === 4 ? "ipv4" : "ipv6";
  const network = new BlockList();
  network.addSubnet(address, Number(prefix ?? (family === "ipv4" ? 32 : 128)), family);
  return network.check(actual, family);
}
