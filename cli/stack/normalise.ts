/** Short forms → long forms, as docker/cli's loader makes them (cli/compose/loader/loader.go). Each takes a checked node. Pure. */
import { isAbsolute, join } from "node:path";
import { formatDurationMs, parseBytes, parseDurationMs } from "../../common/model/units.ts";
import { parseShellWords } from "../flags/shell-words.ts";
import type { Normalise, Site } from "./rule.ts";
import {
  child,
  entriesOf,
  flagOf,
  isNull,
  list,
  type MapNode,
  mapping,
  scalar,
  type Tree,
  textOf,
  withEntries,
  withEntry,
  without,
} from "./tree.ts";

/** A scalar as text, as it was written: `1.10` is no 1.1. */
export const asText: Normalise = (node) =>
  node.kind === "scalar" && node.value !== null ? { ...node, value: node.text } : node;

/** One value where a list may stand. */
export const asList: Normalise = (node) => (node.kind === "scalar" ? list([asText(node, NOWHERE)], node.place) : node);

/** A list whose items are texts. */
export const asTexts: Normalise = (node) =>
  node.kind === "list" ? { ...node, items: node.items.map((item) => asText(item, NOWHERE)) } : node;

const NOWHERE: Site = { name: "", directory: "", home: "", problem: () => undefined, warn: () => undefined };

/** `["a=b", "c"]` or `{a: b, c: }` as a map of texts; what has no value is "". */
export const asMap: Normalise = (node, site) => pairs(node, site, false);

/** The same, where no value is not "" but none: the variable's value comes from elsewhere. */
export const asEnvironment: Normalise = (node, site) => pairs(node, site, true);

function pairs(node: Tree, site: Site, nullable: boolean): Tree {
  const absent = (at: Tree) => scalar(nullable ? null : "", at.place);
  if (node.kind === "map") {
    const entries = new Map(node.entries);
    for (const [name, entry] of entries) {
      if (entry.value.tag === "reset") continue;
      entries.set(name, { ...entry, value: isNull(entry.value) ? absent(entry.value) : asText(entry.value, site) });
    }
    return withEntries(node, entries);
  }
  if (node.kind !== "list") return node;
  const entries = new Map<string, { key: Tree["place"]; value: Tree }>();
  for (const item of node.items) {
    const text = textOf(item) ?? "";
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    if (name === "") site.problem(item, `${JSON.stringify(text)}: a name must stand before =`);
    const value = equals < 0 ? absent(item) : scalar(text.slice(equals + 1), item.place);
    entries.set(name, { key: item.place, value });
  }
  return { kind: "map", entries, place: node.place };
}

/** `{name: address}` as Docker's lines "name:address", sorted. */
export const asHosts: Normalise = (node) => {
  if (node.kind !== "map") return node;
  const lines = entriesOf(node).flatMap(([name, value]) => {
    const addresses = value.kind === "list" ? value.items : [value];
    return addresses.flatMap((each) => (isNull(each) ? [] : [scalar(`${name}:${textOf(each) ?? ""}`, each.place)]));
  });
  return list(
    lines.toSorted((a, b) => (String(a.value) < String(b.value) ? -1 : 1)),
    node.place,
  );
};

/** A command line as its words. */
export const asWords: Normalise = (node, site) => {
  if (node.kind !== "scalar" || node.value === null) return node;
  const words = parseShellWords(node.text);
  if (words.ok)
    return list(
      words.value.map((word) => scalar(word, node.place)),
      node.place,
    );
  site.problem(node, words.problem);
  return node;
};

/** A health check's line as the words that run it. */
export const asTest: Normalise = (node) =>
  node.kind === "scalar" ? list([scalar("CMD-SHELL", node.place), asText(node, NOWHERE)], node.place) : node;

/** A duration as Go prints it: "90s" → "1m30s". */
export const asDuration: Normalise = (node) => {
  const parsed = parseDurationMs(textOf(node) ?? "");
  return parsed.ok ? scalar(formatDurationMs(parsed.value), node.place) : node;
};

/** The same where 0 is what nothing means: "". */
export const asDelay: Normalise = (node, site) => {
  const whole = asDuration(node, site);
  return textOf(whole) === "0s" ? scalar("", node.place) : whole;
};

/** "50M" as Docker prints it: a text with the number of bytes, "" for 0. */
export const asBytesText: Normalise = (node) => {
  const parsed = parseBytes(textOf(node) ?? "");
  return parsed.ok ? scalar(parsed.value === 0 ? "" : String(parsed.value), node.place) : node;
};

/** A size as a number of bytes. */
export const asBytes: Normalise = (node) => {
  const parsed = parseBytes(textOf(node) ?? "");
  return parsed.ok ? scalar(parsed.value, node.place) : node;
};

