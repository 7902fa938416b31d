/** A question before something that cannot be undone. */
import { createInterface } from "node:readline/promises";
import type { Io } from "./io.ts";
import { UsageError } from "./usage-error.ts";

/**
 * Whether the user says y. Without a terminal nobody can: a script that forgot `--force` is told so, and not taken for a no.
 */
export async function confirm(io: Pick<Io, "stdin" | "err">, warning: string): Promise<boolean> {
  if (io.stdin.isTTY !== true) throw new UsageError(`${warning} Give --force where nobody can be asked`);
  io.err(`${warning}\nAre you sure you want to continue? [y/N] `);
  const lines = createInterface({ input: io.stdin });
  try {
    for await (const line of lines) return /^y(es)?$/i.test(line.trim());
    return false;
  } finally {
    lines.close();
  }
}
