/** A merged tree as text: YAML as Docker lays it out, or JSON. What says no more than its absence is left out, as in Docker. Pure. */
import { ruleOf } from "./merge.ts";
import type { MapRule, Rule } from "./rule.ts";
import { resolvePlain } from "./scalars.ts";
import { stackFile } from "./schema.ts";
import { type Entry, type MapNode, type ScalarNode, scalar, type Tree, withEntries, withEntry } from "./tree.ts";

export type PrintFormat = "yaml" | "json";

/** The version that a file without one, or with 3 alone, is read as. */
const VERSION_DEFAULT = "3.13";
/** The order of a file's sections; what is not here comes last. */
const ORDER = ["version", "name", "services", "networks", "volumes", "secrets", "configs"];

/** The text of a merged file. */
export function printStack(file: MapNode, format: PrintFormat): string {
  const version = file.entries.get("version")?.value;
  const text = version?.kind === "scalar" ? version.text : VERSION_DEFAULT;
  const services = file.entries.get("services")?.value ?? { kind: "map", entries: new Map(), place: file.place };
  const whole = withEntry(
    withEntry(file, "services", services),
    "version",
    scalar(text === "3" ? VERSION_DEFAULT : text, file.place),
  );
  const tree = tidied(whole, stackFile) ?? whole;
  if (format === "json") return `${jsonOf(tree, "")}\n`;
  const lines: string[] = [];
  yamlOf(tree, "", lines);
  return `${lines.join("\n")}\n`;
}

/** `node` in printing order, without what is empty; undefined when nothing of it is left to say. */
function tidied(node: Tree, rule: Rule): Tree | undefined {
  if (rule.anything) return node;
  if (node.kind === "scalar") return rule.printEmpty || !isZero(node) ? node : undefined;
  if (node.kind === "list") {
    const items = node.items.map((item) => tidied(item, { ...rule.list?.item, printEmpty: true }) ?? item);
    return items.length > 0 || rule.printEmpty ? { ...node, items } : undefined;
  }
  const names = [...node.entries.keys()];
  const sorted = rule === stackFile ? names.toSorted((a, b) => rank(a) - rank(b)) : inOrder(names, rule.map);
  const entries = new Map<string, Entry>();
  for (const name of sorted) {
    const entry = node.entries.get(name);
    const free = rule.map?.fields?.[name] === undefined && rule.map?.others !== undefined;
    const inner = ruleOf(rule, name);
    // What stands under a name of the user's own is said, however little it is.
    const value = entry && tidied(entry.value, free ? { ...inner, printEmpty: true } : inner);
    if (entry !== undefined && value !== undefined)
      entries.set(name, value === entry.value ? entry : { key: entry.key, value });
  }
  return entries.size > 0 || rule.printEmpty ? withEntries(node, entries) : undefined;
}

function rank(name: string): number {
  const index = ORDER.indexOf(name);
  return index < 0 ? ORDER.length : index;
}

/** Where each field of a map stands, counted once. */
const RANKS = new WeakMap<MapRule, ReadonlyMap<string, number>>();

/** Fields in the schema's order, then the user's own names by theirs. */
function inOrder(names: readonly string[], rule: MapRule | undefined): readonly string[] {
  if (names.length < 2) return names;
  if (rule?.fields === undefined) return names.toSorted();
  const ranks = RANKS.get(rule) ?? new Map(Object.keys(rule.fields).map((name, index) => [name, index]));
  RANKS.set(rule, ranks);
  const rankOf = (name: string) => ranks.get(name) ?? ranks.size;
  return names.toSorted((a, b) => rankOf(a) - rankOf(b) || (a < b ? -1 : 1));
}

function isZero({ value }: ScalarNode): boolean {
  return value === null || value === "" || value === false || value === 0;
}

function yamlOf(node: Tree, indent: string, lines: string[]): void {
  if (node.kind === "scalar") lines.push(`${indent}${scalarYaml(node, indent)}`);
  else if (node.kind === "list") {
    for (const item of node.items) yamlItem(item, indent, lines);
  } else {
    for (const [name, { value }] of node.entries) yamlEntry(name, value, indent, lines);
  }
}

