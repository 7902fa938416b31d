/** The node monitor's loop: sessions come and go, nodes become READY or DOWN; what it decides lies in `decide.ts`. */
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { mayMove } from "../../common/model/task-state.ts";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import type { ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { CROWD_MIN, CROWD_MS, decideNode, ORPHAN_MS } from "./decide.ts";

export class NodeMonitor implements Loop {
  readonly name = "node monitor";
  readonly #context: Pick<LoopContext, "clock" | "logger">;
  /** Since when each node has been without a session, by the monotonic clock. */
  readonly #absentSinceMs = new Map<string, number>();
  /** Nodes that had a session in this leader's time. */
  readonly #seen = new Set<string>();
  /** When the last few came back that had been away. */
  readonly #returnsMs: number[] = [];
  readonly #leadingSinceMs: number;

  constructor(context: Pick<LoopContext, "clock" | "logger">) {
    this.#context = context;
    this.#leadingSinceMs = context.clock.monotonicMs();
  }

  begin(view: View): Iterable<string> {
    return view.nodes.keys();
  }

  *observe(change: Change): Iterable<string> {
    if (change.kind === "session" || change.kind === "node") yield change.id;
    if (change.kind === "node" && !change.after) {
      this.#absentSinceMs.delete(change.id);
      this.#seen.delete(change.id);
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const groups: ProposalGroup[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    const nowMs = this.#context.clock.monotonicMs();
    for (const nodeId of keys) {
      const node = view.nodes.get(nodeId);
      if (!node) continue;
      const hasSession = view.sessions.has(nodeId);
      if (hasSession) {
        if (this.#absentSinceMs.delete(nodeId)) this.#noteReturn(nowMs);
        this.#seen.add(nodeId);
      } else if (!this.#absentSinceMs.has(nodeId)) this.#absentSinceMs.set(nodeId, nowMs);
      const verdict = decideNode({
        state: node.status?.state ?? NodeStatus_State.UNKNOWN,
        hasSession,
        seen: this.#seen.has(nodeId),
        absentSinceMs: this.#absentSinceMs.get(nodeId),
        crowdMs: this.#crowdMs,
        leadingSinceMs: this.#leadingSinceMs,
        nowMs,
      });
      if (verdict.kind === "wait") wakeups.push({ key: nodeId, delayMs: verdict.delayMs });
      else if (verdict.kind === "become") groups.push(this.#become(node, verdict.state, verdict.message));
      else if (node.status?.state === NodeStatus_State.DOWN) this.#orphan(view, node, groups, wakeups);
    }
    return { groups, wakeups };
  }

  #noteReturn(nowMs: number): void {
    this.#returnsMs.push(nowMs);
    if (this.#returnsMs.length > CROWD_MIN) this.#returnsMs.shift();
  }

  /** When the last one of a crowd came back. */
  get #crowdMs(): number | undefined {
    const [first] = this.#returnsMs;
    const last = this.#returnsMs.at(-1);
    if (first === undefined || last === undefined || this.#returnsMs.length < CROWD_MIN) return undefined;
    return last - first <= CROWD_MS ? last : undefined;
  }

  #become(node: Node, state: NodeStatus_State, message: string): ProposalGroup {
    const fields = { nodeId: node.id, hostname: node.description?.hostname, state: NodeStatus_State[state] };
    if (state === NodeStatus_State.DOWN) this.#context.logger.warn(fields, "node is down");
    else this.#context.logger.info(fields, "node is ready");
    const since = timestampFromMs(this.#context.clock.nowMs());
    const address = node.status?.address ?? "";
    const object: Node = { ...node, status: { $typeName: "swarm.v1.NodeStatus", state, message, address, since } };
    return { type: "update", kind: "node", object };
  }

  #orphan(view: View, node: Node, groups: ProposalGroup[], wakeups: { key: string; delayMs: number }[]): void {
    const nowMs = this.#context.clock.nowMs();
    const leftMs = (node.status?.since ? timestampMs(node.status.since) : nowMs) + ORPHAN_MS - nowMs;
    if (leftMs > 0) {
      wakeups.push({ key: node.id, delayMs: leftMs });
      return;
    }
    for (const task of view.tasksOfNode(node.id)) {
      if (!mayMove("node monitor", task.status?.state ?? TaskState.NEW, TaskState.ORPHANED)) continue;
      const status = {
        $typeName: "swarm.v1.TaskStatus" as const,
        state: TaskState.ORPHANED,
        timestamp: timestampFromMs(nowMs),
        message: "node has been down for 24 h",
        error: "",
      };
      groups.push({ type: "update", kind: "task", object: { ...task, status } });
    }
  }
}
