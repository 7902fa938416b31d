import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NodeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  NodeSpec_Availability,
  NodeStatus_State,
  type PortConfig,
  PortConfig_PublishMode,
  PortConfigSchema,
  ServiceSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { ClusterState } from "./cluster-state.ts";
import { Heap } from "./heap.ts";
import { placeGroup } from "./place.ts";
import { type Requirements, requirementsOf } from "./requirements.ts";

interface NodeFixture {
  readonly id: string;
  readonly memoryBytes?: number;
  readonly zone?: string;
  readonly architecture?: string;
  readonly availability?: NodeSpec_Availability;
  readonly wireguardKey?: Uint8Array;
}

function cluster(...nodes: readonly NodeFixture[]): ClusterState {
  const state = new ClusterState();
  for (const { id, memoryBytes = 1_000, zone, architecture = "x86_64", availability, wireguardKey } of nodes) {
    state.setNode(
      create(NodeSchema, {
        id,
        spec: { availability: availability ?? NodeSpec_Availability.ACTIVE, labels: zone ? { zone } : {} },
        status: { state: NodeStatus_State.READY },
        description: {
          hostname: id,
          platform: { os: "linux", architecture },
          resources: { nanoCpus: 4_000_000_000n, memoryBytes: BigInt(memoryBytes) },
          ...(wireguardKey && { wireguardKey }),
        },
      }),
    );
  }
  return state;
}

interface WantedFixture {
  readonly memoryBytes?: number;
  readonly constraints?: string[];
  readonly maxReplicas?: bigint;
  readonly hostPort?: number;
  readonly spread?: string;
  readonly architecture?: string;
  readonly encrypted?: boolean;
}

function wanted(fixture: WantedFixture = {}, serviceId = "service"): Requirements {
  const ports: PortConfig[] = fixture.hostPort
    ? [create(PortConfigSchema, { publishedPort: fixture.hostPort, publishMode: PortConfig_PublishMode.HOST })]
    : [];
  const spec = create(ServiceSpecSchema, {
    task: {
      resources: { reservations: { memoryBytes: BigInt(fixture.memoryBytes ?? 0) } },
      placement: {
        constraints: fixture.constraints ?? [],
        maxReplicas: fixture.maxReplicas ?? 0n,
        preferences: fixture.spread ? [{ spread: fixture.spread }] : [],
      },
    },
  });
  const platforms = fixture.architecture
    ? [{ $typeName: "swarm.v1.Platform" as const, os: "linux", architecture: fixture.architecture }]
    : [];
  return requirementsOf({ serviceId, spec, ports, platforms, encrypted: fixture.encrypted ?? false });
}

let nextTask = 0;

/** Places `count` tasks and counts them by node. */
function place(state: ClusterState, count: number, requirements = wanted()) {
  const taskIds = Array.from({ length: count }, () => `task-${nextTask++}`);
  const result = placeGroup(state, { requirements, taskIds }, 0);
  const counts: Record<string, number> = {};
  for (const { nodeId } of result.placed) counts[nodeId] = (counts[nodeId] ?? 0) + 1;
  return { counts, unplaced: result.unplaced.length, explanation: result.explanation };
}

describe("spread", () => {
  test("tasks of a service go round the nodes", () => {
    expect(place(cluster({ id: "a" }, { id: "b" }, { id: "c" }), 7).counts).toEqual({ a: 3, b: 2, c: 2 });
  });

  test("an emptier node comes first, however much the service's own tasks matter more", () => {
    const state = cluster({ id: "a" }, { id: "b" });
    place(state, 1, wanted({}, "other"));
    expect(place(state, 1).counts).toEqual({ b: 1 });
    // b now has one of ours and a has none: a is next, though both have one task in all.
    expect(place(state, 1).counts).toEqual({ a: 1 });
  });

  test("later passes go on where earlier ones stopped", () => {
    const state = cluster({ id: "a" }, { id: "b" }, { id: "c" });
    for (let pass = 0; pass < 6; pass++) place(state, 1);
    expect([..."abc"].map((id) => state.node(id)?.taskCount)).toEqual([2, 2, 2]);
  });

  test("over labels, nodes without one being a branch of their own", () => {
    const state = cluster({ id: "a", zone: "x" }, { id: "b", zone: "x" }, { id: "c", zone: "y" }, { id: "d" });
    expect(place(state, 6, wanted({ spread: "node.labels.zone" })).counts).toEqual({ a: 1, b: 1, c: 2, d: 2 });
  });

  test("a node where the service keeps failing is taken last", () => {
    const state = cluster({ id: "a" }, { id: "b" });
    for (let failure = 0; failure < 5; failure++) state.node("a")?.recordFailure("service", 0);
    expect(place(state, 2).counts).toEqual({ b: 2 });
  });
});

