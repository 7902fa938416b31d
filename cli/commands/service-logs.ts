import { SwarmError } from "../../common/base/error.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import { parseInteger } from "../../common/model/units.ts";
import type { Command, ControlClient, Invocation } from "../command.ts";
import { parseSinceMs } from "../flags/since.ts";
import { flagValue } from "../flags/values.ts";
import { LogPrinter, type TaskNames } from "../output/log-printer.ts";

export const command: Command = {
  usage: "service logs [OPTIONS] SERVICE|TASK",
  summary: "Fetch the logs of a service or task",
  flags: {
    details: { kind: "boolean", help: "Show extra details provided to logs" },
    follow: { kind: "boolean", short: "f", help: "Follow log output" },
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
      help: "Lines to show from the end of the logs",
      default: '"all"',
    },
    timestamps: { kind: "boolean", short: "t", help: "Show timestamps" },
  },
  words: { min: 1, max: 1 },
  run,
};

async function run({ flags, words, io, clock, signal, connect }: Invocation): Promise<number> {
  const [reference = ""] = words;
  const sinceMs = flagValue(flags, "since", (text) => parseSinceMs(text, clock.nowMs()));
  const tail = flagValue(flags, "tail", (text) =>
    text === "all" ? { ok: true, value: -1 } : parseInteger(text, { min: -1, max: Number.MAX_SAFE_INTEGER }),
  );
  const client = await connect();
  const { selector, names } = await select(client, reference);
  const printer = new LogPrinter({
    raw: flags.on("raw"),
    timestamps: flags.on("timestamps"),
    details: flags.on("details"),
    taskIds: !flags.on("no-task-ids"),
    fullIds: flags.on("no-trunc"),
    resolve: !flags.on("no-resolve"),
    colours: io.terminal && !io.environment.NO_COLOR,
    names,
  });
  const follow = flags.on("follow");
  const options = {
    follow,
    tail: BigInt(tail ?? -1),
    ...(sinceMs === undefined ? {} : { since: toTimestamp(sinceMs) }),
  };
  let code = 0;
  try {
    for await (const batch of client.serviceLogs({ selector, options }, { signal })) {
      if (batch.messages.some(({ taskId }) => !names.has(taskId))) await learn(client, selector, names);
      const { out, err } = printer.print(batch.messages);
      if (out !== "") io.out(out);
      if (err !== "") io.err(err);
      for (const node of batch.unreachable) {
        io.err(`swarmctl: incomplete logs: ${node}\n`);
        code = 1;
      }
    }
  } catch (reason) {
    if (signal.aborted) return follow ? 0 : 130;
    throw reason;
  }
  return code;
}

/** A service by that name, else a task. */
async function select(client: ControlClient, reference: string) {
  const names: TaskNames = new Map();
  try {
    const { services } = await client.listServices({ references: [reference], withoutSpecs: true });
    const selector = { serviceIds: services.map(({ service }) => service?.id ?? ""), taskIds: [] };
    await learn(client, selector, names);
    return { selector, names };
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
  }
  try {
    const { tasks } = await client.listTasks({ references: [reference] });
    const selector = { serviceIds: [], taskIds: tasks.map(({ task }) => task?.id ?? "") };
    await learn(client, selector, names);
    return { selector, names };
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
    throw new SwarmError("not_found", `no such service or task: ${reference}`);
  }
}

/** Fetches the names of the selected tasks: also of those that appeared while logs are followed. */
async function learn(
  client: ControlClient,
  { serviceIds, taskIds }: { readonly serviceIds: readonly string[]; readonly taskIds: readonly string[] },
  names: TaskNames,
): Promise<void> {
  const { tasks } = await client.listTasks({ serviceIds: [...serviceIds], references: [...taskIds] });
  for (const view of tasks) if (view.task) names.set(view.task.id, view);
}
