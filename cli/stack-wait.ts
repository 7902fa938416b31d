/** Waits until a whole stack has converged: one stream, one table. Why it failed is told with the last lines of the tasks that did. */
import { withTimeout } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { slotName } from "../common/model/names.ts";
import { escapeControls } from "../common/model/text.ts";
import type { LogMessage, TaskView } from "../proto/gen/swarm/v1/control_pb.js";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient, Invocation } from "./command.ts";
import { durationFlagMs } from "./flags/values.ts";
import { type FollowEnd, type FollowedOutcome, follow } from "./follow.ts";
import type { WaitTarget } from "./followed.ts";
import { lineText } from "./output/log-printer.ts";
import { type StackRow, stackLines, stackNews } from "./output/stack-progress.ts";

/** Exit codes of a deploy: what CI tells apart. */
export const FAILED = 1;
export const TIMED_OUT = 3;
export const INTERRUPTED = 130;

/** Deploys wait so long unless `--timeout` says otherwise. */
const TIMEOUT_MS_DEFAULT = 10 * 60_000;
/** The last lines of a task that failed: its last words, not its life. */
const LOG_LINES = 10n;
/** Tasks whose lines are shown: more of them say the same again. */
const TASKS_SHOWN_MAX = 5;
/** Logs are a courtesy: a node that does not answer must not keep the exit code back. */
const LOGS_TIMEOUT_MS = 3_000;

/** What to wait for. */
export interface StackTarget {
  readonly stack: string;
  readonly targets: readonly WaitTarget[];
  /** Tasks that had ended before the change. */
  readonly before: ReadonlySet<string>;
}

/** Waits, shows, and answers the exit code: 0 converged, 1 failed, 3 timed out, 130 interrupted. */
export async function waitForStack(invocation: Invocation, target: StackTarget): Promise<number> {
  const { flags, io } = invocation;
  if (target.targets.length === 0) return 0;
  const shown = new Map<string, string>();
  let drawn = 0;
  const end = await follow(invocation, {
    targets: target.targets,
    before: target.before,
    timeoutMs: durationFlagMs(flags, "timeout") ?? TIMEOUT_MS_DEFAULT,
    draw: (outcomes) => {
      if (flags.on("quiet")) return;
      const rows = outcomes.map(rowOf);
      if (!io.terminal) {
        for (const line of stackNews(rows, shown)) io.out(`${line}\n`);
        return;
      }
      const lines = stackLines(rows, io.columns);
      const up = drawn > 0 ? `\u001b[${drawn}A\r` : "";
      io.out(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}\u001b[J`);
      drawn = lines.length;
    },
  });
  return await tell(invocation, target.stack, end);
}

async function tell(invocation: Invocation, stack: string, { kind, outcomes }: FollowEnd): Promise<number> {
  const { io, flags } = invocation;
  const say = (text: string) => io.err(`swarmctl: ${escapeControls(text)}\n`);
  switch (kind) {
    case "converged":
      return 0;
    case "failed":
      for (const { followed, outcome } of outcomes) {
        const { name } = followed.target;
        if (followed.removed) say(`service ${name}: was removed`);
        else if (outcome.kind === "failed") say(`service ${name}: ${outcome.reason}`);
      }
      await showLastLines(
        invocation,
        outcomes.filter(({ outcome }) => outcome.kind === "failed"),
      );
      return FAILED;
    case "timed out": {
      const open = outcomes.filter(({ outcome }) => outcome.kind !== "converged").map(rowOf);
      const why = open.map(({ name, done, desired, reason }) => {
        return `${name} (${done}/${desired}${reason === "" ? "" : `: ${reason}`})`;
      });
      const after = flags.text("timeout") ?? "10m";
      say(
        `stack ${stack}: not converged within ${after}; the change stays and goes on in the background: ${why.join(", ")}`,
      );
      return TIMED_OUT;
    }
    case "interrupted":
      say(`the change to stack ${stack} stays and goes on in the background. See 'swarmctl stack ps ${stack}'.`);
      return INTERRUPTED;
  }
}

function rowOf({ followed, outcome }: FollowedOutcome): StackRow {
  const { name } = followed.target;
  const { desired } = followed;
  if (outcome.kind === "unknown") return { name, state: "waiting", done: 0, desired, reason: "" };
  const { slots } = outcome.verdict;
  const done = slots.filter((slot) => slot.done).length;
  const stuck = slots.find(({ reason }) => reason !== "");
  const held = followed.service?.waitingFor ? `waiting for ${followed.service.waitingFor}` : "";
  const reason = outcome.kind === "failed" ? outcome.reason : held || (stuck?.reason ?? "");
  return { name, state: outcome.kind, done, desired, reason };
}

/** The last words of tasks that failed after they had begun to run. */
async function showLastLines(invocation: Invocation, failed: readonly FollowedOutcome[]): Promise<void> {
  const tasks = failed
    .flatMap(({ followed }) => followed.failedTasks().slice(-1))
    .filter(({ task }) => task?.status?.state === TaskState.FAILED)
    .slice(0, TASKS_SHOWN_MAX);
  if (tasks.length === 0) return;
  const { clock, signal, io } = invocation;
  const options = { clock, timeoutMs: LOGS_TIMEOUT_MS, operation: "read logs" };
  const client = await invocation.connect();
  for (const view of tasks) {
    const messages: LogMessage[] = [];
    try {
      await withTimeout(options, signal, (until) => readLines(client, view, messages, until));
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
    }
    const name = view.task ? slotName(view.serviceName, view.task) : view.serviceName;
    for (const { data } of messages) {
      io.err(`  ${escapeControls(name)} | ${escapeControls(lineText(data))}\n`);
    }
  }
}

async function readLines(
  client: ControlClient,
  { task }: TaskView,
  into: LogMessage[],
  signal: AbortSignal,
): Promise<void> {
  const request = { selector: { taskIds: [task?.id ?? ""] }, options: { tail: LOG_LINES } };
  for await (const { messages } of client.serviceLogs(request, { signal })) into.push(...messages);
}
