/**
 * Goal: whatever happens, an address is one task's or service's, comes back when its object goes, and who gets none says why. Method:
 * the allocator over a store in memory, where what it decides is applied at once, or refused; tables and a property.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import {
  ClusterSchema,
  NetworkSchema,
  NodeSchema,
  ServiceSchema,
  SpecVersionSchema,
  type Task,
  TaskSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, ServiceSpecSchema, TaskSpecSchema, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Change } from "../store/changes.ts";
import { type Kind, type Objects, versionId } from "../store/kinds.ts";
import { ViewState } from "../store/view.ts";
import { Addresses } from "./addresses.ts";
import { Allocator } from "./allocator.ts";

type Spec = MessageInitShape<typeof ServiceSpecSchema>;
const id = (name: string) => name.padEnd(25, "0");

class World {
  readonly view = new ViewState();
  #allocator = this.#begun();

  constructor() {
    this.put("cluster", "default", create(ClusterSchema, { id: "default", spec: { addressPool: "10.224.0.0/29" } }));
    this.put("node", id("n"), create(NodeSchema, { id: id("n"), status: { state: NodeStatus_State.READY } }));
    this.restart();
  }

  #begun(): Allocator {
    const allocator = new Allocator({ clock: new FakeClock(), logger: silentLogger });
    for (const _ of allocator.begin(this.view));
    return allocator;
  }

  /** What a new leader would find wrong. */
  twice(): readonly string[] {
    return new Addresses(this.view).twice;
  }

  /** Another leader takes over. */
  restart(): void {
    this.#allocator = this.#begun();
  }

  put<K extends Kind>(kind: K, key: string, object: Objects[K]): void {
    const before = this.view.get(kind, key);
    this.view.put(kind, key, object, 1);
    for (const _ of this.#allocator.observe({ kind, id: key, before, after: object } as Change));
  }

  remove(kind: Kind, key: string): void {
    const before = this.view.get(kind, key);
    this.view.remove(kind, key);
    if (before) for (const _ of this.#allocator.observe({ kind, id: key, before, after: undefined } as Change));
  }

  network(name: string, subnet: string, more: MessageInitShape<typeof NetworkSchema> = {}): void {
    const gateway = subnet.replace(/[0-9]+\/\d+$/, (end) => String(Number(end.split("/")[0]) + 1));
    this.put("network", id(name), create(NetworkSchema, { id: id(name), name, ipam: [{ subnet, gateway }], ...more }));
  }

  /** A new version of a service that is on these networks. */
  service(name: string, networks: readonly string[], spec: Spec = {}): void {
    const present = this.view.services.get(id(name));
    const version = (present?.specVersion ?? 0n) + 1n;
    const whole = create(ServiceSpecSchema, {
      name,
      task: create(TaskSpecSchema, { networks: networks.map((target) => ({ target })) }),
      ...spec,
    } as Spec);
    const stored = create(SpecVersionSchema, { serviceId: id(name), version, spec: whole });
    this.put("spec", versionId(id(name), version), stored);
    const service = present ?? create(ServiceSchema, { id: id(name), name });
    this.put("service", id(name), { ...service, specVersion: version });
  }

  task(serviceName: string, slot: number): string {
    const key = id(`${serviceName}${slot}t`);
    const { specVersion = 1n } = this.view.services.get(id(serviceName)) ?? {};
    const fields = { id: key, serviceId: id(serviceName), slot, specVersion, desiredState: TaskState.RUNNING };
    this.put("task", key, create(TaskSchema, { ...fields, status: { state: TaskState.NEW } }));
    return key;
  }

  set(key: string, fields: Partial<Task>): void {
    const task = this.view.tasks.get(key);
    if (task) this.put("task", key, { ...task, ...fields });
  }

  end(key: string): void {
    const task = this.view.tasks.get(key);
    if (task?.status) this.set(key, { status: { ...task.status, state: TaskState.SHUTDOWN } });
  }

  /** One pass over everything. */
  pass(outcome: "applied" | "refused" = "applied"): { readonly written: number; readonly wakeupsMs: number[] } {
    const { groups, wakeups } = this.#allocator.decide(this.view, [...this.view.services.keys()]);
    for (const group of groups) {
      if (Array.isArray(group) || !("type" in group) || group.type !== "update") throw new Error("updates only");
      if (outcome === "refused") this.#allocator.refused(group, this.view);
      else if (group.kind === "task" || group.kind === "service") this.put(group.kind, group.object.id, group.object);
    }
    return { written: groups.length, wakeupsMs: wakeups.map(({ delayMs }) => delayMs) };
  }

  settle(): void {
    this.pass();
    this.pass();
  }

  /** "PENDING 10.0.1.2/29", or why not. */
  at(key: string): string {
    const task = this.view.tasks.get(key);
    const addresses = [task?.address ?? "", ...(task?.networks ?? []).flatMap((each) => each.addresses)].filter(
      Boolean,
    );
    return [TaskState[task?.status?.state ?? 0], task?.status?.error, ...addresses].filter(Boolean).join(" ");
  }

  vips(name: string): string[] {
    return this.view.services.get(id(name))?.vips.flatMap(({ addresses }) => addresses) ?? [];
  }

  addresses(): string[] {
    const tasks = [...this.view.tasks.values()];
    return [
      ...tasks.flatMap(({ address, networks }) => [address, ...networks.flatMap((each) => each.addresses)]),
      ...[...this.view.services.values()].flatMap(({ vips }) => vips.flatMap((each) => each.addresses)),
    ].filter((address) => address !== "");
  }
}

describe("which addresses", () => {
  const ports = { endpoint: { ports: [{ targetPort: 80, publishedPort: 80 }] } };
  const internal = { spec: { internal: true } };
  test.each<[string, readonly string[], Spec, string]>([
    ["on nothing", [], {}, "PENDING 10.224.0.2/29"],
    ["bridge", ["bridge"], {}, "PENDING 10.224.0.2/29"],
    ["host", ["host"], {}, "PENDING"],
    ["none", ["none"], {}, "PENDING"],
    ["a network", ["front"], {}, "PENDING 10.0.1.3/24"],
    ["two, in the spec's order", ["back", "front"], {}, "PENDING 10.0.2.3/24 fd00:2::3/64 10.0.1.3/24"],
    ["with bridge", ["front", "bridge"], {}, "PENDING 10.224.0.2/29 10.0.1.3/24"],
    ["with ports", ["front", "back"], ports, "PENDING 10.0.1.3/24 10.0.2.3/24 fd00:2::3/64"],
    ["with ports, internal", ["back"], ports, "PENDING 10.224.0.2/29 10.0.2.3/24 fd00:2::3/64"],
    ["no network of that name", ["gone"], {}, "NEW virtual address: network gone not found"],
  ])("%s", (_, networks, spec, expected) => {
    const world = new World();
    world.network("front", "10.0.1.0/24");
    const ipam = [
      { subnet: "10.0.2.0/24", gateway: "10.0.2.1" },
      { subnet: "fd00:2::/64", gateway: "fd00:2::1" },
    ];
    world.network("back", "10.0.2.0/24", { ...internal, ipam });
    world.service("web", networks, { ...(spec as object), task: { networks: networks.map((target) => ({ target })) } });
    const task = world.task("web", 1);
    world.settle();
    expect(world.at(task)).toBe(expected);
  });

  test("a service has one on each network, unless it is dnsrr or a job; it keeps them", () => {
    const world = new World();
    world.network("front", "10.0.1.0/24");
    world.network("back", "10.0.2.0/24");
    world.service("web", ["front"]);
    world.service("names", ["front"], { task: { networks: [{ target: "front" }] }, endpoint: { mode: 1 } });
    world.service("job", ["front"], {
      task: { networks: [{ target: "front" }] },
      mode: { mode: { case: "replicatedJob", value: { totalCompletions: 1n } } },
    });
    world.settle();
    expect([world.vips("web"), world.vips("names"), world.vips("job")]).toEqual([["10.0.1.2/24"], [], []]);
    world.service("web", ["back", "front"]);
    world.settle();
    expect(world.vips("web")).toEqual(["10.0.2.2/24", "10.0.1.2/24"]);
    world.service("web", ["back"]);
    world.settle();
    expect(world.vips("web")).toEqual(["10.0.2.2/24"]);
  });
});

describe("addresses that are taken", () => {
  test("a full network's tasks say so; others go on, and they too once an object is removed", () => {
    const world = new World();
    world.network("small", "10.0.1.0/29");
    world.network("other", "10.0.2.0/29");
    world.service("web", ["small"]);
    world.service("api", ["other"]);
    const tasks = [1, 2, 3, 4, 5].map((slot) => world.task("web", slot));
    const api = world.task("api", 1);
    world.settle();
    expect(tasks.map((task) => world.at(task))).toEqual([
      ...["10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"].map((address) => `PENDING ${address}/29`),
      "NEW network small: no free address in 10.0.1.0/29",
    ]);
    expect(world.at(api)).toBe("PENDING 10.0.2.3/29");
    world.end(tasks[1] ?? "");
    world.settle();
    expect(world.at(tasks[4] ?? "")).toMatch(/^NEW/);
    world.remove("task", tasks[1] ?? "");
    world.settle();
    expect(world.at(tasks[4] ?? "")).toBe("PENDING 10.0.1.4/29");
  });

  test("thousands that wait keep nobody busy, and take nobody's turn", () => {
    const world = new World();
    world.network("small", "10.0.1.0/29");
    world.network("large", "10.1.0.0/16");
    world.service("web", ["small"]);
    world.service("api", ["large"]);
    for (let slot = 1; slot <= 6_000; slot++) world.task("web", slot);
    const api = world.task("api", 1);
    world.settle();
    world.settle();
    expect(world.at(api)).toBe("PENDING 10.1.0.3/16");
    expect(world.pass()).toEqual({ written: 0, wakeupsMs: [1_000] });
  });

  test("the nodes' own network, too", () => {
    const world = new World();
    world.service("web", []);
    const tasks = [1, 2, 3, 4, 5, 6].map((slot) => world.task("web", slot));
    world.settle();
    expect(tasks.map((task) => world.at(task)).at(-1)).toBe("NEW no free address in 10.224.0.0/29");
  });

  test("a freed address comes back last, also for a new leader", () => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    world.service("web", ["front"], { task: { networks: [{ target: "front" }] }, endpoint: { mode: 1 } });
    const first = world.task("web", 1);
    world.task("web", 2);
    world.settle();
    world.remove("task", first);
    world.restart();
    const next = [3, 4, 5, 6].map((slot) => world.task("web", slot));
    world.settle();
    expect(next.map((task) => world.at(task).split(" ")[1])).toEqual([
      ...["10.0.1.4/29", "10.0.1.5/29", "10.0.1.6/29", "10.0.1.2/29"],
    ]);
  });

  test("an address that the store has given twice is named with both holders by a new leader", () => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    for (const name of ["web", "api"]) world.service(name, ["front"], { endpoint: { mode: 1 } });
    const [web, api] = [world.task("web", 1), world.task("api", 1)];
    world.settle();
    expect(world.twice()).toEqual([]);
    world.set(api, { networks: world.view.tasks.get(web)?.networks ?? [] });
    const [address = ""] = world.view.tasks.get(web)?.networks.flatMap(({ addresses }) => addresses) ?? [];
    expect(world.twice()).toEqual([expect.stringMatching(`^${address}: (web.1 and api.1|api.1 and web.1)$`)]);
    world.end(api);
    expect(world.twice()).toEqual([]);
  });

  test("a removed network's addresses stay with its tasks, also in a new one of the same subnet", () => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    world.service("web", ["front"], { task: { networks: [{ target: "front" }] }, endpoint: { mode: 1 } });
    const old = world.task("web", 1);
    world.settle();
    world.remove("service", id("web"));
    world.remove("network", id("front"));
    world.network("again", "10.0.1.0/29");
    world.service("api", ["again"]);
    const task = world.task("api", 1);
    world.settle();
    expect([world.at(old), world.vips("api"), world.at(task)]).toEqual([
      "PENDING 10.0.1.2/29",
      ["10.0.1.3/29"],
      "PENDING 10.0.1.4/29",
    ]);
  });

  test("a range, a gateway and reserved addresses are kept to", () => {
    const world = new World();
    const ipam = [
      { subnet: "10.0.1.0/24", gateway: "10.0.1.9", ipRange: "10.0.1.8/30", auxAddresses: { printer: "10.0.1.10" } },
    ];
    world.network("front", "10.0.1.0/24", { ipam });
    world.service("web", ["front"], { task: { networks: [{ target: "front" }] }, endpoint: { mode: 1 } });
    const tasks = [1, 2, 3].map((slot) => world.task("web", slot));
    world.settle();
    expect(tasks.map((task) => world.at(task))).toEqual([
      "PENDING 10.0.1.8/24",
      "PENDING 10.0.1.11/24",
      "NEW network front: no free address in 10.0.1.8/30",
    ]);
  });
});

