/** Reads a template's text into nodes. Throws `templateFailure` on what it does not understand. */
import type { Operand, Pipe, TemplateNode } from "./go-template.ts";
import { templateFailure } from "./go-template-values.ts";

/** `{{range}}` in `{{range}}` …: deeper templates are mistakes or attacks on the stack. */
const DEPTH_MAX = 50;

type Token =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly words: readonly string[] };

/** Nodes of a whole template; `isFunction` tells known functions from typing errors. */
export function parseNodes(text: string, isFunction: (name: string) => boolean): readonly TemplateNode[] {
  const reader = new NodeReader(tokensOf(text), isFunction);
  const { nodes, end } = reader.nodes(0);
  if (end !== undefined) throw templateFailure(`unexpected {{${end}}}`);
  return nodes;
}

function tokensOf(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let position = 0;
  let trimNext = false;
  while (position < text.length) {
    const open = text.indexOf("{{", position);
    const before = text.slice(position, open < 0 ? undefined : open);
    const trimmed = trimNext ? before.trimStart() : before;
    const trimsLeft = open >= 0 && /^-\s/.test(text.slice(open + 2, open + 4));
    if (trimmed !== "") tokens.push({ kind: "text", text: trimsLeft ? trimmed.trimEnd() : trimmed });
    if (open < 0) break;
    const close = closingOf(text, open + 2);
    const inner = text.slice(open + 2 + (trimsLeft ? 1 : 0), close);
    trimNext = /\s-$/.test(inner);
    const body = (trimNext ? inner.slice(0, -1) : inner).trim();
    if (!/^\/\*[\s\S]*\*\/$/.test(body)) tokens.push({ kind: "action", words: wordsOf(body) });
    position = close + 2;
  }
  return tokens;
}

/** Where the action that starts at `from` ends; braces in strings do not count. */
function closingOf(text: string, from: number): number {
  const pattern = /"(?:[^"\\\n]|\\.)*"|`[^`]*`|\}\}/g;
  pattern.lastIndex = from;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    if (match[0] === "}}") return match.index;
  }
  throw templateFailure("unclosed action");
}

const WORD =
  /\s*("(?:[^"\\\n]|\\.)*"|`[^`]*`|\$\w*(?:\.\w+)*|\)(?:\.\w+)+|[()|,]|:=|=|(?:\.[A-Za-z_]\w*)+|\.(?![\w.])|-?\d+(?:\.\d+)?|[A-Za-z_]\w*(?:\.\w+)*)\s*/y;

function wordsOf(body: string): readonly string[] {
  const words: string[] = [];
  WORD.lastIndex = 0;
  while (WORD.lastIndex < body.length) {
    const at = WORD.lastIndex;
    const word = WORD.exec(body)?.[1];
    if (word === undefined)
      throw templateFailure(`unexpected ${JSON.stringify(body.slice(at, at + 20))} in {{${body}}}`);
    words.push(word);
  }
  return words;
}

class NodeReader {
  readonly #tokens: readonly Token[];
  readonly #isFunction: (name: string) => boolean;
  #position = 0;

  constructor(tokens: readonly Token[], isFunction: (name: string) => boolean) {
    this.#tokens = tokens;
    this.#isFunction = isFunction;
  }

