/**
 * Goal: a plan says what a deploy does, no more and no less; and a stack that a manager left half applied is finished. Method:
 * the pure deciders over a store of memory, tables and generated stacks; the leader's loop with a clock that is stepped.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { ObjectPlan_Action, type StackRequest, StackRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  ContentVersionSchema,
  Stack_State,
  StackRevisionSchema,
  StackSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { testId } from "../../test/objects.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import type { ProposalGroup } from "../store/proposal.ts";
import type { Store } from "../store/store.ts";
import type { FileContext } from "./files.ts";
import { diffMessages } from "./message-diff.ts";
import { type PlannedStack, planStack, staleness } from "./plan.ts";
import { StackKeeper } from "./stack-keeper.ts";
import { packContent } from "./stack-view.ts";
import { allSteps, remainingSteps } from "./steps.ts";

const random = seededRandom(3);
const context: FileContext = {
  random,
  contentVersion: (_, of) => create(ContentVersionSchema, { ...of, fingerprint: of.data }),
  isContent: (_, { fingerprint }, data) => Buffer.compare(fingerprint, data) === 0,
};
let scope: Scope;
let store: Store;

beforeEach(async () => {
  scope = new Scope();
  const kv = new MemoryKv(systemClock);
  store = await openStore({ kv, clock: systemClock, random, logger: silentLogger }, scope);
});
afterEach(async () => {
  await scope[Symbol.asyncDispose]();
});

type Init = Exclude<MessageInitShape<typeof ServiceSpecSchema>, ServiceSpec>;

function service(name: string, init: Init = {}): ServiceSpec {
  const task = { container: { image: "demo/web:1" } };
  return create(ServiceSpecSchema, {
    name,
    mode: { mode: { case: "replicated", value: { replicas: 1n } } },
    task,
    ...init,
  });
}

function request(services: readonly ServiceSpec[], more: { readonly prune?: boolean } = {}): StackRequest {
  return create(StackRequestSchema, { spec: { name: "shop", services: [...services] }, ...more });
}

async function commit(groups: readonly ProposalGroup[]): Promise<void> {
  const { conflicts } = await store.commit(groups, { signal: scope.signal });
  expect(conflicts).toEqual([]);
}

/** Does what a deploy does, in one transaction. */
async function apply(wanted: StackRequest): Promise<PlannedStack> {
  const planned = planStack(store.view, wanted, context);
  expect(planned.problems).toEqual([]);
  const files: ProposalGroup[] = planned.versions.map((object) => ({ type: "create", kind: "content", object }));
  const steps = allSteps(store.view, planned.content, { nowMs: 0, random });
  await commit([...files, ...(steps.length > 0 ? [steps] : [])]);
  if (!store.view.byName("stack", "shop")) {
    const object = create(StackSchema, { id: testId(), name: "shop", revision: 1n, state: Stack_State.APPLIED });
    await commit([{ type: "create", kind: "stack", object }]);
  }
  return planned;
}

function actions({ objects }: PlannedStack): string[] {
  return objects.map(({ kind, name, action }) => `${kind} ${name} ${ObjectPlan_Action[action]}`);
}

