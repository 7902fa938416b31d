/** Rules for text that users write and other people read: no control characters, a stated length. */

/** C0, DEL and C1 controls, line and paragraph separators, and the marks that reorder text on a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
/** What is wrong with a one-line text, or undefined. `lengthMax` counts UTF-16 units. */
export function lineProblem(text: string, lengthMax: number): string | undefined {
  if (text.length > lengthMax) return `must be ${lengthMax} characters or fewer`;
  return text.search(CONTROLS) >= 0 ? "must not contain control characters" : undefined;
}

/** What is wrong with a value that only a program reads (an argument, a variable), or undefined: NUL ends C's strings. */
export function valueProblem(text: string, lengthMax: number): string | undefined {
  if (text.length > lengthMax) return `must be ${lengthMax} characters or fewer`;
  return text.includes("\0") ? "must not contain NUL" : undefined;
}

/** `text` with every control character written as \uXXXX, so that a hostile name cannot drive a terminal. */
export function escapeControls(text: string): string {
  return text.replace(CONTROLS, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
