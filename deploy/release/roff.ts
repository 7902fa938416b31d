/** Words and paragraphs of manual pages in the man(7) macros, which both groff and mandoc read. Pure. */

/** A manual page. */
export interface ManPage {
  readonly name: string;
  readonly section: 1 | 8;
  readonly source: string;
}

/** What stands in the head and foot of each page. */
export interface ManHead {
  /** "swarm 0.1.0" */
  readonly product: string;
  /** "2026-01-31" */
  readonly date: string;
}

/** A paragraph or a part of the page, as lines of roff. */
export type Block = readonly string[];

/** Text that is to be read as it is: no macro, no escape, hyphens that can be copied. */
export function text(words: string): string {
  return words
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^[.']/gm, "\\&$&")
    .replace(/[^\t\n\u0020-\u007e]/gu, (character) => {
      const code = character.codePointAt(0) ?? 0;
      return `\\[u${code.toString(16).toUpperCase().padStart(4, "0")}]`;
    });
}

export function bold(words: string): string {
  return `\\fB${text(words)}\\fR`;
}

export function italic(words: string): string {
  return `\\fI${text(words)}\\fR`;
}

/** A part of the page with its heading, which begins a paragraph by itself. */
export function section(heading: string, ...blocks: readonly Block[]): Block {
  const lines = blocks.flat();
  return [`.SH ${heading}`, ...(lines[0] === ".PP" ? lines.slice(1) : lines)];
}

/** Running text; newlines end lines of the source only. */
export function paragraph(...words: readonly string[]): Block {
  return [".PP", ...words];
}

/** A term, and below it, set in, what it means. */
export function item(term: string, meaning: string): Block {
  return [".TP", term, text(meaning)];
}

/** Lines as they are. */
export function verbatim(lines: string): Block {
  return [".PP", ".in +4n", ".EX", ...text(lines).split("\n"), ".EE", ".in"];
}

/** The whole page. `summary` follows the name, as whatis(1) shows it. */
export function manPage(
  page: { readonly name: string; readonly section: 1 | 8; readonly summary: string; readonly head: ManHead },
  ...blocks: readonly Block[]
): ManPage {
  const { name, section: number, summary, head } = page;
  const title = [name.toUpperCase(), String(number), head.date, head.product, "Swarm Manual"];
  const lines = [
    `.TH ${title.map((word) => `"${word}"`).join(" ")}`,
    // Long words are commands and paths: not to be cut, nor spread over the line.
    ".nh",
    ".ad l",
    ...section("NAME", [`${text(name)} \\- ${text(summary)}`]),
    ...blocks.flat(),
  ];
  return { name, section: number, source: `${lines.join("\n")}\n` };
}