  /** Reads until `{{end}}` or `{{else …}}`, which it hands back, or the end of the text. */
  nodes(depth: number): { nodes: readonly TemplateNode[]; end?: "end" | "else"; elseWords?: readonly string[] } {
    if (depth > DEPTH_MAX) throw templateFailure(`nested deeper than ${DEPTH_MAX}`);
    const nodes: TemplateNode[] = [];
    while (this.#position < this.#tokens.length) {
      const token = this.#tokens[this.#position++];
      if (token === undefined) break;
      if (token.kind === "text") {
        nodes.push(token);
        continue;
      }
      const [head, ...rest] = token.words;
      if (head === "end" && rest.length === 0) return { nodes, end: "end" };
      if (head === "else") return { nodes, end: "else", elseWords: rest };
      if (head === "if" || head === "range" || head === "with") nodes.push(this.#block(head, rest, depth + 1));
      else nodes.push({ kind: "action", pipe: this.#pipe(token.words) });
    }
    return { nodes };
  }

  #block(kind: "if" | "range" | "with", words: readonly string[], depth: number): TemplateNode {
    const pipe = this.#pipe(words);
    const body = this.nodes(depth);
    if (body.end === undefined) throw templateFailure(`{{${kind}}} without {{end}}`);
    if (body.end === "end") return { kind, pipe, body: body.nodes, otherwise: [] };
    const [next, ...rest] = body.elseWords ?? [];
    if (next === "if" || next === "with") {
      return { kind, pipe, body: body.nodes, otherwise: [this.#block(next, rest, depth + 1)] };
    }
    const otherwise = this.nodes(depth);
    if (otherwise.end !== "end") throw templateFailure(`{{else}} without {{end}}`);
    return { kind, pipe, body: body.nodes, otherwise: otherwise.nodes };
  }

  #pipe(words: readonly string[]): Pipe {
    const assignment = words.findIndex((word) => word === ":=" || word === "=");
    const variables = assignment < 0 ? [] : words.slice(0, assignment).filter((word) => word !== ",");
    if (variables.some((name) => !/^\$\w+$/.test(name))) throw templateFailure("only variables can be assigned");
    const reader = new PipeReader(words.slice(assignment + 1), this.#isFunction);
    return { variables, declares: words[assignment] === ":=", commands: reader.commands() };
  }
}

class PipeReader {
  readonly #words: readonly string[];
  readonly #isFunction: (name: string) => boolean;
  #position = 0;

  constructor(words: readonly string[], isFunction: (name: string) => boolean) {
    this.#words = words;
    this.#isFunction = isFunction;
  }

  /** Reads all words. */
  commands(): readonly (readonly Operand[])[] {
    const { commands, closed } = this.#commands(0);
    if (closed !== undefined) throw templateFailure("unexpected right paren");
    return commands;
  }

  #commands(depth: number): { commands: readonly (readonly Operand[])[]; closed?: string } {
    if (depth > DEPTH_MAX) throw templateFailure(`nested deeper than ${DEPTH_MAX}`);
    const commands: Operand[][] = [[]];
    while (this.#position < this.#words.length) {
      const word = this.#words[this.#position++] ?? "";
      if (word === "|") commands.push([]);
      else if (word.startsWith(")")) return { commands: filled(commands), closed: word };
      else commands.at(-1)?.push(this.#operand(word, depth));
    }
    return { commands: filled(commands) };
  }

  #operand(word: string, depth: number): Operand {
    if (word === "(") {
      const { commands, closed } = this.#commands(depth + 1);
      if (closed === undefined) throw templateFailure("unclosed left paren");
      return { kind: "pipe", pipe: { variables: [], declares: false, commands }, fields: closed.split(".").slice(1) };
    }
    if (word === ".") return { kind: "dot", fields: [] };
    if (word.startsWith(".")) return { kind: "dot", fields: word.split(".").slice(1) };
    if (word.startsWith("$")) {
      const [name = "$", ...fields] = word.split(".");
      return { kind: "variable", name, fields };
    }
    if (word.startsWith("`")) return { kind: "literal", value: word.slice(1, -1), fields: [] };
    if (word.startsWith('"')) return { kind: "literal", value: unquoted(word), fields: [] };
    if (/^-?\d/.test(word)) return { kind: "literal", value: Number(word), fields: [] };
    if (word === "true" || word === "false") return { kind: "literal", value: word === "true", fields: [] };
    if (word === "nil") return { kind: "literal", value: null, fields: [] };
    const [name = "", ...fields] = word.split(".");
    if (!this.#isFunction(name)) throw templateFailure(`function ${JSON.stringify(name)} not defined`);
    return { kind: "call", name, fields };
  }
}

function filled(commands: readonly (readonly Operand[])[]): readonly (readonly Operand[])[] {
  if (commands.some((command) => command.length === 0)) throw templateFailure("missing value for command");
  return commands;
}

function unquoted(word: string): string {
  try {
    return String(JSON.parse(word));
  } catch {
    throw templateFailure(`bad string ${word}`);
  }
}
