/** Words that each name an object, as docker's inspect and ps take them: one that names none costs none of the others. */
import { SwarmError } from "../common/base/error.ts";
import type { Io } from "./io.ts";

/** What the words name, in their order, and why the others name nothing. */
export interface Found<T> {
  readonly found: readonly T[];
  readonly missing: readonly string[];
}

/** Finds each word's objects. Throws what `find` throws, but for `not_found`. */
export async function findEach<T>(
  words: readonly string[],
  find: (word: string) => Promise<readonly T[]>,
): Promise<Found<T>> {
  const found: T[] = [];
  const missing: string[] = [];
  for (const word of words) {
    try {
      found.push(...(await find(word)));
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
      missing.push(reason.message);
    }
  }
  return { found, missing };
}

/** A line for each word that named nothing. Answers the exit code: 1 when there is one. */
export function sayMissing(io: Pick<Io, "err">, missing: readonly string[]): number {
  for (const message of missing) io.err(`swarmctl: ${message}\n`);
  return missing.length === 0 ? 0 : 1;
}

/** The `inspect` commands: shows what is there, then says what is not. Answers the exit code. */
export async function inspectEach<T>(
  words: readonly string[],
  io: Pick<Io, "out" | "err">,
  steps: { readonly find: (word: string) => Promise<readonly T[]>; readonly show: (found: readonly T[]) => string },
): Promise<number> {
  const { found, missing } = await findEach(words, steps.find);
  io.out(steps.show(found));
  return sayMissing(io, missing);
}
