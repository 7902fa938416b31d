/**
 * Goal: an agent that was told change by change knows what one knows that is told everything now. Method: random changes
 * of a small cluster, each passed on to the nodes that `networkTouch` names, and to those alone.
 */
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AssignmentChange, AssignmentChange_Action } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  NetworkSchema,
  NodeSchema,
  type Service,
  ServiceSchema,
  SpecVersionSchema,
  type Task,
  TaskSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, PortConfig_PublishMode, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Change } from "../store/changes.ts";
import { kinds } from "../store/kinds.ts";
import { ViewState } from "../store/view.ts";
import { NetworkSet } from "./network-set.ts";
import { networkTouch } from "./network-touch.ts";

const NODES = ["n1", "n2", "n3"];
const NETWORKS = ["a", "b"];
const SERVICES = ["s1", "s2"];

/** A view with its feed of changes, and what each node's agent came to know. */
class World {
  readonly view = new ViewState();
  readonly #sets = new Map(NODES.map((id) => [id, new NetworkSet(id)]));
  readonly #known = new Map(NODES.map((id) => [id, new Map<string, unknown>()]));
  #revision = 0;

  constructor() {
    for (const name of NETWORKS) {
      this.#put(
        "network",
        create(NetworkSchema, {
          id: name,
          name,
          spec: { name },
          ipam: [{ subnet: `10.0.${name.charCodeAt(0)}.0/24` }],
        }),
      );
    }
    for (const id of NODES) {
      this.#put("node", create(NodeSchema, { id, status: { address: `192.0.2.${id.at(-1)}` } }));
    }
    for (const id of NODES) this.#learn(id, this.#sets.get(id)?.complete(this.view));
  }

  put(kind: "task" | "service" | "node", object: { readonly id: string }): void {
    const before = { task: this.view.tasks, service: this.view.services, node: this.view.nodes }[kind].get(object.id);
    this.#put(kind, object);
    this.#tell({ kind, id: object.id, before, after: object } as Change);
  }

  remove(kind: "task", id: string): void {
    const before = this.view.tasks.get(id);
    if (!before) return;
    this.view.remove(kind, id);
    this.#tell({ kind, id, before, after: undefined } as Change);
  }

  spec(service: Service, networks: readonly string[]): void {
    const version = service.specVersion;
    const spec = { name: service.name, task: { networks: networks.map((target) => ({ target })) } };
    this.#put("spec", create(SpecVersionSchema, { serviceId: service.id, version, spec }));
    this.put("service", service);
  }

  /** What the node's agent knows, and what it would know if it were told everything now. */
  compare(nodeId: string): readonly [unknown, unknown] {
    const fresh = new Map<string, unknown>();
    learn(fresh, new NetworkSet(nodeId).complete(this.view));
    const sorted = (known: ReadonlyMap<string, unknown>) => [...known].sort(([one], [other]) => (one < other ? -1 : 1));
    return [sorted(this.#known.get(nodeId) ?? new Map()), sorted(fresh)];
  }

  #put(kind: "task" | "service" | "node" | "spec" | "network", object: object): void {
    const stored = object as never;
    this.view.put(kind, kinds[kind].idOf(stored), stored, ++this.#revision);
  }

  #tell(change: Change): void {
    const touch = networkTouch(this.view, change);
    const own = change.kind === "task" ? [change.before?.nodeId, change.after?.nodeId] : [];
    const ofService =
      change.kind === "service" ? [...this.view.tasksOfService(change.id)].map((task) => task.nodeId) : [];
    for (const id of NODES) {
      const named = touch.nodeIds === "all" || [...touch.nodeIds].includes(id);
      const taskIds = [...(named ? touch.taskIds : []), ...(own.includes(id) ? [change.id] : [])];
      const serviceIds = [...(named ? touch.serviceIds : []), ...(ofService.includes(id) ? [change.id] : [])];
      const nodeIds = named ? touch.peerIds : [];
      this.#learn(id, this.#sets.get(id)?.update(this.view, { taskIds, serviceIds, nodeIds }));
    }
  }

  #learn(nodeId: string, changes: ReturnType<NetworkSet["update"]> | undefined): void {
    const known = this.#known.get(nodeId);
    if (known && changes) learn(known, changes);
  }
}

function learn(known: Map<string, unknown>, { before, after }: ReturnType<NetworkSet["update"]>): void {
  for (const { action, item } of [...before, ...after]) {
    if (action === AssignmentChange_Action.REMOVE) {
      expect(known.delete(keyOf(item))).toBe(true);
    } else {
      known.set(keyOf(item), item.value);
    }
  }
}

