/**
 * Everything that happens in a run, in order: its hash tells whether two runs were the same, its tail what led to a
 * failure.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";

/** Lines kept for a failure's report. */
const TAIL_LINES = 50;

export class EventLog {
  readonly #clock: Clock;
  readonly #print: ((line: string) => void) | undefined;
  readonly #hash = createHash("sha256");
  #tail: string[] = [];
  #count = 0;
  #digest: string | undefined;

  /** `print` gets each line as it comes: to watch one run. */
  constructor(clock: Clock, print?: (line: string) => void) {
    this.#clock = clock;
    this.#print = print;
  }

  /** Writes one line. */
  add(who: string, what: string): void {
    if (this.#digest !== undefined) return;
    const line = `${(this.#clock.monotonicMs() / 1000).toFixed(3).padStart(8)} ${who.padEnd(9)} ${what}`;
    this.#hash.update(line).update("\n");
    this.#count += 1;
    this.#tail.push(line);
    if (this.#tail.length >= 2 * TAIL_LINES) this.#tail = this.#tail.slice(-TAIL_LINES);
    this.#print?.(line);
  }

  /** How many lines there were. */
  get count(): number {
    return this.#count;
  }

  /** The last lines, oldest first. */
  get tail(): readonly string[] {
    return this.#tail.slice(-TAIL_LINES);
  }

  /** The hash of all lines; ends the log. */
  digest(): string {
    this.#digest ??= this.#hash.digest("hex");
    return this.#digest;
  }

  /** A logger whose lines (but for debug) become events of `who`. */
  logger(who: string): Logger {
    return openLogger(this, who);
  }
}

function openLogger(log: EventLog, who: string): Logger {
  const write = (fields: string | Readonly<Record<string, unknown>>, message?: string) => {
    if (typeof fields === "string") log.add(who, fields);
    else log.add(who, `${message ?? ""} ${shown(fields)}`);
  };
  const logger: Logger = { debug: () => {}, info: write, warn: write, error: write, child: () => logger };
  return logger;
}

function shown(fields: Readonly<Record<string, unknown>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${value instanceof Error ? SwarmError.from(value).message : String(value)}`)
    .join(" ");
}
