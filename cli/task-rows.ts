/** Tasks as `service ps` and `node ps` list them: newest first within a slot, its history below it. Pure. */
import { timestampMs } from "../common/model/duration.ts";
import { slotName } from "../common/model/names.ts";
import { formatTaskPorts } from "../common/model/ports.ts";
import { taskStateName } from "../common/model/task-state.ts";
import type { ListTasksRequest, TaskView } from "../proto/gen/swarm/v1/control_pb.js";
import type { Task } from "../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { Command, ControlClient, Invocation } from "./command.ts";
import { type Filters, filterFlag, parseFilters, passes } from "./filters.ts";
import { LIST_FLAGS } from "./flags/list-flags.ts";
import type { Flags, FlagTable } from "./flags/parse.ts";
import { findEach, sayMissing } from "./inspect.ts";
import { type Listing, type Row, renderList } from "./output/format.ts";
import { ellipsis } from "./output/table.ts";
import { capitalized, currentState, shortId, shortImage } from "./output/words.ts";

const TASK_FILTERS = ["id", "name", "node", "desired-state", "service"];
/** The states that a task may be wanted in. */
const FILTER_WORDS = {
  "desired-state": Object.values(TaskState).flatMap((state) =>
    typeof state === "number" ? [taskStateName(state)] : [],
  ),
};
const TASK_FLAGS: FlagTable = {
  ...LIST_FLAGS,
  filter: filterFlag(TASK_FILTERS),
  "no-resolve": { kind: "boolean", help: "Do not map IDs to Names" },
  "no-trunc": { kind: "boolean", help: "Do not truncate output" },
};

const LISTING: Listing = {
  columns: {
    ID: "ID",
    Name: "NAME",
    Image: "IMAGE",
    Node: "NODE",
    DesiredState: "DESIRED STATE",
    CurrentState: "CURRENT STATE",
    Error: "ERROR",
    Ports: "PORTS",
  },
  key: "ID",
};
const ERROR_LENGTH_MAX = 30;

type TaskSelection = Partial<Pick<ListTasksRequest, "nodeIds" | "serviceIds">>;

/** A command that lists the tasks of what its words name, and says which name nothing. */
export function taskCommand(options: {
  readonly usage: string;
  readonly summary: string;
  /** How many words it takes. Default one or more. */
  readonly words?: number;
  readonly select: (word: string, client: ControlClient) => TaskSelection | Promise<TaskSelection>;
}): Command {
  const { usage, summary, select, words: count } = options;
  const run = async ({ flags, words, io, clock, connect }: Invocation) => {
    const filters = parseFilters(flags.list("filter"), TASK_FILTERS, FILTER_WORDS);
    const client = await connect();
    const { found, missing } = await findEach([...new Set(words)], async (word) => {
      return (await client.listTasks(await select(word, client))).tasks;
    });
    if (found.length > 0 || missing.length < words.length) {
      const wanted = found.filter((task) => isWantedTask(task, filters));
      io.out(renderTasks(wanted, flags, clock.nowMs()));
    }
    return sayMissing(io, missing);
  };
  return { usage, summary, flags: TASK_FLAGS, words: { min: 1, max: count ?? Number.POSITIVE_INFINITY }, run };
}

/** The list of tasks as the flags want it. */
export function renderTasks(tasks: readonly TaskView[], flags: Flags, nowMs: number): string {
  const sorted = tasks.toSorted(compareTasks);
  let slot = "";
  const rows = sorted.flatMap((view) => {
    if (view.task === undefined) return [];
    const key = `${view.task.serviceId} ${slotName(view.task.serviceId, view.task)}`;
    const row = rowOf(view, view.task, { flags, nowMs, older: key === slot });
    slot = key;
    return [row];
  });
  return renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") });
}

/** Whether a task passes the filters. */
export function isWantedTask(view: TaskView, filters: Filters): boolean {
  const { task } = view;
  if (task === undefined) return false;
  const name = slotName(view.serviceName, task);
  return (
    passes(filters, "id", (value) => task.id.startsWith(value)) &&
    passes(filters, "name", (value) => name === value || name.startsWith(`${value}.`) || view.serviceName === value) &&
    passes(filters, "node", (value) => task.nodeId.startsWith(value) || view.nodeHostname === value) &&
    passes(filters, "service", (value) => task.serviceId.startsWith(value) || view.serviceName === value) &&
    passes(filters, "desired-state", (value) => desiredName(task) === value.toLowerCase())
  );
}

/** A job's task that has completed is wanted so: it is never told to stop. */
function desiredName({ desiredState, status }: Task): string {
  const completed = status?.state === TaskState.COMPLETE && desiredState === TaskState.RUNNING;
  return taskStateName(completed ? TaskState.COMPLETE : desiredState);
}

function rowOf(
  view: TaskView,
  task: Task,
  { flags, nowMs, older }: { readonly flags: Flags; readonly nowMs: number; readonly older: boolean },
): Row {
  const full = flags.on("no-trunc");
  const resolve = !flags.on("no-resolve");
  const error = task.status?.error ?? "";
  const image = view.spec?.container?.image ?? "";
  const shown = error === "" ? "" : JSON.stringify(full ? error : ellipsis(error, ERROR_LENGTH_MAX));
  return {
    ID: full ? task.id : shortId(task.id),
    Name: `${older ? " \\_ " : ""}${slotName(resolve && view.serviceName !== "" ? view.serviceName : task.serviceId, task)}`,
    Image: full ? image : shortImage(image),
    Node: resolve && view.nodeHostname !== "" ? view.nodeHostname : task.nodeId,
    DesiredState: capitalized(desiredName(task)),
    CurrentState: currentState(task.status, nowMs),
    Error: shown,
    Ports: formatTaskPorts(view.ports),
  };
}

/** By service, slot, then newest first; a task that should run stands above those that should not. */
function compareTasks(left: TaskView, right: TaskView): number {
  const [a, b] = [left.task, right.task];
  if (a === undefined || b === undefined) return 0;
  return (
    compareText(left.serviceName, right.serviceName) ||
    a.slot - b.slot ||
    (a.slot === 0 ? compareText(a.nodeId, b.nodeId) : 0) ||
    Number(isOld(a)) - Number(isOld(b)) ||
    Number(b.attempt - a.attempt) ||
    (timestampMs(b.meta?.createdAt) ?? 0) - (timestampMs(a.meta?.createdAt) ?? 0)
  );
}

function isOld(task: Task): boolean {
  return task.desiredState > TaskState.RUNNING;
}

function compareText(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}
