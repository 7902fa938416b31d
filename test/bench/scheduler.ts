/**
 * Scheduling in memory, the shapes of SwarmKit's `BenchmarkScheduler*`: N tasks of one service onto M ready nodes, from
 * empty. SwarmKit's figures (2-core reference machine, in-memory store): 1k/1k 0.19 s, 10k/1k 1.88 s, 100k/1k 18.6 s,
 * 1k/100k 19.0 s; 100k/100k was not done after 9 min.
 */
import { create } from "@bufbuild/protobuf";
import { ClusterState } from "../../manager/scheduler/cluster-state.ts";
import { placeGroup } from "../../manager/scheduler/place.ts";
import { requirementsOf } from "../../manager/scheduler/requirements.ts";
import { NodeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Figure } from "./figure.ts";

interface Shape {
  readonly tasks: number;
  readonly nodes: number;
  readonly goalMs: number;
  /** SwarmKit's published or measured time, where it has one. */
  readonly peerMs?: number;
}

const SHAPES: readonly Shape[] = [
  { tasks: 1_000, nodes: 1_000, goalMs: 19, peerMs: 190 },
  { tasks: 10_000, nodes: 1_000, goalMs: 188, peerMs: 1_880 },
  { tasks: 100_000, nodes: 1_000, goalMs: 1_000, peerMs: 18_600 },
  { tasks: 1_000, nodes: 100_000, goalMs: 1_000, peerMs: 19_000 },
  { tasks: 100_000, nodes: 100_000, goalMs: 5_000 },
  { tasks: 1_000_000, nodes: 10_000, goalMs: 20_000 },
];

/** How many tasks one pass places before the event loop gets its turn; the manager's loop does the same. */
const SLICE = 5_000;

function clusterOf(nodes: number): ClusterState {
  const state = new ClusterState();
  for (let index = 0; index < nodes; index++) {
    state.setNode(
      create(NodeSchema, {
        id: `node-${index}`,
        spec: {},
        status: { state: NodeStatus_State.READY },
        description: {
          platform: { os: "linux", architecture: "x86_64" },
          resources: { nanoCpus: 1_000_000_000_000n, memoryBytes: 1n << 40n },
        },
      }),
    );
  }
  return state;
}

function measureShape({ tasks, nodes }: Shape): { readonly totalMs: number; readonly longestSliceMs: number } {
  const state = clusterOf(nodes);
  const spec = create(ServiceSpecSchema, {
    name: "bench",
    task: { resources: { reservations: { nanoCpus: 1_000_000n, memoryBytes: 1_000_000n } } },
  });
  const taskIds = Array.from({ length: tasks }, (_, index) => `task-${index}`);
  const beganMs = performance.now();
  let longestSliceMs = 0;
  let placed = 0;
  for (let from = 0; from < tasks; from += SLICE) {
    const sliceBeganMs = performance.now();
    const requirements = requirementsOf({ serviceId: "service", spec, ports: [], platforms: [], encrypted: false });
    placed += placeGroup(state, { requirements, taskIds: taskIds.slice(from, from + SLICE) }, 0).placed.length;
    longestSliceMs = Math.max(longestSliceMs, performance.now() - sliceBeganMs);
  }
  if (placed !== tasks) throw new Error(`placed ${placed} of ${tasks}`);
  return { totalMs: performance.now() - beganMs, longestSliceMs };
}

/** Runs every shape and returns its figures. */
export async function measureScheduler(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const shape of SHAPES) {
    const { totalMs, longestSliceMs } = measureShape(shape);
    const name = `schedule ${shape.tasks} tasks on ${shape.nodes} nodes`;
    figures.push({
      name,
      value: totalMs,
      unit: "ms",
      goal: shape.goalMs,
      ...(shape.peerMs ? { peer: shape.peerMs } : {}),
    });
    figures.push({ name: `${name}, longest pause`, value: longestSliceMs, unit: "ms", goal: 50 });
  }
  return figures;
}
