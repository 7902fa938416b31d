/** Variables in a whole file: every value, never a key. */
import type { Findings } from "./findings.ts";
import { type Lookup, substitute } from "./substitute.ts";
import { type Entry, type MapNode, pathOf, type Trail, type Tree, withEntries } from "./tree.ts";

/** `file` with its variables replaced. */
export function interpolateFile(file: MapNode, lookup: Lookup, findings: Findings): MapNode {
  const entries = new Map<string, Entry>();
  for (const [name, entry] of file.entries) {
    const value = interpolate(entry.value, lookup, findings, { up: undefined, step: name });
    entries.set(name, { ...entry, value });
  }
  return withEntries(file, entries);
}

function interpolate(node: Tree, lookup: Lookup, findings: Findings, trail: Trail): Tree {
  switch (node.kind) {
    case "scalar": {
      if (typeof node.value !== "string" || !node.value.includes("$")) return node;
      const parsed = substitute(node.value, lookup, (name) => {
        findings.warn(node.place, pathOf(trail), `the variable ${name} is not set: taken as empty`);
      });
      if (parsed.ok) return { ...node, value: parsed.value, text: parsed.value, substituted: true };
      findings.problem(node.place, pathOf(trail), parsed.problem);
      return node;
    }
    case "list": {
      const items = node.items.map((item, index) => interpolate(item, lookup, findings, { up: trail, step: index }));
      return items.every((item, index) => item === node.items[index]) ? node : { ...node, items };
    }
    case "map": {
      let entries: Map<string, Entry> | undefined;
      for (const [name, entry] of node.entries) {
        const value = interpolate(entry.value, lookup, findings, { up: trail, step: name });
        if (value === entry.value) continue;
        entries ??= new Map(node.entries);
        entries.set(name, { key: entry.key, value });
      }
      return entries === undefined ? node : withEntries(node, entries);
    }
  }
}
