/**
 * Spreading over labels (`--placement-pref spread=node.labels.zone`): a tree with one level per label. Each task goes
 * down to the branch with the fewest tasks of the service, then to the best node there. Nodes without the label form a
 * branch of their own.
 */
import type { ClusterState } from "./cluster-state.ts";
import { type Explanation, reasonAgainst } from "./filters.ts";
import { Heap } from "./heap.ts";
import type { NodeInfo } from "./node-info.ts";
import { type Candidate, type NodeSource, ranksBefore } from "./place.ts";
import type { Requirements } from "./requirements.ts";

interface Branch {
  /** Tasks of the service on nodes below, also on those that take no more. */
  tasks: number;
  readonly children: Map<string, Branch>;
  /** Only at the lowest level. */
  readonly nodes: Heap<Candidate>;
}

export class SpreadTree implements NodeSource {
  readonly #root = newBranch();
  readonly #wanted: Requirements;
  readonly #explanation: Explanation;
  readonly #nowMs: number;
  #order = 0;

  constructor(state: ClusterState, wanted: Requirements, explanation: Explanation, nowMs: number) {
    this.#wanted = wanted;
    this.#explanation = explanation;
    this.#nowMs = nowMs;
    for (const info of state.byTaskCount()) this.#insert(info, info.serviceCount(wanted.serviceId));
  }

  next(): NodeInfo | undefined {
    return takeFrom(this.#root);
  }

  took(info: NodeInfo): void {
    this.#insert(info, 1);
  }

  #insert(info: NodeInfo, tasks: number): void {
    let branch = this.#root;
    branch.tasks += tasks;
    for (const label of this.#wanted.spreadOver) {
      const value = labelValue(info, label);
      let child = branch.children.get(value);
      if (!child) {
        child = newBranch();
        branch.children.set(value, child);
      }
      child.tasks += tasks;
      branch = child;
    }
    const reason = reasonAgainst(info, this.#wanted);
    if (reason) {
      this.#explanation.add(reason);
      return;
    }
    branch.nodes.push({
      info,
      failing: info.isFailing(this.#wanted.serviceId, this.#nowMs),
      serviceCount: info.serviceCount(this.#wanted.serviceId),
      taskCount: info.taskCount,
      order: this.#order++,
    });
  }
}

function newBranch(): Branch {
  return { tasks: 0, children: new Map(), nodes: new Heap(ranksBefore) };
}

/** The best node below `branch`; branches that have none left are passed over. */
function takeFrom(branch: Branch): NodeInfo | undefined {
  if (branch.children.size === 0) return branch.nodes.pop()?.info;
  const children = [...branch.children.values()].sort((left, right) => left.tasks - right.tasks);
  for (const child of children) {
    const info = takeFrom(child);
    if (info) return info;
  }
  return undefined;
}

function labelValue(info: NodeInfo, label: string): string {
  const [, kind, key] = /^(node|engine)\.labels\.(.+)$/i.exec(label) ?? [];
  if (!kind || !key) return "";
  const labels = kind.toLowerCase() === "node" ? info.node.spec?.labels : info.node.description?.engine?.labels;
  return labels && Object.hasOwn(labels, key) ? (labels[key] ?? "") : "";
}
