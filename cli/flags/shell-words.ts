/** Splits a command line into words as a shell would, without expanding anything (docker: google/shlex). Pure. */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";

/** Words of `text`: quotes group, a backslash takes the next character as it is, `#` begins a comment. */
export function parseShellWords(text: string): Parsed<readonly string[]> {
  const words: string[] = [];
  const pattern = /\s+|#[^\n]*|(?:[^\s"'\\]|"(?:[^"\\]|\\[\s\S])*"|'[^']*'|\\[\s\S])+/y;
  let position = 0;
  while (position < text.length) {
    pattern.lastIndex = position;
    const piece = pattern.exec(text)?.[0];
    if (piece === undefined) return bad(`unclosed quote in ${JSON.stringify(text)}`);
    position += piece.length;
    if (/^[\s#]/.test(piece)) continue;
    words.push(unquote(piece));
  }
  return good(words);
}

function unquote(piece: string): string {
  return piece.replace(/"((?:[^"\\]|\\[\s\S])*)"|'([^']*)'|\\([\s\S])/g, (_, double, single, escaped) => {
    if (double !== undefined) return String(double).replace(/\\(["\\$`])/g, "$1");
    return String(single ?? escaped);
  });
}