describe("a change", () => {
  const task = { container: { image: "demo/web:2", env: ["A=1", "B=2"] } };
  const present = { container: { image: "demo/web:1", env: ["A=1", "B=1"] } };
  test.each<[string, Init, string, readonly string[]]>([
    ["nothing", {}, "UNCHANGED", []],
    ["image, variable", { task }, "REPLACE_TASKS", ["env.B: 1 → 2", "image: demo/web:1 → demo/web:2"]],
    ["label", { labels: { tier: "web" } }, "UPDATE_IN_PLACE", ["labels.tier: (none) → web"]],
    [
      "count",
      { mode: { mode: { case: "replicated", value: { replicas: 3n } } } },
      "UPDATE_IN_PLACE",
      ["replicas: 1 → 3"],
    ],
    [
      "port",
      { endpoint: { ports: [{ targetPort: 80, publishedPort: 8080 }] } },
      "UPDATE_IN_PLACE",
      ["ports[80/tcp].publishedPort: (none) → 8080", "ports[80/tcp].targetPort: (none) → 80"],
    ],
    ["duration", { update: { delay: { seconds: 10n } } }, "UPDATE_IN_PLACE", ["update.delay: (none) → 10s"]],
  ])("of %s", async (_, change, action, fields) => {
    await apply(request([service("shop_web", { task: present })]));
    const planned = planStack(store.view, request([service("shop_web", { task: present, ...change })]), context);
    const [object] = planned.objects;
    expect(object && ObjectPlan_Action[object.action]).toBe(action);
    expect(
      object?.changes.map(({ path, before: from, after }) => `${path}: ${from ?? "(none)"} → ${after ?? "(none)"}`),
    ).toEqual(fields);
  });

  test("of a registry's token shows no token", () => {
    const withToken = (registryAuth: string) =>
      service("web", { task: { container: { image: "demo/web:1", pullOptions: { registryAuth } } } });
    expect(JSON.stringify(diffMessages(ServiceSpecSchema, withToken("old-token"), withToken("new-token")))).toBe(
      JSON.stringify([
        { $typeName: "swarm.v1.FieldChange", path: "registryAuth", before: "(hidden)", after: "(hidden)" },
      ]),
    );
  });
});

test("what the file has no more stays, unless it is pruned; what others have is refused", async () => {
  await apply(request([service("shop_web"), service("shop_old")]));
  expect(actions(planStack(store.view, request([service("shop_web")]), context))).toEqual([
    "service shop_web UNCHANGED",
    "service shop_old KEEP",
  ]);
  await apply(request([service("shop_web")], { prune: true }));
  expect([...store.view.services.values()].map(({ name }) => name)).toEqual(["shop_web"]);
  const other = create(StackRequestSchema, { spec: { name: "other", services: [service("shop_web")] } });
  expect(planStack(store.view, other, context).problems).toEqual([
    { field: "services.shop_web", problem: "a service of this name is there already and belongs to stack shop" },
  ]);
});

test("a plan's base tells what has changed since", async () => {
  const { base } = planStack(store.view, request([service("shop_web")]), context);
  expect(staleness(base, base)).toEqual([]);
  await apply(request([service("shop_web")]));
  const now = planStack(store.view, request([service("shop_web")]), context).base;
  expect(staleness(base, now)).toEqual(["stack shop was created", "service shop_web was created"]);
});

test("a secret's new content replaces the tasks that use it, and only those", async () => {
  const secrets = (data: string) => [{ name: "shop_key", data: Buffer.from(data) }];
  const user = service("shop_web", {
    task: { container: { image: "demo/web:1", secrets: [{ secretName: "shop_key" }] } },
  });
  const wanted = (data: string) =>
    create(StackRequestSchema, {
      spec: { name: "shop", services: [user, service("shop_side")], secrets: secrets(data) },
    });
  await apply(wanted("one"));
  expect(planStack(store.view, wanted("one"), context).changes).toBe(false);
  const planned = await apply(wanted("two"));
  expect(actions(planned)).toEqual([
    "service shop_web REPLACE_TASKS",
    "service shop_side UNCHANGED",
    "secret shop_key UPDATE_IN_PLACE",
  ]);
  expect(planStack(store.view, wanted("two"), context).changes).toBe(false);
  const web = store.view.serviceByName("shop_web");
  expect(store.view.specVersion(web?.id ?? "", 2n)?.pins).toMatchObject([{ version: 2n }]);
});

/** Any services that the API takes. */
const someServices = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"), { maxLength: 4 }).chain((names) =>
  fc.tuple(
    ...names.map((name) =>
      fc.record({
        name: fc.constant(`shop_${name}`),
        image: fc.constantFrom("demo/web:1", "demo/web:2"),
        env: fc.uniqueArray(fc.constantFrom("A=1", "B=2", "C="), { maxLength: 3 }),
        replicas: fc.nat(3),
        tier: fc.constantFrom("x", "y"),
      }),
    ),
  ),
);