function yamlEntry(name: string, value: Tree, indent: string, lines: string[]): void {
  const head = `${indent}${stringYaml(name)}:`;
  if (value.kind === "scalar") lines.push(`${head} ${scalarYaml(value, indent)}`);
  else if (isEmpty(value)) lines.push(`${head} ${value.kind === "list" ? "[]" : "{}"}`);
  else {
    lines.push(head);
    yamlOf(value, `${indent}  `, lines);
  }
}

function yamlItem(item: Tree, indent: string, lines: string[]): void {
  if (item.kind === "scalar") lines.push(`${indent}- ${scalarYaml(item, indent)}`);
  else if (isEmpty(item)) lines.push(`${indent}- ${item.kind === "list" ? "[]" : "{}"}`);
  else {
    const inner: string[] = [];
    yamlOf(item, `${indent}  `, inner);
    const [first = "", ...rest] = inner;
    lines.push(`${indent}- ${first.slice(indent.length + 2)}`, ...rest);
  }
}

function isEmpty(node: Tree): boolean {
  return node.kind === "list" ? node.items.length === 0 : node.kind === "map" && node.entries.size === 0;
}

function scalarYaml(node: ScalarNode, indent: string): string {
  if (node.value === null) return "null";
  if (typeof node.value === "number") return numberYaml(node.value);
  if (typeof node.value === "boolean") return String(node.value);
  const text = node.value;
  // A block of lines, where YAML's rules cannot change it: no blank at a line's end or before the first, no control character.
  if (/\n/.test(text) && /^[^\s]/.test(text) && !/[^\n\t\x20-\x7e\u00a0-\ud7ff]|[ \t](?:\n|$)|\n\n$/.test(text)) {
    const block = text.replace(/\n$/, "").split("\n");
    const mark = text.endsWith("\n") ? "|" : "|-";
    return [mark, ...block.map((line) => (line === "" ? "" : `${indent}    ${line}`))].join("\n");
  }
  return stringYaml(text);
}

function numberYaml(value: number): string {
  if (Number.isNaN(value)) return ".nan";
  return Number.isFinite(value) ? String(value) : value > 0 ? ".inf" : "-.inf";
}

/** What other readers of YAML take for a boolean. */
const AMBIGUOUS = /^(?:y|n|yes|no|on|off)$/i;
/** "10s", "1.1.1.1", "10.0.0.0/24"; no time, no date. */
const AMOUNT = /^(?!\d{4}-)\d[\w./-]*[\w/]$/;
const OPTION = /^--?[A-Za-z][\w-]*$/;
const PLAIN = /^[A-Za-z_./$](?:[\w./$@+=:-]*[\w./$@+=-])?(?: [\w./$@+=-](?:[\w./$@+=:-]*[\w./$@+=-])?)*$/;

function stringYaml(text: string): string {
  const plain =
    (PLAIN.test(text) || AMOUNT.test(text) || OPTION.test(text)) &&
    !AMBIGUOUS.test(text) &&
    text !== "<<" &&
    resolvePlain(text) === text;
  return plain ? text : JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g, escaped);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function jsonOf(node: Tree, indent: string): string {
  const inner = `${indent}  `;
  if (node.kind === "scalar")
    return typeof node.value === "number" && !Number.isFinite(node.value) ? "null" : JSON.stringify(node.value);
  if (isEmpty(node)) return node.kind === "list" ? "[]" : "{}";
  const parts =
    node.kind === "list"
      ? node.items.map((item) => jsonOf(item, inner))
      : [...node.entries].map(([name, { value }]) => `${JSON.stringify(name)}: ${jsonOf(value, inner)}`);
  const [open, close] = node.kind === "list" ? ["[", "]"] : ["{", "}"];
  return `${open}\n${parts.map((part) => `${inner}${part}`).join(",\n")}\n${indent}${close}`;
}