describe("fixed addresses", () => {
  const fixed = (address: string): Spec => ({
    task: { networks: [{ target: "front", addresses: [address] }] },
    endpoint: { mode: 1 },
  });

  test("one that another has is waited for, and it is said who has it", () => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    world.service("web", [], fixed("10.0.1.5"));
    world.service("api", [], fixed("10.0.1.5"));
    const [web, api] = [world.task("web", 1), world.task("api", 1)];
    world.settle();
    expect([world.at(web), world.at(api)]).toEqual([
      "PENDING 10.0.1.5/29",
      "NEW network front: 10.0.1.5 is taken by web.1",
    ]);
    world.end(web);
    world.settle();
    expect(world.at(api)).toBe("PENDING 10.0.1.5/29");
    // The one that ended gives back nothing that is not its own any more.
    world.remove("task", web);
    world.service("other", [], fixed("10.0.1.5"));
    const other = world.task("other", 1);
    world.settle();
    expect(world.at(other)).toBe("NEW network front: 10.0.1.5 is taken by api.1");
    world.restart();
    world.settle();
    expect(world.at(other)).toBe("NEW network front: 10.0.1.5 is taken by api.1");
  });

  test("a task that is to end on a lost node keeps nobody waiting", () => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    world.service("web", [], fixed("10.0.1.5"));
    const first = world.task("web", 1);
    world.settle();
    world.set(first, { nodeId: id("n"), desiredState: TaskState.SHUTDOWN });
    const second = world.task("web", 2);
    world.settle();
    expect(world.at(second)).toBe("NEW network front: 10.0.1.5 is taken by web.1");
    world.put("node", id("n"), create(NodeSchema, { id: id("n"), status: { state: NodeStatus_State.DOWN } }));
    world.settle();
    expect(world.at(second)).toBe("PENDING 10.0.1.5/29");
  });

  test.each([
    ["10.0.9.9", "NEW network front: 10.0.9.9 is not in 10.0.1.0/29"],
    ["10.0.1.1", "NEW network front: 10.0.1.1 is the network's own"],
    ["fd00::1", "NEW network front: has no subnet for fd00::1"],
  ])("%s of a network that has become another", (address, message) => {
    const world = new World();
    world.network("front", "10.0.1.0/29");
    world.service("web", [], fixed(address));
    const task = world.task("web", 1);
    world.settle();
    expect(world.at(task)).toBe(message);
  });
});

