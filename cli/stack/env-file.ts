/**
 * Files of variables: `.env` and what `include` and `env_file: [{path: …}]` name, in compose's dotenv format
 * (compose-spec, 05-services.md, env_file): comments, `export`, quotes, variables in values. Pure.
 */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { type Lookup, substitute } from "./substitute.ts";

const NAME = /^(?:export\s+)?([A-Za-z_][\w.-]*)\s*(?:=|:\s)\s*/;
const BARE = /^(?:export\s+)?([A-Za-z_][\w.-]*)\s*$/;
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", "\\": "\\", '"': '"', $: "$$" };

/** The variables of a file, in its order; a bare name takes the caller's value and is left out where there is none. */
export function parseDotenv(content: string, lookup: Lookup): Parsed<ReadonlyMap<string, string>> {
  const values = new Map<string, string>();
  const known: Lookup = (name) => lookup(name) ?? values.get(name);
  const text = content.replace(/^\uFEFF/, "").replaceAll("\r\n", "\n");
  let position = 0;
  let line = 1;
  while (position < text.length) {
    const end = text.indexOf("\n", position);
    const row = text.slice(position, end < 0 ? undefined : end);
    const at = position + (row.length - row.trimStart().length);
    const read = readLine(text, at, row.trimStart(), known);
    if (!read.ok) return bad(`line ${line}: ${read.problem}`);
    const { name, value, next } = read.value;
    if (name !== undefined && value !== undefined) values.set(name, value);
    line += text.slice(position, next).split("\n").length;
    position = next + 1;
  }
  return good(values);
}

interface Line {
  readonly name?: string;
  readonly value?: string | undefined;
  /** Where the line ends: quoted values may hold line breaks. */
  readonly next: number;
}

function readLine(text: string, at: number, row: string, lookup: Lookup): Parsed<Line> {
  const end = at + row.length;
  if (row === "" || row.startsWith("#")) return good({ next: end });
  const bare = BARE.exec(row);
  if (bare?.[1] !== undefined) return good({ name: bare[1], value: lookup(bare[1]), next: end });
  const head = NAME.exec(row);
  const name = head?.[1];
  if (head === null || name === undefined) return bad(`no variable name in ${JSON.stringify(row.slice(0, 80))}`);
  const start = at + head[0].length;
  const quote = text[start];
  if (quote === "'" || quote === '"') return quoted(text, start, name, lookup);
  const raw = text
    .slice(start, end)
    .replace(/(?:^|\s+)#.*$/, "")
    .trimEnd();
  return valued(name, raw, end, lookup);
}

function quoted(text: string, start: number, name: string, lookup: Lookup): Parsed<Line> {
  const quote = text[start];
  const pattern = quote === "'" ? /'([^']*)'/y : /"((?:[^"\\]|\\[\s\S])*)"/y;
  pattern.lastIndex = start;
  const match = pattern.exec(text);
  if (match === null) return bad(`${name}: unclosed quote`);
  const after = text.indexOf("\n", pattern.lastIndex);
  const next = after < 0 ? text.length : after;
  const rest = text.slice(pattern.lastIndex, next).trim();
  if (rest !== "" && !rest.startsWith("#"))
    return bad(`${name}: unexpected ${JSON.stringify(rest.slice(0, 80))} after the quote`);
  const inner = match[1] ?? "";
  if (quote === "'") return good({ name, value: inner, next });
  return valued(
    name,
    inner.replace(/\\([nrt\\"$])/g, (_, letter: string) => ESCAPES[letter] ?? letter),
    next,
    lookup,
  );
}

function valued(name: string, raw: string, next: number, lookup: Lookup): Parsed<Line> {
  const value = substitute(raw, lookup, () => undefined);
  return value.ok ? good({ name, value: value.value, next }) : bad(`${name}: ${value.problem}`);
}
