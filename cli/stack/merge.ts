/**
 * Joins a later file into an earlier one as docker/cli does (cli/compose/loader/merge.go), except that false, 0 and what is
 * empty count, that a health check's test is replaced, and that `!reset` and `!override` are obeyed. Pure.
 */
import type { MergeWay, Rule } from "./rule.ts";
import { child, type Entry, isNull, itemsOf, type MapNode, type Tree, textOf, withEntries } from "./tree.ts";

/** `later` on top of `earlier`; both in their long form. */
export function merge(earlier: Tree, later: Tree, rule: Rule): Tree {
  if (later.tag === "override") return later;
  if (isNull(later)) return earlier;
  if (earlier.kind !== later.kind) {
    return rule.align === undefined ? later : merge(rule.align(earlier), rule.align(later), { merge: "entries" });
  }
  if (earlier.kind === "map" && later.kind === "map") return mergeMaps(earlier, later, rule);
  if (earlier.kind === "list" && later.kind === "list") {
    return { ...later, items: mergeLists(earlier.items, later.items, rule.merge) };
  }
  return later;
}

function mergeMaps(earlier: MapNode, later: MapNode, rule: Rule): MapNode {
  if (rule.merge === "replace") return later;
  if (rule.merge === "logging" && differs(earlier, later)) return later;
  const entries = new Map(earlier.entries);
  for (const [name, entry] of later.entries) {
    if (entry.value.tag === "reset") {
      entries.delete(name);
      continue;
    }
    const present = entries.get(name);
    const inner = ruleOf(rule, name);
    const whole = rule.merge === "entries" && !isNull(entry.value);
    const value = present === undefined || whole ? entry.value : merge(present.value, entry.value, inner);
    entries.set(name, { key: entry.key, value });
  }
  return withEntries(later, entries);
}

/** Whether two loggings name different drivers. */
function differs(earlier: MapNode, later: MapNode): boolean {
  const [before, after] = [earlier, later].map((node) => textOf(child(node, "driver")));
  return before !== undefined && after !== undefined && before !== after;
}

function mergeLists(earlier: readonly Tree[], later: readonly Tree[], way: MergeWay | undefined): readonly Tree[] {
  if (way === "replace") return later;
  if (way === undefined || typeof way === "string") {
    const present = new Set(earlier.map(identity));
    return [...earlier, ...later.filter((item) => !present.has(identity(item)))];
  }
  const byKey = new Map(earlier.map((item) => [way.key(item), item]));
  for (const item of later) {
    const present = byKey.get(way.key(item));
    byKey.set(way.key(item), present !== undefined && way.join ? merge(present, item, {}) : item);
  }
  return [...byKey.values()].toSorted((a, b) => compare(way.order(a), way.order(b)));
}

function compare(a: string | number, b: string | number): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A text that is equal for equal items. */
function identity(item: Tree): string {
  if (item.kind === "scalar") return JSON.stringify(item.value);
  if (item.kind === "list") return `[${itemsOf(item).map(identity).join()}]`;
  return `{${[...item.entries].map(([name, { value }]) => `${JSON.stringify(name)}:${identity(value)}`).join()}}`;
}

/** The rule of what stands under `name`. */
export function ruleOf(rule: Rule, name: string): Rule {
  const fields = rule.map?.fields;
  const field = fields !== undefined && Object.hasOwn(fields, name) ? fields[name] : undefined;
  return field ?? rule.map?.others ?? { anything: true };
}

/** `node` without what `!reset` drops, and without tags. What has none stays the same object. */
export function settle(node: Tree): Tree {
  if (node.kind === "scalar") return untagged(node);
  if (node.kind === "list") {
    const items = node.items.filter((item) => item.tag !== "reset").map(settle);
    const same = items.length === node.items.length && items.every((item, index) => item === node.items[index]);
    return untagged(same ? node : { ...node, items });
  }
  let entries: Map<string, Entry> | undefined;
  for (const [name, entry] of node.entries) {
    const value = settle(entry.value);
    if (value === entry.value && value.tag === undefined) continue;
    entries ??= new Map(node.entries);
    if (entry.value.tag === "reset") entries.delete(name);
    else entries.set(name, { key: entry.key, value });
  }
  return untagged(entries === undefined ? node : { ...node, entries });
}

function untagged(node: Tree): Tree {
  if (node.tag === undefined) return node;
  const { tag: _, ...bare } = node;
  return bare;
}
