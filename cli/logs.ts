/**
 * Logs of tasks for `service logs`, `task logs` and `stack logs`: one stream from a manager, printed as it comes; when the
 * manager goes, the next one carries on at the same line.
 *
 *     stream ──▶ LogPosition (what was seen) ──▶ grep ──▶ LogPrinter
 *       └─ broke ──▶ reconnect ──▶ stream from each task's last line on
 */
import type { SwarmError } from "../common/base/error.ts";
import { toTimestamp } from "../common/model/duration.ts";
import { escapeControls } from "../common/model/text.ts";
import { parseInteger } from "../common/model/units.ts";
import type { LogMessage, LogMessages } from "../proto/gen/swarm/v1/control_pb.js";
import type { ControlClient, Invocation } from "./command.ts";
import { anotherManager, isLostManager } from "./failover.ts";
import type { FlagTable } from "./flags/parse.ts";
import { parseSinceMs } from "./flags/since.ts";
import { flagValue } from "./flags/values.ts";
import { LogFilter } from "./log-filter.ts";
import { LogPosition, LogTail } from "./log-position.ts";
import { LogPrinter, type TaskNames } from "./output/log-printer.ts";
import { UsageError } from "./usage-error.ts";

export const LOG_FLAGS = {
  details: { kind: "boolean", help: "Show extra details provided to logs" },
  follow: { kind: "boolean", short: "f", help: "Follow log output; goes on with another manager when one fails" },
  grep: { kind: "text", value: "regexp", help: "Show only lines that match (JavaScript's syntax, case-sensitive)" },
  "no-resolve": { kind: "boolean", help: "Do not map IDs to Names in output" },
  "no-task-ids": { kind: "boolean", help: "Do not include task IDs in output" },
  "no-trunc": { kind: "boolean", help: "Do not truncate output" },
  raw: { kind: "boolean", help: "Do not neatly format logs" },
  since: {
    kind: "text",
    value: "string",
    help: "Show logs since timestamp (2013-01-02T13:23:37Z) or relative (42m for 42 minutes)",
  },
  tail: {
    kind: "text",
    short: "n",
    value: "string",
    help: "Lines of each task to show from the end",
    default: '"all"',
  },
  timestamps: { kind: "boolean", short: "t", help: "Show timestamps" },
  until: { kind: "text", value: "string", help: "Show logs before a timestamp or relative, as --since" },
} as const satisfies FlagTable;

/** Whose logs, by id. */
export interface LogSelection {
  readonly serviceIds: readonly string[];
  readonly taskIds: readonly string[];
}

/** With --until the last lines are found here, so they are all held. */
const TAIL_UNTIL_MAX = 10_000;

interface LogRequest {
  readonly follow: boolean;
  readonly sinceMs: number | undefined;
  readonly untilMs: number | undefined;
  /** -1: all. */
  readonly tail: number;
  readonly filter: LogFilter | undefined;
}

/** Shows the logs that `select` names; answers the exit code: 1 when a node could not answer. */
export async function showLogs(
  invocation: Invocation,
  select: (client: ControlClient) => Promise<LogSelection>,
): Promise<number> {
  const request = readFlags(invocation);
  const { signal } = invocation;
  try {
    const client = await invocation.connect();
    const selection = await select(client);
    return await new LogReader(invocation, request, selection).run(client);
  } catch (reason) {
    if (signal.aborted) return request.follow ? 0 : 130;
    throw reason;
  }
}

function readFlags({ flags, clock }: Invocation): LogRequest {
  const nowMs = clock.nowMs();
  const timeOf = (name: "since" | "until") => flagValue(flags, name, (text) => parseSinceMs(text, nowMs));
  const tail = flagValue(flags, "tail", (text) =>
    text === "all" ? { ok: true, value: -1 } : parseInteger(text, { min: -1, max: Number.MAX_SAFE_INTEGER }),
  );
  const [follow, sinceMs, untilMs] = [flags.on("follow"), timeOf("since"), timeOf("until")];
  if (untilMs !== undefined && follow) throw new UsageError("--until: lines to come are later; leave out --follow");
  if (untilMs !== undefined && sinceMs !== undefined && untilMs < sinceMs) {
    throw new UsageError("--until is before --since: no line can be");
  }
  if (untilMs !== undefined && (tail ?? -1) > TAIL_UNTIL_MAX) {
    throw new UsageError(`--tail: at most ${TAIL_UNTIL_MAX} together with --until`);
  }
  const pattern = flags.text("grep");
  return {
    follow,
    sinceMs,
    untilMs,
    tail: tail ?? -1,
    filter: pattern === undefined ? undefined : new LogFilter(pattern),
  };
}