test("property: what was applied plans no change", async () => {
  const step = fc.tuple(someServices, fc.boolean());
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 4 }), async (deploys) => {
      for (const [services, prune] of deploys) {
        const wanted = request(
          services.map(({ name, image, env, replicas, tier }) =>
            service(name, {
              labels: { tier },
              task: { container: { image, env } },
              mode: { mode: { case: "replicated", value: { replicas: BigInt(replicas) } } },
            }),
          ),
          { prune },
        );
        await apply(wanted);
        expect(planStack(store.view, wanted, context).changes).toBe(false);
        expect(
          remainingSteps(store.view, planStack(store.view, wanted, context).content, { nowMs: 0, random }),
        ).toEqual([]);
      }
    }),
    { numRuns: 25, seed: 11 },
  );
});

test("the leader finishes a stack that its manager left half applied, and then leaves it alone", async () => {
  const services = ["a", "b", "c"].map((name) => service(`shop_${name}`));
  await apply(request([service("shop_old")]));
  const stack = store.view.byName("stack", "shop");
  if (!stack) throw new Error("no stack");
  const planned = planStack(store.view, request(services, { prune: true }), context);
  const [first = []] = remainingSteps(store.view, planned.content, { nowMs: 0, random });
  const revision = create(StackRevisionSchema, {
    stackId: stack.id,
    revision: 2n,
    content: packContent(planned.content),
  });
  await commit([
    [
      { type: "create", kind: "stackrevision", object: revision },
      { type: "update", kind: "stack", object: { ...stack, revision: 2n, state: Stack_State.APPLYING } },
    ],
    first,
  ]);
  // The manager that was asked dies here.
  const nowMs = systemClock.nowMs();
  const keeper = (atMs: number) =>
    new StackKeeper({ clock: { ...systemClock, nowMs: () => atMs }, random, logger: silentLogger });
  const young = keeper(nowMs).decide(store.view, [stack.id]);
  expect(young.groups).toEqual([]);
  expect(young.wakeups).toHaveLength(1);
  for (let pass = 0; pass < 3; pass++) {
    await commit(keeper(nowMs + 60_000).decide(store.view, [stack.id]).groups);
  }
  expect([...store.view.services.values()].map(({ name }) => name).toSorted()).toEqual(["shop_a", "shop_b", "shop_c"]);
  expect(store.view.byName("stack", "shop")?.state).toBe(Stack_State.APPLIED);
  expect(keeper(nowMs + 60_000).decide(store.view, [stack.id])).toEqual({ groups: [], wakeups: [] });
});

test("ten revisions are kept, and none of a stack that is gone", async () => {
  const [kept, gone] = [testId(), testId()];
  await commit([
    { type: "create", kind: "stack", object: create(StackSchema, { id: kept, name: "kept", revision: 12n }) },
  ]);
  await commit(
    [kept, gone].flatMap((stackId) =>
      Array.from({ length: 12 }, (_, index): ProposalGroup => {
        const object = create(StackRevisionSchema, { stackId, revision: BigInt(index + 1) });
        return { type: "create", kind: "stackrevision", object };
      }),
    ),
  );
  const keeper = new StackKeeper({ clock: systemClock, random, logger: silentLogger });
  await commit(keeper.decide(store.view, [kept, gone]).groups);
  expect(store.view.versionsOf("stackrevision", kept).map((each) => each.revision)[0]).toBe(3n);
  expect(store.view.versionsOf("stackrevision", kept)).toHaveLength(10);
  expect(store.view.versionsOf("stackrevision", gone)).toEqual([]);
});

test("services of a stack that would wait for one another for ever are refused", () => {
  const waits = (...names: readonly string[]) => ({ dependsOn: names.map((each) => ({ service: each })) });
  const services = [service("shop_web", waits("shop_db")), service("shop_db", waits("shop_cache"))];
  const fine = planStack(store.view, request([...services, service("shop_cache")]), context);
  expect(fine.problems).toEqual([]);
  const circle = planStack(store.view, request([...services, service("shop_cache", waits("shop_web"))]), context);
  expect(circle.problems).toEqual([
    {
      field: "depends_on",
      problem: "services wait for one another: shop_web -> shop_db -> shop_cache -> shop_web",
    },
  ]);
});
