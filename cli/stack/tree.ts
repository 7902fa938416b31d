/** A stack file as a tree that remembers where each part was written. Every stage of the pipeline reads and makes trees; none changes one. */

/** One file's name, as the user gave it, and where its lines begin. */
export interface Source {
  readonly name: string;
  readonly lineStarts: readonly number[];
}

/** Where something stands: an offset into the file's text, in UTF-16 units. */
export interface Place {
  readonly source: Source;
  readonly offset: number;
}

/** `!reset` drops what earlier files said; `!override` replaces it instead of merging. */
type MergeTag = "reset" | "override";

export type ScalarValue = string | number | boolean | null;

export interface ScalarNode {
  readonly kind: "scalar";
  readonly value: ScalarValue;
  /** As written, after quotes and escapes: `1.50` stays `1.50`. */
  readonly text: string;
  /** Whether it came out of a variable: then it is read as whatever type its place wants. */
  readonly substituted?: boolean;
  readonly place: Place;
  readonly tag?: MergeTag;
}

export interface ListNode {
  readonly kind: "list";
  readonly items: readonly Tree[];
  readonly place: Place;
  readonly tag?: MergeTag;
}

export interface Entry {
  /** Where the key stands. */
  readonly key: Place;
  readonly value: Tree;
}

export interface MapNode {
  readonly kind: "map";
  /** In the order of the file. A Map, so that `__proto__` is a name like any other. */
  readonly entries: ReadonlyMap<string, Entry>;
  readonly place: Place;
  readonly tag?: MergeTag;
}

export type Tree = ScalarNode | ListNode | MapNode;

/** A scalar that no file holds as such: it stands where what it was made of stands. */
export function scalar(value: ScalarValue, place: Place): ScalarNode {
  return { kind: "scalar", value, text: value === null ? "" : String(value), place };
}

export function list(items: readonly Tree[], place: Place): ListNode {
  return { kind: "list", items, place };
}

/** A map of trees whose keys stand where their values do; undefined values are left out. */
export function mapping(fields: Readonly<Record<string, Tree | undefined>>, place: Place): MapNode {
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) entries.set(name, { key: value.place, value });
  }
  return { kind: "map", entries, place };
}

/** `node` with other entries. */
export function withEntries(node: MapNode, entries: ReadonlyMap<string, Entry>): MapNode {
  return { ...node, entries };
}

/** `node` with `value` under `name`, in its place if it was there. */
export function withEntry(node: MapNode, name: string, value: Tree): MapNode {
  const entries = new Map(node.entries);
  entries.set(name, { key: entries.get(name)?.key ?? value.place, value });
  return withEntries(node, entries);
}

/** `node` without the entries `names`. */
export function without(node: MapNode, ...names: readonly string[]): MapNode {
  const entries = new Map(node.entries);
  for (const name of names) entries.delete(name);
  return withEntries(node, entries);
}

/** What stands under `name`; a null counts as absent. */
export function child(node: Tree | undefined, name: string): Tree | undefined {
  const value = node?.kind === "map" ? node.entries.get(name)?.value : undefined;
  return value !== undefined && isNull(value) ? undefined : value;
}

/** What stands at the end of a path of names. */
export function descend(node: Tree | undefined, ...names: readonly string[]): Tree | undefined {
  return names.reduce<Tree | undefined>((at, name) => child(at, name), node);
}

export function isNull(node: Tree): boolean {
  return node.kind === "scalar" && node.value === null;
}

/** The entries of a map, or none. */
export function entriesOf(node: Tree | undefined): readonly (readonly [string, Tree])[] {
  if (node?.kind !== "map") return [];
  return [...node.entries].map(([name, { value }]) => [name, value] as const);
}

/** The items of a list, or none. */
export function itemsOf(node: Tree | undefined): readonly Tree[] {
  return node?.kind === "list" ? node.items : [];
}

/** A scalar's text as written; undefined where there is none or null. */
export function textOf(node: Tree | undefined): string | undefined {
  return node?.kind === "scalar" && node.value !== null ? node.text : undefined;
}

/** A scalar's number; undefined where it is none. */
export function numberOf(node: Tree | undefined): number | undefined {
  return node?.kind === "scalar" && typeof node.value === "number" ? node.value : undefined;
}

/** A scalar's boolean; undefined where it is none. */
export function flagOf(node: Tree | undefined): boolean | undefined {
  return node?.kind === "scalar" && typeof node.value === "boolean" ? node.value : undefined;
}

/** `path.name`, quoted where a dot or a blank would mislead; `name` at the top. */
export function under(path: string, name: string): string {
  const shown = /^[\w-]+$/.test(name) ? name : JSON.stringify(name.slice(0, 128));
  return path === "" ? shown : `${path}.${shown}`;
}

/** A path while a tree is walked: text is made of it only when there is something to say. */
export interface Trail {
  readonly up: Trail | undefined;
  readonly step: string | number;
}

/** The path as text: `services.web.ports[0]`. */
export function pathOf(trail: Trail | undefined): string {
  if (trail === undefined) return "";
  const { up, step } = trail;
  return typeof step === "number" ? `${pathOf(up)}[${step}]` : under(pathOf(up), step);
}

/** Line and column of a place, from 1; columns count UTF-16 units. */
export function positionOf({ source, offset }: Place): { readonly line: number; readonly column: number } {
  let low = 0;
  let high = source.lineStarts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((source.lineStarts[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - (source.lineStarts[low] ?? 0) + 1 };
}
