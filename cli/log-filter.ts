/** `--grep`: lines that match a regular expression. A pattern that backtracks for ever is stopped, and named. */
import { createContext, Script } from "node:vm";
import { SwarmError } from "../common/base/error.ts";
import type { LogMessage } from "../proto/gen/swarm/v1/control_pb.js";
import { lineText } from "./output/log-printer.ts";
import { UsageError } from "./usage-error.ts";

/** For one batch of at most a few thousand lines, which takes a sane pattern a few milliseconds. */
const MATCH_MS_MAX = 1_000;

/** JavaScript's engine backtracks, so it runs where V8 interrupts it when its time is over. */
const MATCH = new Script("lines.map((line) => pattern.test(line))");

export class LogFilter {
  readonly #text: string;
  readonly #context: { pattern: RegExp; lines: readonly string[] };
  /** Tasks and streams in the middle of a line that came in parts: its first part has decided. */
  readonly #open = new Map<string, boolean>();

  /** Throws UsageError for what is no pattern. */
  constructor(text: string) {
    this.#text = text;
    try {
      this.#context = { pattern: new RegExp(text, "u"), lines: [] };
    } catch (reason) {
      const why = reason instanceof Error ? reason.message.replace(/^.*: /, "") : String(reason);
      throw new UsageError(`invalid argument ${JSON.stringify(text.slice(0, 128))} for --grep: ${why}`);
    }
    createContext(this.#context);
  }

  /** The messages whose line matches. */
  select(messages: readonly LogMessage[]): readonly LogMessage[] {
    if (messages.length === 0) return messages;
    const matches = this.#match(messages.map(({ data }) => lineText(data)));
    return messages.filter(({ taskId, stream, partial }, index) => {
      const key = `${taskId}/${stream}`;
      const shown = this.#open.get(key) ?? matches[index] === true;
      if (partial) this.#open.set(key, shown);
      else this.#open.delete(key);
      return shown;
    });
  }

  #match(lines: readonly string[]): readonly boolean[] {
    this.#context.lines = lines;
    try {
      return MATCH.runInContext(this.#context as object, { timeout: MATCH_MS_MAX });
    } catch (reason) {
      // It is an Error of the other context, so `instanceof` says nothing.
      if (!String(reason).includes("Script execution timed out")) throw reason;
      throw new SwarmError(
        "resource_exhausted",
        `--grep ${JSON.stringify(this.#text.slice(0, 128))}: takes more than ${MATCH_MS_MAX} ms for ${lines.length} lines; simplify it (nested repetition?)`,
      );
    }
  }
}
