/**
 * What running tasks use, as the nodes' kernels count it: one stream to each node that has some of them, asked once a period.
 *
 *     caller ◀── one message a round ── watch ── question ──▶ NodeStats ──▶ streams ──▶ agent
 *                                         ▲                      │
 *                                         └────── answers ◀──────┘   those that do not come in time are left out, and said so
 */
import { create } from "@bufbuild/protobuf";
import { withTimeout } from "../../common/base/clock.ts";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { Scope } from "../../common/base/scope.ts";
import { durationMs } from "../../common/model/duration.ts";
import { slotName } from "../../common/model/names.ts";
import {
  type TaskStats,
  TaskStatsSchema,
  type TaskUsage,
  type UnreachableNode,
  UnreachableNodeSchema,
  type WatchTaskStatsRequest,
  type WatchTaskStatsResponse,
  WatchTaskStatsResponseSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { whyUnreachable } from "../why-unreachable.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { requireRunning } from "./exec.ts";
import { nodeLookup, serviceLookup, taskLookup } from "./lookups.ts";
import { NodeStats } from "./node-stats.ts";
import { resolveReferences } from "./references.ts";

const PERIOD_MS_DEFAULT = 1_000;
/** Shorter ones would measure the measuring: an agent needs 20 ms for 200 tasks. */
const PERIOD_MS_MIN = 200;
const PERIOD_MS_MAX = 3_600_000;
/** Nodes of one watch: each holds a stream and its connection to this manager. */
const NODES_MAX = 256;
/** Tasks of one watch: a message of 1.5 MiB a round. */
const TASKS_MAX = 10_000;
/** How long a round waits for nodes that have answered before; the others' answers wait with it. */
const ANSWER_MS_MAX = 2_000;
/** The same while a stream is being opened, for which the broker gives an agent 5 s. */
const OPENING_MS_MAX = 5_500;
/** How long a node that failed is left alone. */
const RETRY_MS = 3_000;

/** Whose tasks, by id. All undefined: everybody's. */
interface Selection {
  readonly serviceIds: ReadonlySet<string>;
  readonly taskIds: ReadonlySet<string>;
  readonly nodeIds: ReadonlySet<string>;
}

/**
 * Tells what the tasks use until the caller leaves; tasks that appear later are told of, too.
 * @throws invalid_argument: the period. not_found: what is named. failed_precondition: a task that does not run.
 * resource_exhausted: too many tasks or nodes for one watch.
 */
export async function* watchTaskStats(
  dependencies: ControlDependencies,
  request: WatchTaskStatsRequest,
  caller: AbortSignal,
): AsyncGenerator<WatchTaskStatsResponse, void, undefined> {
  const { clock, store } = dependencies;
  const periodMs = periodOf(request);
  const selection = select(store.view, request);
  await using scope = new Scope(caller);
  const watch = new StatsWatch(dependencies, selection, scope);
  while (true) {
    const startedMs = clock.monotonicMs();
    yield await watch.round();
    await clock.sleep(startedMs + periodMs - clock.monotonicMs(), scope.signal);
  }
}

function periodOf({ period }: WatchTaskStatsRequest): number {
  const periodMs = durationMs(period) ?? PERIOD_MS_DEFAULT;
  if (periodMs >= PERIOD_MS_MIN && periodMs <= PERIOD_MS_MAX) return periodMs;
  throw invalidFields([{ field: "period", problem: `must be between ${PERIOD_MS_MIN}ms and 1h` }]);
}

/** Undefined: every task of the cluster. */
function select(view: View, { services, tasks, nodes }: WatchTaskStatsRequest): Selection | undefined {
  if (services.length + tasks.length + nodes.length === 0) return undefined;
  const ids = <T extends { readonly id: string }>(find: () => Iterable<T>, references: readonly string[]) =>
    new Set(references.length === 0 ? [] : Iterator.from(find()).map(({ id }) => id));
  const named = tasks.length === 0 ? [] : [...resolveReferences(taskLookup(view), tasks)];
  for (const task of named) requireRunning(task);
  return {
    serviceIds: ids(() => resolveReferences(serviceLookup(view), services), services),
    taskIds: new Set(named.map(({ id }) => id)),
    nodeIds: ids(() => resolveReferences(nodeLookup(view), nodes), nodes),
  };
}

/** What is asked of one node in a round. */
interface NodeRound {
  readonly tasks: readonly Task[];
  usage: ReadonlyMap<string, TaskUsage>;
  /** Why nothing is known of its tasks. */
  problem: string | undefined;
}

class StatsWatch {
  readonly #dependencies: ControlDependencies;
  readonly #selection: Selection | undefined;
  readonly #scope: Scope;
  readonly #nodes = new Map<string, NodeStats>();
  readonly #failedMs = new Map<string, number>();

  constructor(dependencies: ControlDependencies, selection: Selection | undefined, scope: Scope) {
    this.#dependencies = dependencies;
    this.#selection = selection;
    this.#scope = scope;
  }

  /** Asks every node that has some of the tasks now. */
  async round(): Promise<WatchTaskStatsResponse> {
    const { clock } = this.#dependencies;
    const nodes = this.#tasksByNode();
    this.#drop(nodes);
    let timeoutMs = ANSWER_MS_MAX;
    const asked = [...nodes].flatMap(([nodeId, round]) => {
      const stats = this.#ready(nodeId, round);
      if (!stats) return [];
      if (!stats.answered) timeoutMs = OPENING_MS_MAX;
      return [this.#ask(stats, round)];
    });
    try {
      const wait = { clock, timeoutMs, operation: "the nodes" };
      await withTimeout(wait, this.#scope.signal, () => Promise.all(asked));
    } catch (reason) {
      if (this.#scope.signal.aborted || SwarmError.from(reason).code !== "deadline_exceeded") throw reason;
    }
    return this.#response(nodes);
  }

  #tasksByNode(): Map<string, NodeRound> {
    const { view } = this.#dependencies.store;
    const nodes = new Map<string, NodeRound & { readonly tasks: Task[] }>();
    const begin = (nodeId: string) => {
      const round = { tasks: [], usage: new Map<string, TaskUsage>(), problem: "no answer" };
      nodes.set(nodeId, round);
      return round;
    };
    let count = 0;
    for (const task of selected(view, this.#selection)) {
      if (!isShown(view, task)) continue;
      (nodes.get(task.nodeId) ?? begin(task.nodeId)).tasks.push(task);
      count += 1;
      if (count > TASKS_MAX) throw tooMany(`${TASKS_MAX} tasks`);
    }
    // A node that was named and cannot be asked is told of even if nothing is known to run on it.
    for (const nodeId of this.#selection?.nodeIds ?? []) {
      if (!nodes.has(nodeId) && whyUnreachable(view, nodeId) !== undefined) begin(nodeId);
    }
    if (nodes.size > NODES_MAX) throw tooMany(`${NODES_MAX} nodes`);
    return nodes;
  }

  /** Ends the streams of nodes that have no such task any more, or are gone. */
  #drop(nodes: ReadonlyMap<string, NodeRound>): void {
    const { view } = this.#dependencies.store;
    for (const [nodeId, stats] of this.#nodes) {
      if (nodes.has(nodeId) && whyUnreachable(view, nodeId) === undefined) continue;
      stats.close();
      this.#nodes.delete(nodeId);
    }
  }

  /** The node's stream, opened if need be; undefined with `round.problem`: it cannot be asked now. */
  #ready(nodeId: string, round: NodeRound): NodeStats | undefined {
    const { store, clock, streams } = this.#dependencies;
    const reason = whyUnreachable(store.view, nodeId);
    if (reason !== undefined) {
      round.problem = reason;
      return undefined;
    }
    const present = this.#nodes.get(nodeId);
    if (present && !present.failure) return present;
    const failedMs = this.#failedMs.get(nodeId);
    if (present?.failure && failedMs !== undefined && clock.monotonicMs() < failedMs + RETRY_MS) {
      round.problem = present.failure.message;
      return undefined;
    }
    const stats = new NodeStats(nodeId);
    this.#nodes.set(nodeId, stats);
    this.#scope.spawn(`stats of node ${nodeId}`, (signal) => stats.run(streams, signal));
    return stats;
  }

  async #ask(stats: NodeStats, round: NodeRound): Promise<void> {
    const ids = round.tasks.map(({ id }) => id);
    try {
      const usage = await stats.ask(ids, this.#scope.signal);
      round.usage = new Map(usage.map((each) => [each.taskId, each]));
      round.problem = undefined;
      this.#failedMs.delete(stats.nodeId);
    } catch (reason) {
      round.problem = SwarmError.from(reason).message;
      if (!stats.answered) this.#failedMs.set(stats.nodeId, this.#dependencies.clock.monotonicMs());
    }
  }

  #response(nodes: ReadonlyMap<string, NodeRound>): WatchTaskStatsResponse {
    const { view } = this.#dependencies.store;
    const tasks: TaskStats[] = [];
    const unreachable: UnreachableNode[] = [];
    for (const [nodeId, { tasks: ofNode, usage, problem }] of nodes) {
      const hostname = view.nodes.get(nodeId)?.description?.hostname || nodeId;
      if (problem !== undefined) {
        const taskNames = ofNode.map((task) => nameOf(view, task));
        unreachable.push(create(UnreachableNodeSchema, { hostname, reason: problem, taskNames }));
        continue;
      }
      for (const task of ofNode) {
        const used = usage.get(task.id);
        tasks.push(
          create(TaskStatsSchema, {
            taskId: task.id,
            name: nameOf(view, task),
            nodeId,
            nodeHostname: hostname,
            ...(used && { usage: used }),
          }),
        );
      }
    }
    return create(WatchTaskStatsResponseSchema, { tasks, unreachable });
  }
}

/** Each task once, however many of what is named it belongs to. */
function* selected(view: View, selection: Selection | undefined): Generator<Task, void, undefined> {
  if (!selection) return yield* view.tasks.values();
  const { serviceIds, taskIds, nodeIds } = selection;
  for (const id of serviceIds) yield* view.tasksOfService(id);
  for (const id of nodeIds) for (const task of view.tasksOfNode(id)) if (!serviceIds.has(task.serviceId)) yield task;
  for (const id of taskIds) {
    const task = view.tasks.get(id);
    if (task && !serviceIds.has(task.serviceId) && !nodeIds.has(task.nodeId)) yield task;
  }
}

/** A task that runs; one that should not any more only where it can be seen to: elsewhere it has been replaced. */
function isShown(view: View, { status, desiredState, nodeId }: Task): boolean {
  if (status?.state !== TaskState.RUNNING) return false;
  return desiredState <= TaskState.RUNNING || view.sessions.has(nodeId);
}

function nameOf(view: View, task: Task): string {
  return slotName(view.services.get(task.serviceId)?.name ?? task.serviceId, task);
}

function tooMany(bound: string): SwarmError {
  return new SwarmError("resource_exhausted", `stats of more than ${bound} at once: name fewer`);
}
