/**
 * The YAML that most stack files are written in: block maps and lists, values on one line, flow collections on one line. Read
 * without the `yaml` package, whose generators take 200 ms for 200 services. Whatever is not plainly of this kind (anchors, tags, merge
 * keys, blocks of text, escapes, tabs, anything amiss) makes the answer undefined, and the package has the word: it alone
 * refuses. Where both answer they answer the same, to the last place: plain-yaml.test.ts holds one against the other.
 */
import { resolvePlain } from "./scalars.ts";
import type { Entry, MapNode, Source, Tree } from "./tree.ts";

const DEPTH_MAX = 50;
/** What this reader does not know: tabs, carriage returns, other controls, byte order marks, exotic line breaks. */
const FOREIGN = /[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\ud83c-\ud83e\udc00-\udfff]/;
/** Begins and ends documents, or may. */
const MARKS = /^(?:---|\.\.\.|%)/m;
const KEY = /[A-Za-z_][\w./-]*(?=:(?: |$))|"[^"\\\n]*"(?=:(?: |$))|'[^'\n]*'(?=:(?: |$))/my;
/** A plain scalar within its line: `#` and `:` only where they end nothing. */
const PLAIN = /(?:[A-Za-z0-9_./~$+=(\\^;]|-(?=[^\s]))(?:[^\s:#]|:(?=\S)|(?<=\S)#| +(?=[^\s#]))*/y;
const FLOW_PLAIN =
  /(?:[A-Za-z0-9_./~$+=(\\^;]|-(?=[^\s,[\]{}]))(?:[^\s:#,[\]{}]|:(?=[^\s,[\]{}])|(?<=\S)#| +(?=[^\s#,[\]{}:]))*/y;
const FLOW_KEY = /[A-Za-z_][\w./-]*(?=: )|"[^"\\\n]*"(?=: )|'[^'\n]*'(?=: )/y;
const QUOTED = /"[^"\\\n]*"|'[^'\n]*'(?!')/y;
/** What may follow a value in its line. */
const REST = / *(?: #[^\n]*)?(?=\n|$)/y;

/** The tree of a plain file, or undefined where that is for the package to say. */
export function readPlainYaml(text: string, source: Source): MapNode | undefined {
  if (FOREIGN.test(text) || MARKS.test(text)) return undefined;
  try {
    const reader = new PlainReader(text, source);
    return reader.file();
  } catch (reason) {
    if (reason instanceof NotPlain) return undefined;
    throw reason;
  }
}

class NotPlain extends Error {
  override readonly name = "NotPlain";
}

class PlainReader {
  readonly #text: string;
  readonly #source: Source;
  /** Where the next content begins, and how far it is indented; -1 at the end. */
  #at = 0;
  #indent: number = 0;

  constructor(text: string, source: Source) {
    this.#text = text;
    this.#source = source;
  }

  file(): MapNode {
    this.#toContent(0);
    if (this.#indent !== 0 || this.#isDash()) throw new NotPlain();
    const tree = this.#map(0, 0);
    if (this.#at < this.#text.length && this.#indent >= 0) throw new NotPlain();
    return tree;
  }

  /** Moves to the next line that says something, from the beginning of a line. */
  #toContent(lineStart: number): void {
    let start = lineStart;
    while (start < this.#text.length) {
      let at = start;
      while (this.#text[at] === " ") at++;
      const character = this.#text[at];
      if (character !== "\n" && character !== "#" && character !== undefined) {
        this.#at = at;
        this.#indent = at - start;
        return;
      }
      const end = this.#text.indexOf("\n", at);
      start = end < 0 ? this.#text.length : end + 1;
    }
    this.#indent = -1;
  }

  /** Ends the line behind a value; anything but blanks and a comment there is not plain. */
  #endLine(): void {
    if (this.#match(REST) === undefined) throw new NotPlain();
    this.#toContent(this.#at + 1);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #isDash(): boolean {
    const after = this.#text[this.#at + 1];
    return this.#text[this.#at] === "-" && (after === " " || after === "\n" || after === undefined);
  }

  /** A block map whose keys stand at `indent`; the first one is where the reader is. */
  #map(indent: number, depth: number): MapNode {
    if (depth > DEPTH_MAX) throw new NotPlain();
    const place = this.#place(this.#at);
    const entries = new Map<string, Entry>();
    do {
      const key = this.#place(this.#at);
      const name = this.#key(KEY);
      if (entries.has(name)) throw new NotPlain();
      // The colon.
      this.#at++;
      entries.set(name, { key, value: this.#valueOf(indent, depth) });
    } while (this.#indent === indent && !this.#isDash());
    if (this.#indent > indent) throw new NotPlain();
    return { kind: "map", entries, place };
  }

  #key(pattern: RegExp): string {
    const written = this.#match(pattern);
    if (written === undefined) throw new NotPlain();
    if (written.startsWith('"') || written.startsWith("'")) return written.slice(1, -1);
    if (typeof resolvePlain(written) !== "string") throw new NotPlain();
    return written;
  }

  /** What stands behind a key: in its line, or below it. */
  #valueOf(indent: number, depth: number): Tree {
    const behind = this.#at;
    if (this.#match(REST) === undefined) {
      this.#match(/ +/y);
      return this.#inLine(indent, depth);
    }
    this.#toContent(this.#at + 1);
    if (this.#indent > indent) return this.#block(depth);
    // A list may stand under its key without being indented.
    if (this.#indent === indent && this.#isDash()) return this.#list(indent, depth + 1);
    const ends = this.#text[behind] === "\n" || behind === this.#text.length;
    if (!ends) throw new NotPlain();
    return { kind: "scalar", value: null, text: "", place: this.#place(behind) };
  }

  #block(depth: number): Tree {
    return this.#isDash() ? this.#list(this.#indent, depth + 1) : this.#map(this.#indent, depth + 1);
  }

  #list(indent: number, depth: number): Tree {
    if (depth > DEPTH_MAX) throw new NotPlain();
    const place = this.#place(this.#at);
    const items: Tree[] = [];
    do {
      this.#at++;
      if (this.#text[this.#at] !== " ") throw new NotPlain();
      this.#match(/ +/y);
      if (this.#isDash()) throw new NotPlain();
      items.push(this.#startsMap() ? this.#map(this.#column(), depth + 1) : this.#inLine(indent, depth));
    } while (this.#indent === indent && this.#isDash());
    if (this.#indent > indent) throw new NotPlain();
    return { kind: "list", items, place };
  }

  #startsMap(): boolean {
    KEY.lastIndex = this.#at;
    return KEY.test(this.#text);
  }

  #column(): number {
    return this.#at - (this.#text.lastIndexOf("\n", this.#at - 1) + 1);
  }

  /** A value that ends in its line; what is indented further below would belong to it. */
  #inLine(indent: number, depth: number): Tree {
    const character = this.#text[this.#at];
    const flow = character === "[" || character === "{";
    const value = flow ? this.#flow(depth + 1) : this.#scalar(PLAIN);
    this.#endLine();
    if (this.#indent > indent) throw new NotPlain();
    return value;
  }

  #scalar(pattern: RegExp): Tree {
    const place = this.#place(this.#at);
    const quoted = this.#match(QUOTED);
    if (quoted !== undefined) {
      const text = quoted.slice(1, -1);
      return { kind: "scalar", value: text, text, place };
    }
    const text = this.#match(pattern);
    if (text === undefined) throw new NotPlain();
    return { kind: "scalar", value: resolvePlain(text), text, place };
  }

  #flow(depth: number): Tree {
    if (depth > DEPTH_MAX) throw new NotPlain();
    const character = this.#text[this.#at];
    if (character === "[") return this.#flowList(depth);
    return character === "{" ? this.#flowMap(depth) : this.#scalar(FLOW_PLAIN);
  }

  #flowList(depth: number): Tree {
    const place = this.#place(this.#at);
    const items: Tree[] = [];
    this.#open();
    while (this.#text[this.#at] !== "]") {
      items.push(this.#flow(depth + 1));
      this.#separate("]");
    }
    this.#at++;
    return { kind: "list", items, place };
  }

  #flowMap(depth: number): Tree {
    const place = this.#place(this.#at);
    const entries = new Map<string, Entry>();
    this.#open();
    while (this.#text[this.#at] !== "}") {
      const key = this.#place(this.#at);
      const name = this.#key(FLOW_KEY);
      if (entries.has(name)) throw new NotPlain();
      this.#at++;
      this.#match(/ +/y);
      entries.set(name, { key, value: this.#flow(depth + 1) });
      this.#separate("}");
    }
    this.#at++;
    return { kind: "map", entries, place };
  }

  #open(): void {
    this.#at++;
    this.#match(/ +/y);
  }

  /** Over a comma to the next item, or to what closes. */
  #separate(close: string): void {
    this.#match(/ +/y);
    if (this.#text[this.#at] === close) return;
    if (this.#text[this.#at] !== ",") throw new NotPlain();
    this.#open();
    if (this.#text[this.#at] === close) throw new NotPlain();
  }

  #place(offset: number): Entry["key"] {
    return { source: this.#source, offset };
  }
}
