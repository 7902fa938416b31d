/**
 * What tasks use, for `service stats`, `task stats` and `node stats`: a table a period, drawn in place on a terminal; with
 * --no-stream one, after the two looks that a processor's share takes.
 *
 *     manager ──▶ rounds ──▶ rows (output/stats-rows.ts) ──▶ screen, or table after table
 */
import { toDuration } from "../common/model/duration.ts";
import { escapeControls } from "../common/model/text.ts";
import type { TaskUsage, WatchTaskStatsResponse } from "../proto/gen/swarm/v1/control_pb.js";
import type { Command, ControlClient, Invocation } from "./command.ts";
import { anotherManager, isLostManager } from "./failover.ts";
import type { FlagTable } from "./flags/parse.ts";
import { durationFlagMs } from "./flags/values.ts";
import { renderList } from "./output/format.ts";
import { STATS_LISTING, statsRows, statsScreen, unreachableText } from "./output/stats-rows.ts";

const STATS_FLAGS = {
  format: {
    kind: "text",
    value: "string",
    help: "Format output: 'table', 'table TEMPLATE', 'json', or a Go template",
  },
  "no-stream": { kind: "boolean", help: "Disable streaming stats and only pull the first result" },
  "no-trunc": { kind: "boolean", help: "Do not truncate output" },
  period: { kind: "text", value: "duration", help: "Time between two looks", default: "1s" },
} as const satisfies FlagTable;

/** Whose stats, by id or by any name; nothing at all: everybody's. */
export interface StatsSelection {
  readonly services?: readonly string[];
  readonly tasks?: readonly string[];
  readonly nodes?: readonly string[];
}

/** A command that shows stats of what its words `select`. */
export function statsCommand(
  { usage, summary, wordsMin }: { readonly usage: string; readonly summary: string; readonly wordsMin: number },
  select: (words: readonly string[], client: ControlClient) => StatsSelection | Promise<StatsSelection>,
): Command {
  return {
    usage,
    summary,
    flags: STATS_FLAGS,
    words: { min: wordsMin, max: Number.POSITIVE_INFINITY },
    async run(invocation) {
      const { signal, flags, words, connect } = invocation;
      const reader = new StatsReader(invocation);
      try {
        const client = await connect();
        return await reader.run(client, await select(words, client));
      } catch (reason) {
        if (signal.aborted) return flags.on("no-stream") ? 130 : 0;
        throw reason;
      }
    },
  };
}

class StatsReader {
  readonly #invocation: Invocation;
  readonly #once: boolean;
  /** Drawn in place; what a program reads never is. */
  readonly #drawn: boolean;
  readonly #periodMs: number | undefined;
  readonly #told = new Set<string>();
  #before: ReadonlyMap<string, TaskUsage> = new Map();
  #rounds = 0;

  constructor(invocation: Invocation) {
    const { flags, io } = invocation;
    this.#invocation = invocation;
    this.#once = flags.on("no-stream");
    this.#drawn = io.terminal && !this.#once && flags.text("format") !== "json";
    this.#periodMs = durationFlagMs(flags, "period");
    // A template that cannot be read is told before anybody is asked.
    renderList(STATS_LISTING, [], { format: flags.text("format") });
  }

  /** Ends with --no-stream only: 1 when a node could not be asked. */
  async run(first: ControlClient, selection: StatsSelection): Promise<number> {
    const { signal } = this.#invocation;
    const { services = [], tasks = [], nodes = [] } = selection;
    const request = {
      ...{ services: [...services], tasks: [...tasks], nodes: [...nodes] },
      ...(this.#periodMs !== undefined && { period: toDuration(this.#periodMs) }),
    };
    if (this.#drawn) this.#invocation.io.out("\u001b[2J");
    let client = first;
    while (true) {
      try {
        for await (const round of client.watchTaskStats(request, { signal })) {
          const code = this.#take(round);
          if (code !== undefined) return code;
        }
        return 0;
      } catch (reason) {
        if (signal.aborted || this.#once || this.#rounds === 0 || !isLostManager(reason)) throw reason;
        client = await anotherManager(this.#invocation, reason, signal);
      }
    }
  }

  /** The exit code once all is shown that was asked for. */
  #take(round: WatchTaskStatsResponse): number | undefined {
    const { flags, io } = this.#invocation;
    this.#rounds += 1;
    const used = new Map(round.tasks.flatMap(({ taskId, usage }) => (usage ? [[taskId, usage] as const] : [])));
    const rows = statsRows(round.tasks, this.#before, { fullIds: flags.on("no-trunc") });
    this.#before = used;
    // One look says nothing of the processors, unless there is nobody to look at.
    if (this.#once && this.#rounds === 1 && round.tasks.length > 0) return undefined;
    const text = renderList(STATS_LISTING, rows, { format: flags.text("format") });
    const notes = round.unreachable.map((node) => `swarmctl: ${escapeControls(unreachableText(node))}`);
    if (this.#drawn) {
      io.out(statsScreen(text.split("\n").slice(0, -1), notes, io.console.size()));
      return undefined;
    }
    io.out(text);
    for (const note of notes) if (!this.#told.has(note)) io.err(`${note}\n`);
    for (const note of notes) this.#told.add(note);
    if (!this.#once) return undefined;
    return round.unreachable.length > 0 ? 1 : 0;
  }
}