/** A text that holds a whole number, as the number. */
export const asInteger: Normalise = (node) => {
  const text = textOf(node);
  return text !== undefined && /^-?\d+$/.test(text) ? scalar(Number(text), node.place) : node;
};

/** Permission bits: a number as it is, a text in octal; of a variable, as Docker has it, in decimal unless it begins with 0. */
export const asMode: Normalise = (node, site) => {
  if (node.kind !== "scalar" || typeof node.value !== "string") return node;
  if (node.substituted && /^[1-9]\d{0,3}$/.test(node.text)) return scalar(Number(node.text), node.place);
  if (/^(?:0o?)?[0-7]{1,5}$/.test(node.text))
    return scalar(Number.parseInt(node.text.replace(/^0o/, ""), 8), node.place);
  site.problem(node, `${JSON.stringify(node.text)} is not a file mode in octal`);
  return node;
};

/** `[a, b]` as `{a: , b: }`. */
export const asNetworks: Normalise = (node) => {
  if (node.kind !== "list") return node;
  const entries = node.items.map(
    (item) => [textOf(item) ?? "", { key: item.place, value: scalar(null, item.place) }] as const,
  );
  return { kind: "map", entries: new Map(entries), place: node.place };
};

/** The name of a secret or config as the reference that it is short for. */
export const asReference: Normalise = (node) => (node.kind === "scalar" ? mapping({ source: node }, node.place) : node);

/** The folder of a build. */
export const asBuild: Normalise = (node) => (node.kind === "scalar" ? mapping({ context: node }, node.place) : node);

/** `extends: web` as `{service: web}`. */
export const asExtends: Normalise = (node) => (node.kind === "scalar" ? mapping({ service: node }, node.place) : node);

/** A path from the file's folder, or the user's home, as an absolute one. */
export function absolutePath(path: string, { directory, home }: Pick<Site, "directory" | "home">): string {
  if (path === "~" || path.startsWith("~/")) return join(home, path.slice(1));
  return isAbsolute(path) ? path : join(directory, path);
}

/** A network or volume: `external: {name: x}` means `name: x`, and what is external is called as its key unless it says more. */
export const asResource: Normalise = (node, site) =>
  node.kind === "map" ? external(node, site) : mapping({}, node.place);

/** A volume is a resource like the others; one that exists already is not described. */
export const asVolume: Normalise = (node, site) => {
  const resource = asResource(node, site);
  if (flagOf(child(resource, "external")) !== true) return resource;
  for (const field of ["driver", "driver_opts", "labels"]) {
    const value = child(resource, field);
    if (value !== undefined) site.problem(value, `conflicting parameters "external" and "${field}"`);
  }
  return resource;
};

/** A secret or config: its file as an absolute path. */
export const asFileObject: Normalise = (node, site) => {
  if (node.kind !== "map") return node;
  const resource = external(node, site);
  const sources = ["file", "content", "environment", "driver"].filter((name) => child(resource, name) !== undefined);
  const [, second] = sources;
  if (second !== undefined) site.problem(child(resource, second) ?? node, `${sources.join(" and ")} conflict: use one`);
  const [first] = sources;
  if (flagOf(child(resource, "external")) === true) {
    if (first !== undefined)
      site.problem(child(resource, first) ?? node, `conflicting parameters "external" and "${first}"`);
    return resource;
  }
  const file = textOf(child(resource, "file"));
  const at = child(resource, "file");
  if (file === undefined || at === undefined) return resource;
  return withEntry(resource, "file", scalar(absolutePath(file, site), at.place));
};

function external(node: MapNode, site: Site): MapNode {
  const value = child(node, "external");
  if (value === undefined) return node;
  if (flagOf(value) === false) return without(node, "external");
  const own = child(node, "name");
  const old = value.kind === "map" ? child(value, "name") : undefined;
  if (old !== undefined) {
    if (own !== undefined) site.problem(old, "external.name and name conflict; only use name");
    else site.warn(old, "external.name is deprecated in favor of name");
  }
  const name = own ?? old ?? scalar(site.name, value.place);
  return withEntry(withEntry(node, "external", scalar(true, value.place)), "name", name);
}

/** `depends_on: [a]` as `{a: {condition: service_started}}`. */
export function asDependencies(node: Tree): Tree {
  if (node.kind !== "list") return node;
  const entries = node.items.map((item) => {
    const value = mapping({ condition: scalar("service_started", item.place) }, item.place);
    return [textOf(item) ?? "", { key: item.place, value }] as const;
  });
  return { kind: "map", entries: new Map(entries), place: node.place };
}
