/**
 * Places many tasks of one service in one pass. Nodes that do not run the service yet are taken lazily, emptiest first,
 * straight from the index; once each has one, a heap goes round by round. The cost of a task does not depend on how many
 * nodes there are: only rejecting a node that does not fit costs, once per pass.
 */
import type { ClusterState, Occupancy } from "./cluster-state.ts";
import { Explanation, reasonAgainst } from "./filters.ts";
import { Heap } from "./heap.ts";
import type { NodeInfo } from "./node-info.ts";
import type { Requirements } from "./requirements.ts";
import { SpreadTree } from "./spread.ts";

/** Tasks that ask for the same. */
export interface PlacementGroup {
  readonly requirements: Requirements;
  readonly taskIds: readonly string[];
}

export interface PlacementResult {
  readonly placed: readonly { readonly taskId: string; readonly nodeId: string }[];
  readonly unplaced: readonly string[];
  /** Why the unplaced ones fit nowhere; empty when there are none. */
  readonly explanation: string;
}

/** Where the next task goes: the best node that fits, or undefined. */
export interface NodeSource {
  next(): NodeInfo | undefined;
  /** The node took a task; it may take another. */
  took(info: NodeInfo): void;
}

/** Decides where the group's tasks go and counts them in `state`. */
export function placeGroup(state: ClusterState, group: PlacementGroup, nowMs: number): PlacementResult {
  const explanation = new Explanation();
  const { requirements } = group;
  const source =
    requirements.spreadOver.length > 0
      ? new SpreadTree(state, requirements, explanation, nowMs)
      : new EvenSource(state, requirements, explanation, nowMs);
  const placed: { taskId: string; nodeId: string }[] = [];
  for (let index = 0; index < group.taskIds.length; index++) {
    const taskId = group.taskIds[index] as string;
    const info = source.next();
    if (!info) return { placed, unplaced: group.taskIds.slice(index), explanation: explanation.toString() };
    const occupancy: Occupancy = { nodeId: info.id, requirements, counted: true };
    state.setTask(taskId, occupancy);
    placed.push({ taskId, nodeId: info.id });
    source.took(info);
  }
  return { placed, unplaced: [], explanation: "" };
}

/** Whether a task that may run on one node only (a global service's) fits there now. */
export function fitsOn(
  state: ClusterState,
  nodeId: string,
  requirements: Requirements,
): { readonly fits: boolean; readonly explanation: string } {
  const info = state.node(nodeId);
  const explanation = new Explanation();
  const reason = info ? reasonAgainst(info, requirements) : undefined;
  if (reason) explanation.add(reason);
  const fits = info !== undefined && reason === undefined;
  return { fits, explanation: fits ? "" : explanation.toString() };
}

/** A node with its rank, taken when it entered the heap. */
export interface Candidate {
  readonly info: NodeInfo;
  readonly failing: boolean;
  readonly serviceCount: number;
  readonly taskCount: number;
  readonly order: number;
}

/** Nodes where the service fails come last; then few tasks of the service, few tasks at all, first seen. */
export function ranksBefore(left: Candidate, right: Candidate): boolean {
  if (left.failing !== right.failing) return right.failing;
  if (left.serviceCount !== right.serviceCount) return left.serviceCount < right.serviceCount;
  if (left.taskCount !== right.taskCount) return left.taskCount < right.taskCount;
  return left.order < right.order;
}

class EvenSource implements NodeSource {
  readonly #heap = new Heap<Candidate>(ranksBefore);
  readonly #untouched: Iterator<NodeInfo>;
  readonly #run: number;
  readonly #wanted: Requirements;
  readonly #explanation: Explanation;
  readonly #nowMs: number;
  #order = 0;

  constructor(state: ClusterState, wanted: Requirements, explanation: Explanation, nowMs: number) {
    this.#wanted = wanted;
    this.#explanation = explanation;
    this.#nowMs = nowMs;
    this.#run = state.beginRun();
    for (const info of state.nodesOf(wanted.serviceId)) this.#offer(info);
    this.#untouched = state.byTaskCount();
  }

  next(): NodeInfo | undefined {
    const fresh = this.#nextUntouched();
    return fresh ?? this.#heap.pop()?.info;
  }

  took(info: NodeInfo): void {
    this.#offer(info);
  }

  /** The emptiest node without a task of the service; failing ones and those that do not fit are set aside. */
  #nextUntouched(): NodeInfo | undefined {
    while (true) {
      const { value: info, done } = this.#untouched.next();
      if (done || !info) return undefined;
      if (info.seenInRun === this.#run) continue;
      info.seenInRun = this.#run;
      const reason = reasonAgainst(info, this.#wanted);
      if (reason) this.#explanation.add(reason);
      else if (info.isFailing(this.#wanted.serviceId, this.#nowMs)) this.#push(info, true);
      else return info;
    }
  }

  #offer(info: NodeInfo): void {
    info.seenInRun = this.#run;
    const reason = reasonAgainst(info, this.#wanted);
    if (reason) this.#explanation.add(reason);
    else this.#push(info, info.isFailing(this.#wanted.serviceId, this.#nowMs));
  }

  #push(info: NodeInfo, failing: boolean): void {
    this.#heap.push({
      info,
      failing,
      serviceCount: info.serviceCount(this.#wanted.serviceId),
      taskCount: info.taskCount,
      order: this.#order++,
    });
  }
}
