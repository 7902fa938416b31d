/**
 * The bytes of a stack file → a tree with places. YAML 1.2 by the `yaml` package, whose values are not used: scalars are
 * read here (scalars.ts), anchors, merge keys and tags too, so that what a hostile file can cost is bounded and every
 * refusal has a line and a column.
 */
import { isUtf8 } from "node:buffer";
import { Composer, type CST, isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, Parser } from "yaml";
import type { Findings } from "./findings.ts";
import { readPlainYaml } from "./plain-yaml.ts";
import { resolvePlain } from "./scalars.ts";
import type { Entry, MapNode, Place, Source, Tree } from "./tree.ts";

/** A stack file larger than this was made by a mistake. */
export const FILE_BYTES_MAX = 1024 * 1024;
/** Levels of nesting: the deepest place of the schema lies below 12. */
const DEPTH_MAX = 100;
/** Nodes that aliases may stand for, all together. */
const ALIASED_NODES_MAX = 100_000;

const YAML_TAG = "tag:yaml.org,2002:";
const MERGE_TAGS: Readonly<Record<string, "reset" | "override">> = { "!reset": "reset", "!override": "override" };
const PLAIN_TAGS = ["str", "int", "float", "bool", "null", "map", "seq", "merge"];
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\ufffe\uffff]/;

/** Reads one file. What is wrong with it goes to `findings`; then, or when it holds nothing, the answer is undefined. */
export function readYaml(bytes: Uint8Array, name: string, findings: Findings): MapNode | undefined {
  if (bytes.byteLength > FILE_BYTES_MAX) {
    findings.file(name, `is ${bytes.byteLength} bytes long; at most ${FILE_BYTES_MAX}`);
    return undefined;
  }
  const text = decode(bytes, name, findings);
  if (text === undefined) return undefined;
  return readPlainYaml(text, { name, lineStarts: lineStartsOf(text) }) ?? readWhole(text, name, findings);
}