function keyOf(item: AssignmentChange["item"]): string {
  switch (item.case) {
    case "network":
      return `network ${item.value.id}`;
    case "endpoint":
      return `service ${item.value.serviceId}`;
    case "taskEndpoint":
      return `task ${item.value.taskId}`;
    case "peer":
      return `peer ${item.value.nodeId}`;
    default:
      throw new Error(`a change of ${item.case}`);
  }
}

const STATES = [TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED];

const aTask = fc
  .record({
    id: fc.constantFrom("t1", "t2", "t3", "t4"),
    serviceId: fc.constantFrom(...SERVICES),
    nodeId: fc.constantFrom(...NODES),
    state: fc.constantFrom(...STATES),
    desiredState: fc.constantFrom(TaskState.RUNNING, TaskState.SHUTDOWN),
    networks: fc.subarray(NETWORKS),
  })
  .map(({ networks, state, ...task }) =>
    create(TaskSchema, {
      ...{ ...task, address: "10.224.0.7/12", slot: 1, status: { state } },
      networks: networks.map((networkId) => ({ networkId, addresses: [`10.0.${networkId.charCodeAt(0)}.7/24`] })),
    }),
  );

const aService = fc.record({
  id: fc.constantFrom(...SERVICES),
  networks: fc.subarray(NETWORKS),
  publishMode: fc.constantFrom(undefined, PortConfig_PublishMode.INGRESS, PortConfig_PublishMode.HOST),
});

const aStep = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant("task" as const), task: aTask }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("service" as const), service: aService }) },
  fc.record({ do: fc.constant("remove" as const), id: fc.constantFrom("t1", "t2", "t3", "t4") }),
  fc.record({
    do: fc.constant("node" as const),
    id: fc.constantFrom(...NODES),
    state: fc.constantFrom(NodeStatus_State.READY, NodeStatus_State.DOWN),
    address: fc.constantFrom("192.0.2.77", "192.0.2.78", ""),
  }),
);

describe("what an agent is told of the network", () => {
  test("comes to the same change by change as all at once", () => {
    fc.assert(
      fc.property(fc.array(aStep, { maxLength: 40 }), (steps) => {
        const world = new World();
        let version = 0n;
        for (const step of steps) {
          if (step.do === "task") world.put("task", keepPlace(world, step.task));
          else if (step.do === "remove") world.remove("task", step.id);
          else if (step.do === "node") {
            const status = { state: step.state, address: step.address };
            world.put("node", create(NodeSchema, { id: step.id, status }));
          } else {
            const { id, networks, publishMode } = step.service;
            const ports = publishMode === undefined ? [] : [{ publishedPort: 80, targetPort: 80, publishMode }];
            const vips = networks.map((networkId) => ({
              networkId,
              addresses: [`10.0.${networkId.charCodeAt(0)}.2/24`],
            }));
            world.spec(create(ServiceSchema, { id, name: id, specVersion: ++version, ports, vips }), networks);
          }
          for (const nodeId of NODES) {
            const [known, fresh] = world.compare(nodeId);
            expect(known).toEqual(fresh);
          }
        }
      }),
      { numRuns: 150 },
    );
  });

  test("is of its own networks, of what is published everywhere, and of no more", () => {
    const world = new World();
    const port = { publishedPort: 80, targetPort: 80, publishMode: PortConfig_PublishMode.INGRESS };
    world.spec(create(ServiceSchema, { id: "s1", name: "web", specVersion: 1n, ports: [port] }), []);
    world.spec(create(ServiceSchema, { id: "s2", name: "db", specVersion: 1n }), ["a"]);
    const running = { status: { state: TaskState.RUNNING }, desiredState: TaskState.RUNNING };
    const onA = [{ networkId: "a", addresses: ["10.0.97.7/24"] }];
    world.put(
      "task",
      create(TaskSchema, { id: "t1", serviceId: "s1", nodeId: "n1", address: "10.224.0.7/12", ...running }),
    );
    world.put("task", create(TaskSchema, { id: "t2", serviceId: "s2", nodeId: "n2", networks: onA, ...running }));
    const keys = (nodeId: string) => (world.compare(nodeId)[0] as [string, unknown][]).map(([key]) => key);
    expect(keys("n1")).toEqual(["peer n2", "peer n3", "service s1"]);
    expect(keys("n2")).toEqual(["network a", "peer n1", "peer n3", "service s1", "service s2", "task t1"]);
    expect(keys("n3")).toEqual(["peer n1", "peer n2", "service s1", "task t1"]);
  });
});

/** A task never changes its service, its networks or, once it has one, its node. */
function keepPlace({ view }: World, task: Task): Task {
  const known = view.tasks.get(task.id);
  if (!known) return task;
  const { serviceId, networks } = known;
  return create(TaskSchema, { ...task, serviceId, networks, nodeId: known.nodeId || task.nodeId });
}