describe("filters say why", () => {
  test.each<[string, WantedFixture, NodeFixture[], string]>([
    ["memory", { memoryBytes: 2_000 }, [{ id: "a" }, { id: "b" }], "no suitable node (insufficient memory on 2 nodes)"],
    [
      "constraints",
      { constraints: ["node.labels.zone==x"] },
      [{ id: "a" }],
      "no suitable node (scheduling constraints not satisfied on 1 node)",
    ],
    ["platform", { architecture: "arm64" }, [{ id: "a" }], "no suitable node (unsupported platform on 1 node)"],
    [
      "availability",
      {},
      [
        { id: "a", availability: NodeSpec_Availability.DRAIN },
        { id: "b", availability: NodeSpec_Availability.PAUSE },
      ],
      "no suitable node (2 nodes not available for new tasks)",
    ],
    [
      "encryption",
      { encrypted: true },
      [{ id: "a" }, { id: "b" }],
      "no suitable node (no WireGuard for an encrypted network on 2 nodes)",
    ],
    ["no nodes", {}, [], "no suitable node (the cluster has no nodes)"],
    [
      "several",
      { memoryBytes: 2_000 },
      [{ id: "a" }, { id: "b", availability: NodeSpec_Availability.DRAIN }],
      "no suitable node (1 node not available for new tasks; insufficient memory on 1 node)",
    ],
  ])("%s", (_, requirements, nodes, explanation) => {
    expect(place(cluster(...nodes), 1, wanted(requirements))).toEqual({ counts: {}, unplaced: 1, explanation });
  });

  test("an architecture is known by both its names", () => {
    expect(place(cluster({ id: "a", architecture: "x86_64" }), 1, wanted({ architecture: "amd64" })).counts).toEqual({
      a: 1,
    });
  });

  test("an encrypted network's tasks go where WireGuard is", () => {
    const state = cluster({ id: "a" }, { id: "b", wireguardKey: new Uint8Array(32) });
    expect(place(state, 3, wanted({ encrypted: true })).counts).toEqual({ b: 3 });
  });

  test("max replicas per node", () => {
    const result = place(cluster({ id: "a" }, { id: "b" }), 5, wanted({ maxReplicas: 2n }));
    expect(result.counts).toEqual({ a: 2, b: 2 });
    expect(result.explanation).toBe("no suitable node (max replicas per node limit exceeded on 2 nodes)");
  });

  test("a host port is taken once per node", () => {
    const result = place(cluster({ id: "a" }, { id: "b" }), 3, wanted({ hostPort: 80 }));
    expect(result).toEqual({
      counts: { a: 1, b: 1 },
      unplaced: 1,
      explanation: "no suitable node (host-mode port already in use on 2 nodes)",
    });
  });
});

test("nothing is ever placed beyond what a node has, and counts differ by at most one among equal nodes", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 0, max: 60 }),
      fc.integer({ min: 0, max: 300 }),
      (nodes, tasks, memoryBytes) => {
        const state = cluster(...Array.from({ length: nodes }, (_, index) => ({ id: `n${index}` })));
        const { unplaced } = place(state, tasks, wanted({ memoryBytes }));
        const counts = [...state.nodes()].map((info) => info.taskCount);
        for (const info of state.nodes()) expect(info.usedMemoryBytes).toBeLessThanOrEqual(info.totalMemoryBytes);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(tasks - unplaced);
        if (unplaced > 0) expect(Math.min(...counts)).toBe(Math.floor(1_000 / memoryBytes));
      },
    ),
  );
});

test("a heap gives back what it got, in order", () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), (numbers) => {
      const heap = new Heap<number>((left, right) => left < right);
      for (const number of numbers) heap.push(number);
      expect(numbers.map(() => heap.pop())).toEqual(numbers.toSorted((left, right) => left - right));
    }),
  );
});
