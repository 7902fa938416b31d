/** Signals, closed pipes and exit codes: what belongs to the process and to no command. */
import { systemClock } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { processIo } from "./io.ts";
import { run } from "./run.ts";

/** How long the last lines may take to leave after an interruption. */
const LAST_WORDS_MS_MAX = 500;

/** Runs the process's own command line and sets its exit code. */
export async function main(): Promise<void> {
  const stop = new AbortController();
  const interrupted = () => stop.abort(new SwarmError("canceled", "interrupted"));
  process.on("SIGINT", interrupted);
  process.on("SIGTERM", interrupted);
  // `swarmctl service ls | head -1`: whoever stops reading has seen enough.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error) => {
      if (errnoOf(error) === "EPIPE") process.exit(0);
      throw error;
    });
  }
  const code = await run(process.argv.slice(2), {
    io: processIo(),
    clock: systemClock,
    signal: stop.signal,
    connect: async (hosts, signal, options) =>
      (await import("./connect.ts")).connect(hosts, { clock: systemClock, signal, ...options }),
  });
  process.exitCode = code;
  // Whoever interrupts us does not wait for a reader who has stopped.
  await (stop.signal.aborted ? Promise.race([flushed(), systemClock.sleep(LAST_WORDS_MS_MAX)]) : flushed());
  // Open connections must not hold the process back.
  process.exit(code);
}

/** Waits until what was written has left the process. */
async function flushed(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0) await new Promise<void>((resolve) => stream.write("", () => resolve()));
  }
}