/** Any YAML, by the package. */
export function readWhole(text: string, name: string, findings: Findings): MapNode | undefined {
  const lines = new LineCounter();
  const source: Source = { name, lineStarts: lines.lineStarts };
  const tokens = [...new Parser(lines.addNewLine).parse(text)];
  const forbidden = FORBIDDEN.exec(text);
  if (forbidden !== null) {
    const code = `U+${forbidden[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    findings.problem({ source, offset: forbidden.index }, "", `control character ${code} is not allowed in YAML`);
    return undefined;
  }
  const deep = tooDeep(tokens);
  if (deep !== undefined) {
    findings.problem({ source, offset: deep }, "", `nested more than ${DEPTH_MAX} levels deep`);
    return undefined;
  }
  return composed(tokens, source, text, findings);
}

function composed(tokens: readonly CST.Token[], source: Source, text: string, findings: Findings): MapNode | undefined {
  const composer = new Composer({ schema: "failsafe", uniqueKeys: false, resolveKnownTags: false });
  const documents = [...composer.compose(tokens, true, text.length)];
  const [document, second] = documents;
  // What follows the first error of syntax is noise.
  const [error] = documents.flatMap((each) => each.errors);
  if (error !== undefined) {
    const [offset] = error.pos;
    const hint = text[offset - 1] === "$" ? ": a variable between braces needs quotes" : "";
    findings.problem({ source, offset }, "", error.message.charAt(0).toLowerCase() + error.message.slice(1) + hint);
    return undefined;
  }
  if (second !== undefined) {
    const offset = second.range?.[0] ?? 0;
    findings.problem({ source, offset }, "", "a second YAML document: a stack file holds one");
    return undefined;
  }
  const before = findings.problems.length;
  const contents = document?.contents ?? null;
  const empty = contents === null || (isScalar(contents) && resolvePlain(String(contents.value)) === null);
  const tree = empty ? undefined : new Builder(source, findings).build(contents as ParsedNode, "");
  const faulty = findings.problems.length > before;
  if (tree?.kind === "map") return faulty ? undefined : tree;
  if (!faulty) findings.problem({ source, offset: 0 }, "", "top-level object must be a mapping");
  return undefined;
}

function lineStartsOf(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

/** UTF-8 to text without its byte order mark. */
function decode(bytes: Uint8Array, name: string, findings: Findings): string | undefined {
  if (isUtf8(bytes)) return new TextDecoder("utf-8").decode(bytes);
  const buffer = Buffer.from(bytes);
  let start = 0;
  for (let line = 1; ; line++) {
    const end = buffer.indexOf(10, start);
    const part = buffer.subarray(start, end < 0 ? undefined : end);
    if (!isUtf8(part)) {
      const column = part.toString("utf8").indexOf("\ufffd") + 1;
      const source = { name, lineStarts: Array.from({ length: line }, (_, index) => (index === line - 1 ? 0 : -1)) };
      findings.problem({ source, offset: column - 1 }, "", "is not valid UTF-8");
      return undefined;
    }
    if (end < 0) return undefined;
    start = end + 1;
  }
}

/** The offset of the first token below the deepest level allowed. Goes no deeper itself. */
function tooDeep(tokens: readonly CST.Token[], depth = 0): number | undefined {
  for (const token of tokens) {
    if (depth > DEPTH_MAX) return token.offset;
    const found =
      token.type === "document"
        ? token.value && tooDeep([token.value], depth)
        : "items" in token && tooDeepIn(token, depth);
    if (typeof found === "number") return found;
  }
  return undefined;
}

function tooDeepIn({ items }: { readonly items: readonly CST.CollectionItem[] }, depth: number): number | undefined {
  for (const { key, value } of items) {
    for (const token of [key, value]) {
      // Scalars hold nothing: most of a file.
      const found = token && ("items" in token || depth === DEPTH_MAX) ? tooDeep([token], depth + 1) : undefined;
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

interface Anchored {
  readonly tree: Tree;
  readonly nodes: number;
}

/** Turns the nodes of one document into a tree. */
class Builder {
  readonly #source: Source;
  readonly #findings: Findings;
  /** What each anchor stands for; null while it is being built: an alias to it would have no end. */
  readonly #anchors = new Map<string, Anchored | null>();
  #nodes = 0;
  #aliased = 0;

  constructor(source: Source, findings: Findings) {
    this.#source = source;
    this.#findings = findings;
  }

  build(node: ParsedNode, path: string): Tree | undefined {
    const place = this.#place(node);
    if (isAlias(node)) return this.#alias(node.source, place, path);
    const anchor = node.anchor;
    if (anchor !== undefined) this.#anchors.set(anchor, null);
    const before = this.#nodes++;
    const plain = this.#untagged(node, place, path);
    const tag = MERGE_TAGS[node.tag ?? ""];
    const tree = plain === undefined || tag === undefined ? plain : { ...plain, tag };
    if (anchor !== undefined && tree !== undefined) {
      this.#anchors.set(anchor, { tree, nodes: this.#nodes - before });
    }
    return tree;
  }

  #untagged(node: ParsedNode, place: Place, path: string): Tree | undefined {
    if (node.tag !== undefined && !this.#knowsTag(node.tag)) {
      this.#findings.problem(place, path, `tag ${node.tag.replace(YAML_TAG, "!!")} is not allowed`);
      return undefined;
    }
    if (isMap(node)) return this.#map(node.items, place, path);
    if (isSeq(node)) {
      const items = node.items.map((item, index) => this.build(item as ParsedNode, `${path}[${index}]`));
      return { kind: "list", items: items.filter((item) => item !== undefined), place };
    }
    if (!isScalar(node)) return undefined;
    const text = String(node.value ?? "");
    const explicit = node.tag === `${YAML_TAG}str` || node.tag === "!";
    const quotedText = node.type !== "PLAIN" && node.tag === undefined;
    const value = explicit || quotedText ? text : resolvePlain(text);
    return { kind: "scalar", value, text, place };
  }

  #knowsTag(tag: string): boolean {
    if (tag === "!" || tag === "!reset" || tag === "!override") return true;
    return tag.startsWith(YAML_TAG) && PLAIN_TAGS.includes(tag.slice(YAML_TAG.length));
  }

  #alias(name: string, place: Place, path: string): Tree | undefined {
    const anchored = this.#anchors.get(name);
    if (anchored === null || anchored === undefined) {
      const reason = anchored === null ? "contains itself" : "is not defined above";
      this.#findings.problem(place, path, `alias *${name}: the anchor &${name} ${reason}`);
      return undefined;
    }
    this.#nodes += anchored.nodes;
    this.#aliased += anchored.nodes;
    if (this.#aliased <= ALIASED_NODES_MAX) return anchored.tree;
    if (this.#aliased - anchored.nodes <= ALIASED_NODES_MAX) {
      this.#findings.problem(place, "", "document contains excessive aliasing");
    }
    return undefined;
  }

  #map(items: readonly { key: unknown; value: unknown }[], place: Place, path: string): MapNode {
    const own = new Map<string, Entry>();
    const merged: MapNode[] = [];
    for (const item of items) {
      const keyNode = item.key as ParsedNode;
      const keyPlace = this.#place(keyNode);
      const key = this.#key(keyNode, keyPlace, path);
      if (key === undefined) continue;
      const inner = path === "" ? key : `${path}.${key}`;
      const value = item.value === null ? this.#absent(keyPlace) : this.build(item.value as ParsedNode, inner);
      if (value === undefined) continue;
      if (key === "<<" && isScalar(keyNode) && keyNode.type === "PLAIN") {
        merged.push(...this.#merged(value, inner));
        continue;
      }
      const earlier = own.get(key);
      if (earlier === undefined) own.set(key, { key: keyPlace, value });
      else this.#duplicate(key, earlier.key, keyPlace, path);
    }
    const entries = own;
    for (const { entries: more } of merged) {
      for (const [name, entry] of more) if (!entries.has(name)) entries.set(name, entry);
    }
    return { kind: "map", entries, place };
  }

  #key(node: ParsedNode, place: Place, path: string): string | undefined {
    const key = this.build(node, path);
    if (key === undefined) return undefined;
    if (key.kind === "scalar" && typeof key.value === "string") return key.value;
    const shown = key.kind === "scalar" ? key.text || "null" : `a ${key.kind}`;
    this.#findings.problem(place, path, `non-string key ${shown}: put it in quotes`);
    return undefined;
  }

  #absent(place: Place): Tree {
    this.#nodes++;
    return { kind: "scalar", value: null, text: "", place };
  }

  #merged(value: Tree, path: string): readonly MapNode[] {
    const maps = value.kind === "list" ? value.items : [value];
    return maps.flatMap((each) => {
      if (each.kind === "map") return [each];
      this.#findings.problem(each.place, path, "map merge requires map or sequence of maps as the value");
      return [];
    });
  }

  #duplicate(key: string, earlier: Place, place: Place, path: string): void {
    const line = this.#source.lineStarts.findLastIndex((start) => start <= earlier.offset) + 1;
    this.#findings.problem(place, path, `mapping key ${JSON.stringify(key)} is already defined at line ${line}`);
  }

  #place(node: ParsedNode): Place {
    return { source: this.#source, offset: node.range?.[0] ?? 0 };
  }
}
