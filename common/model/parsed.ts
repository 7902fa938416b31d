/** What a parser of user input answers: the value, or what is wrong in words that stand after the field's name. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string };

/** A value that was read. */
export function good<T>(value: T): Parsed<T> {
  return { ok: true, value };
}

/** Input that is refused. */
export function bad(problem: string): { readonly ok: false; readonly problem: string } {
  return { ok: false, problem };
}