class LogReader {
  readonly #invocation: Invocation;
  readonly #request: LogRequest;
  readonly #selection: LogSelection;
  readonly #names: TaskNames = new Map();
  readonly #position = new LogPosition();
  readonly #tail: LogTail | undefined;
  readonly #unreachable = new Set<string>();
  readonly #startMs: number;
  #printer: LogPrinter | undefined;

  constructor(invocation: Invocation, request: LogRequest, selection: LogSelection) {
    this.#invocation = invocation;
    this.#request = request;
    this.#selection = selection;
    this.#startMs = invocation.clock.nowMs();
    this.#tail = request.untilMs !== undefined && request.tail >= 0 ? new LogTail(request.tail) : undefined;
  }

  async run(first: ControlClient): Promise<number> {
    await this.#learn(first);
    let client = first;
    while (true) {
      const failure = await this.#read(client);
      if (failure === undefined) break;
      client = await anotherManager(this.#invocation, failure, this.#invocation.signal);
      this.#position.resume();
    }
    if (this.#tail) this.#print(this.#tail.take());
    return this.#unreachable.size > 0 ? 1 : 0;
  }

  /** Reads one stream to its end; answers why it broke, if another manager can carry on. */
  async #read(client: ControlClient): Promise<SwarmError | undefined> {
    const { signal } = this.#invocation;
    try {
      for await (const batch of client.serviceLogs(this.#subscription(), { signal })) await this.#take(client, batch);
      return undefined;
    } catch (reason) {
      if (signal.aborted || !this.#request.follow || !isLostManager(reason)) throw reason;
      return reason;
    }
  }

  #subscription() {
    const { follow, tail, sinceMs, untilMs } = this.#request;
    return {
      selector: { serviceIds: [...this.#selection.serviceIds], taskIds: [...this.#selection.taskIds] },
      options: {
        follow,
        tail: BigInt(this.#tail ? -1 : tail),
        ...(sinceMs === undefined ? {} : { since: toTimestamp(sinceMs) }),
        ...(untilMs === undefined ? {} : { until: toTimestamp(untilMs) }),
        taskSince: this.#position.resumeFrom(),
      },
    };
  }

  async #take(client: ControlClient, batch: LogMessages): Promise<void> {
    const fresh = batch.messages.filter((message) => this.#position.admits(message));
    if (fresh.some(({ taskId }) => !this.#names.has(taskId))) await this.#learn(client);
    if (this.#tail) this.#tail.add(fresh);
    else this.#print(fresh);
    for (const node of batch.unreachable) {
      if (this.#unreachable.has(node)) continue;
      this.#unreachable.add(node);
      this.#invocation.io.err(`swarmctl: incomplete logs: ${escapeControls(node)}\n`);
    }
  }

  #print(messages: readonly LogMessage[]): void {
    const { io } = this.#invocation;
    const { filter } = this.#request;
    this.#printer ??= this.#newPrinter();
    const { out, err } = this.#printer.print(filter ? filter.select(messages) : messages);
    if (out !== "") io.out(out);
    if (err !== "") io.err(err);
  }

  #newPrinter(): LogPrinter {
    const { flags, io } = this.#invocation;
    return new LogPrinter({
      raw: flags.on("raw"),
      timestamps: flags.on("timestamps"),
      details: flags.on("details"),
      taskIds: !flags.on("no-task-ids"),
      fullIds: flags.on("no-trunc"),
      resolve: !flags.on("no-resolve"),
      colours: io.terminal && !io.environment.NO_COLOR,
      names: this.#names,
    });
  }

  /** The names of the selected tasks: also of those that appeared while logs are followed. */
  async #learn(client: ControlClient): Promise<void> {
    const { serviceIds, taskIds } = this.#selection;
    const { tasks } = await client.listTasks({ serviceIds: [...serviceIds], references: [...taskIds] });
    for (const view of tasks) {
      if (!view.task) continue;
      // With --tail 0 a task may have said nothing so far: after a failover its lines count from our beginning on.
      if (this.#request.tail === 0 && this.#printer === undefined) this.#position.begin(view.task.id, this.#startMs);
      this.#names.set(view.task.id, view);
    }
  }
}
