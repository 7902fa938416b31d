/** What the mains of both daemons share: options in, exit code out, and what happens to bugs. */
import { SwarmError } from "./error.ts";
import type { Logger } from "./logger.ts";
import { type OptionTable, type OptionValues, type ProgramDescription, parseOptions } from "./options.ts";

/** sysexits(3) EX_SOFTWARE: tells a bug from a refusal in a service manager's records. */
const EXIT_BUG = 70;

/**
 * Reads the process's options and runs the program by them. Resolves with the exit code: 0 done, 1 failed or refused, 2 bad
 * options; the reason is one line on stderr. Throws what is no SwarmError: a bug.
 */
export async function runProgram<T extends OptionTable>(
  program: ProgramDescription<T>,
  run: (values: OptionValues<T>) => Promise<void>,
): Promise<number> {
  const parsed = parseOptions(program, process.argv.slice(2), process.env);
  if (parsed.type !== "options") {
    const usage = parsed.type === "usage";
    (usage ? process.stderr : process.stdout).write(parsed.text);
    return usage ? 2 : 0;
  }
  try {
    await run(parsed.values);
    return 0;
  } catch (reason) {
    if (!(reason instanceof SwarmError)) throw reason;
    process.stderr.write(`${program.name}: ${reason.message}\n`);
    return reason.code === "invalid_argument" ? 2 : 1;
  }
}

/** A promise that nobody owns, or an error that nobody caught, is a bug: better a new process than a half-dead one. */
export function dieOfBugs(logger: Logger): void {
  for (const event of ["unhandledRejection", "uncaughtException"] as const) {
    process.on(event, (reason: unknown) => {
      logger.error({ err: reason, event }, "the program ends: a bug");
      process.exit(EXIT_BUG);
    });
  }
}