test("whatever happens, no address is two's, and none is lost", () => {
  const network = fc.constantFrom("a", "b", "c");
  const service = fc.constantFrom("s", "t", "u");
  const slot = fc.integer({ min: 1, max: 6 });
  const step = fc.oneof(
    fc.record({ do: fc.constant("make network" as const), network }),
    fc.record({ do: fc.constant("remove network" as const), network }),
    fc.record({ do: fc.constant("set service" as const), service, on: fc.uniqueArray(network), mode: fc.nat(1) }),
    fc.record({ do: fc.constant("remove service" as const), service }),
    fc.record({ do: fc.constant("make task" as const), service, slot }),
    fc.record({ do: fc.constant("end task" as const), service, slot }),
    fc.record({ do: fc.constant("remove task" as const), service, slot }),
    fc.record({ do: fc.constant("restart" as const) }),
    fc.record({ do: fc.constant("refuse" as const) }),
  );
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
  const subnets = { a: "10.0.1.0/29", b: "10.0.2.0/29", c: "10.0.3.0/29" };
  const play = (world: World, each: Step) => {
    const key = "slot" in each ? id(`${each.service}${each.slot}t`) : "";
    if (each.do === "make network") {
      if (!world.view.networks.has(id(each.network))) world.network(each.network, subnets[each.network as "a"]);
    } else if (each.do === "remove network") world.remove("network", id(each.network));
    else if (each.do === "set service") {
      const networks = each.on.map((target) => ({ target }));
      world.service(each.service, [], { task: { networks }, endpoint: { mode: each.mode } });
    } else if (each.do === "remove service") world.remove("service", id(each.service));
    else if (each.do === "make task") {
      if (world.view.services.has(id(each.service)) && !world.view.tasks.has(key)) world.task(each.service, each.slot);
    } else if (each.do === "end task") world.end(key);
    else if (each.do === "remove task") world.remove("task", key);
    else if (each.do === "restart") world.restart();
    else world.pass("refused");
  };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const world = new World();
      for (const each of steps) {
        play(world, each);
        world.pass();
        const addresses = world.addresses();
        expect(addresses.length).toBe(new Set(addresses).size);
      }
      for (const key of world.view.tasks.keys()) world.remove("task", key);
      for (const key of world.view.services.keys()) world.remove("service", key);
      for (const [name, subnet] of Object.entries(subnets)) {
        if (!world.view.networks.has(id(name))) world.network(name, subnet);
        world.service("full", [name], { task: { networks: [{ target: name }] }, endpoint: { mode: 1 } });
        const tasks = [1, 2, 3, 4, 5].map((each) => world.task("full", each));
        world.settle();
        expect(tasks.map((task) => world.at(task).split(" ")[0])).toEqual(Array(5).fill("PENDING"));
        for (const task of tasks) world.remove("task", task);
      }
    }),
    { numRuns: 300 },
  );
});
