// Goal: agents get what is theirs, in a chain without gaps, and only the owner's plausible words reach the store.
// Method: a dispatcher over the store in memory and the wire in memory, on a clock that the test moves.
import { create } from "@bufbuild/protobuf";
import { describe, expect, onTestFinished, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { type ClusterId, type NodeId, newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import { seededRandom, systemEntropy } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { createRoot } from "../../common/pki/certificate-authority.ts";
import { createCertificateRequest } from "../../common/pki/certificate-request.ts";
import { generateKeyPair } from "../../common/pki/key-pair.ts";
import { MemoryNetwork } from "../../common/rpc/memory-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import {
  AssignmentChange_Action,
  type AssignmentsMessage,
  AssignmentsMessage_Type,
  Dispatcher as DispatcherService,
  type SessionMessage,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  type ClusterCa,
  ClusterCaSchema,
  ClusterSchema,
  ManagerInfoSchema,
  SpecVersionSchema,
  type Task,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState, TaskStatusSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { aService, aTask, testId } from "../../test/objects.ts";
import { beatOnce } from "../../test/one-beat.ts";
import { ClusterAuthority } from "../ca/cluster-authority.ts";
import { KEY_BYTES } from "../sealing/cluster-key.ts";
import { Sealer } from "../sealing/sealer.ts";
import { LEADER_KEY } from "../store/keys.ts";
import { encodeLeader } from "../store/leader.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import type { Proposal } from "../store/proposal.ts";
import { Dispatcher } from "./dispatcher.ts";

const { signal } = new AbortController();

async function world() {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const random = seededRandom(5);
  const scope = new Scope();
  const warnings: unknown[] = [];
  const silent = () => {};
  const warn = (fields: unknown) => void warnings.push(fields);
  const logger: Logger = { debug: silent, info: silent, warn, error: silent, child: () => logger };
  const store = await openStore({ kv, clock, random, logger }, scope);
  const { lease } = await kv.leaseGrant(3_600_000, signal);
  const managerId = testId();
  const sealer = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy);
  const dispatcher = new Dispatcher({ store, sealer, clock, random, logger, managerId, lease });
  scope.spawn("dispatcher", (until) => dispatcher.run(until));
  const network = new MemoryNetwork({ clock });
  network.serve("manager").addService(DispatcherService, dispatcher.implementation);
  await kv.txn({ compare: [], operations: [{ type: "put", key: LEADER_KEY, value: encodeLeader(managerId) }] }, signal);
  onTestFinished(async () => {
    await scope[Symbol.asyncDispose]();
    kv[Symbol.dispose]();
  });

  /** Moves the clock in small steps until `promise` settles. */
  async function within<T>(promise: Promise<T>, limitMs = 1_000): Promise<T> {
    let settled = false;
    const done = promise.finally(() => {
      settled = true;
    });
    done.catch(() => {});
    for (let passedMs = 0; !settled && passedMs <= limitMs; passedMs++) await clock.advance(1);
    if (!settled) throw new Error(`not settled in ${limitMs} ms`);
    return done;
  }
  const commit = (...proposals: Proposal[]) => within(store.commit(proposals, { signal }));

  function agent(nodeId = testId(), name = `agent-${nodeId}`) {
    const client = createClient(DispatcherService, network.transport(name, "manager"));
    const stop = new AbortController();
    return {
      nodeId,
      client,
      stop,
      /** Registers and reads the first message. */
      async register(run: { readonly instanceId?: string; readonly previousSessionId?: string } = {}) {
        const description = { hostname: "host-1", platform: { os: "linux", architecture: "x86_64" } };
        const stream = client
          .openSession({ nodeId, description, ...run }, { signal: stop.signal })
          [Symbol.asyncIterator]();
        const first: IteratorResult<SessionMessage> = await within(stream.next());
        if (first.done) throw new Error("no session");
        return { sessionId: first.value.sessionId, first: first.value, stream };
      },
      assignments(sessionId: string) {
        const stream = client.watchAssignments({ nodeId, sessionId }, { signal: stop.signal })[Symbol.asyncIterator]();
        return async (): Promise<AssignmentsMessage> => {
          const next = await within(stream.next());
          if (next.done) throw new Error("stream ended");
          return next.value;
        };
      },
    };
  }

  /** A service with one spec version, and tasks of it on `nodeId`. */
  async function service(nodeId: string, tasks: number, state = TaskState.ASSIGNED) {
    const ports = [{ publishedPort: 8080, targetPort: 80 }];
    const object = aService({ ports });
    const spec = create(SpecVersionSchema, {
      serviceId: object.id,
      version: 1n,
      spec: { name: object.name, labels: { tier: "front" }, task: { container: { image: "demo/web:1" } } },
    });
    const made = Array.from({ length: tasks }, (_, index) => taskOf(object.id, nodeId, index + 1, state));
    await commit(
      { type: "create", kind: "service", object },
      { type: "create", kind: "spec", object: spec },
      ...made.map((task): Proposal => ({ type: "create", kind: "task", object: task })),
    );
    return { service: object, tasks: made };
  }
  const taskOf = (serviceId: string, nodeId: string, slot: number, state = TaskState.ASSIGNED) =>
    aTask({ serviceId, nodeId, slot, desiredState: TaskState.RUNNING, status: { state } });
  const current = (task: Task): Task => {
    const found = store.view.tasks.get(task.id);
    if (!found) throw new Error("no such task");
    return found;
  };
  return {
    clock,
    kv,
    store,
    view: store.view,
    dispatcher,
    within,
    commit,
    agent,
    service,
    taskOf,
    current,
    managerId,
    warnings,
  };
}

/** Another cluster's. */
async function newAuthority(nowMs: number): Promise<ClusterCa> {
  const { certificates, key } = await createRoot({ nowMs, entropy: systemEntropy });
  const sealedKey = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy).seal(Buffer.from(key), "ca/key");
  return create(ClusterCaSchema, { root: certificates, sealedKey, clusterId: newId<ClusterId>(seededRandom(10)) });
}

/** What a message says, in a line per change. */
function words({ changes }: AssignmentsMessage): string[] {
  return changes.map(({ action, item }) => {
    const sign = action === AssignmentChange_Action.REMOVE ? "-" : "+";
    return item.case === "task" ? `${sign}task ${item.value.id}` : `${sign}${item.case}`;
  });
}

describe("certificates", () => {
  async function withAuthority() {
    const all = await world();
    const { store, clock, commit } = all;
    await commit({ type: "create", kind: "cluster", object: create(ClusterSchema, { id: "default", spec: {} }) });
    const sealer = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy);
    const options = { store, sealer, clock, random: seededRandom(8), entropy: systemEntropy };
    const authority = new ClusterAuthority(options);
    await all.within(authority.ensure(signal));
    const issue = async (nodeId: string, by = authority) => {
      const subject = {
        kind: "node",
        nodeId: nodeId as NodeId,
        role: "swarm-worker",
        clusterId: by.clusterId,
      } as const;
      const { chain } = await by.issue(subject, await createCertificateRequest(await generateKeyPair()));
      return { certificate: chain, trustedKeys: [...by.certificates.trustedKeyIds] };
    };
    return { ...all, authority, issue };
  }

  test("a session is told which roots to trust, and to renew when it is its turn", async () => {
    const { agent, within, commit, view, authority, issue } = await withAuthority();
    const [one, two] = [agent(), agent()];
    const [first, second] = [await one.register(), await two.register()];
    expect(first.first).toMatchObject({ roots: authority.roots, renewUnder: "" });
    await within(
      one.client.reportCertificate({ nodeId: one.nodeId, sessionId: first.sessionId, ...(await issue(one.nodeId)) }),
    );
    const former = view.nodes.get(one.nodeId)?.certificate?.issuerKey;
    expect(former).toBe(authority.certificates.issuerKeyId);
    const news = [first.stream.next(), second.stream.next()];
    await within(authority.rotate({}, signal));
    for (const next of news)
      expect((await within(next)).value).toMatchObject({ roots: authority.roots, renewUnder: "" });
    const [turn, notYet] = [first.stream.next(), second.stream.next()];
    let isTold = false;
    notYet.then(
      () => {
        isTold = true;
      },
      () => {},
    );
    const node = view.nodes.get(one.nodeId);
    const askedRotation = view.cluster?.ca?.rotation?.id ?? "";
    if (!node?.certificate) throw new Error("no certificate");
    await commit({
      type: "update",
      kind: "node",
      object: { ...node, certificate: { ...node.certificate, askedRotation } },
    });
    expect((await within(turn)).value).toMatchObject({ renewUnder: authority.certificates.issuerKeyId });
    await within(
      one.client.reportCertificate({ nodeId: one.nodeId, sessionId: first.sessionId, ...(await issue(one.nodeId)) }),
    );
    expect(view.nodes.get(one.nodeId)?.certificate).toMatchObject({
      issuerKey: authority.certificates.issuerKeyId,
      askedRotation,
    });
    expect(isTold).toBe(false);
  });

  test("only a node's own certificate of this cluster is believed", async () => {
    const { agent, within, issue, view, store, clock } = await withAuthority();
    const one = agent();
    const { sessionId } = await one.register();
    const tell = (told: { readonly certificate: string; readonly trustedKeys: string[] }) =>
      within(one.client.reportCertificate({ nodeId: one.nodeId, sessionId, ...told }));
    const own = await issue(one.nodeId);
    const refused = (problem: string) => ({ code: "invalid_argument", message: expect.stringContaining(problem) });
    await expect(tell(await issue(testId()))).rejects.toMatchObject(refused("certificate: is another's"));
    await expect(tell({ ...own, certificate: "x" })).rejects.toMatchObject(
      refused("certificate: holds no certificate"),
    );
    await expect(tell({ ...own, trustedKeys: ["x"] })).rejects.toMatchObject(refused("trusted_keys: "));
    await expect(tell({ ...own, trustedKeys: Array(17).fill("a".repeat(64)) })).rejects.toMatchObject(
      refused("trusted_keys: "),
    );
    const cluster = create(ClusterSchema, { id: "x", spec: {}, ca: await newAuthority(clock.nowMs()) });
    const strangers = { view: { ...store.view, cluster }, commit: () => Promise.reject(new Error("not here")) };
    const sealer = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy);
    const other = new ClusterAuthority({
      ...{
        store: strangers as unknown as typeof store,
        sealer,
        clock,
        random: seededRandom(9),
        entropy: systemEntropy,
      },
    });
    await expect(tell(await issue(one.nodeId, other))).rejects.toMatchObject(
      refused("authority that this cluster does not trust"),
    );
    expect(view.nodes.get(one.nodeId)?.certificate).toBeUndefined();
    await tell(own);
    await expect(
      within(one.client.reportCertificate({ nodeId: one.nodeId, sessionId: "gone", ...own })),
    ).rejects.toMatchObject({ code: "failed_precondition" });
  });

  test("many at once share transactions, and nothing new is written twice", async () => {
    const { agent, within, issue, view } = await withAuthority();
    const reports: (() => Promise<unknown>)[] = [];
    for (let count = 0; count < 20; count++) {
      const one = agent();
      const { sessionId } = await one.register();
      const report = { nodeId: one.nodeId, sessionId, ...(await issue(one.nodeId)) };
      reports.push(() => one.client.reportCertificate(report));
    }
    const { revision } = view;
    for (let again = 0; again < 2; again++) {
      await within(Promise.all(reports.map((report) => report())));
      expect(view.revision).toBe(revision + 1);
    }
  });
});

describe("WireGuard keys", () => {
  const key = (number: number) => new Uint8Array(32).fill(number);

  test("a node's key is stored and told to the others, and it is its own alone", async () => {
    const { agent, within, view } = await world();
    const [one, two] = [agent(), agent()];
    const [first, second] = [await one.register(), await two.register()];
    const tell = (from: typeof one, sessionId: string, told: Uint8Array, nodeId = from.nodeId) =>
      within(from.client.reportWireguardKey({ nodeId, sessionId, key: told }));
    const next = two.assignments(second.sessionId);
    await next();
    await tell(one, first.sessionId, key(1));
    const changed = await next();
    expect(changed.changes.map(({ item }) => item.case === "peer" && [...item.value.wireguardKey])).toEqual([
      [...key(1)],
    ]);
    await tell(one, first.sessionId, key(2));
    expect(view.nodes.get(one.nodeId)?.description).toMatchObject({ hostname: "host-1", wireguardKey: key(2) });
    await expect(tell(two, second.sessionId, key(2))).rejects.toMatchObject({ code: "already_exists" });
    await expect(tell(two, second.sessionId, key(3).subarray(1))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(tell(two, first.sessionId, key(3))).rejects.toMatchObject({ code: "failed_precondition" });
  });
});

test("what is in the way of a node's traffic comes and goes within a session, beside its other facts", async () => {
  const { agent, within, view } = await world();
  const one = agent();
  const { sessionId } = await one.register();
  const factsOf = () => view.nodes.get(one.nodeId)?.description?.engine?.facts;
  const others = { ...factsOf() };
  const tell = (network: string, session = sessionId) =>
    within(one.client.reportNetworkFact({ nodeId: one.nodeId, sessionId: session, network }));
  await tell("a firewall");
  expect(factsOf()).toEqual({ ...others, network: "a firewall" });
  const { revision } = view;
  await tell("a firewall");
  expect(view.revision).toBe(revision);
  await expect(tell("x".repeat(1 << 20))).rejects.toMatchObject({ code: "invalid_argument" });
  await expect(tell("", "former")).rejects.toMatchObject({ code: "failed_precondition" });
  await tell("");
  expect(factsOf()).toEqual(others);
});

describe("sessions", () => {
  test("a new node becomes an object with a session on the manager's lease, and learns the cluster", async () => {
    const { agent, view, commit, within, managerId } = await world();
    const one = agent();
    const { first, sessionId, stream } = await one.register();
    expect(view.nodes.get(one.nodeId)).toMatchObject({
      description: { hostname: "host-1" },
      status: { state: NodeStatus_State.UNKNOWN },
    });
    expect(view.sessions.get(one.nodeId)).toMatchObject({ sessionId, managerId });
    expect(first.heartbeatPeriod).toMatchObject({ seconds: 1n });
    // News of another manager reaches the agent without its asking.
    const object = create(ManagerInfoSchema, { id: testId(), address: "10.0.0.9:2377" });
    const news = stream.next();
    await commit({ type: "create", kind: "manager", object });
    expect((await within(news)).value).toMatchObject({ managers: [{ address: "10.0.0.9:2377" }] });
  });

  test("the newest session wins, and the former one ends with a reason", async () => {
    const { agent, within, view } = await world();
    const one = agent();
    const former = await one.register();
    const ended = former.stream.next();
    ended.catch(() => {});
    const newer = await one.register();
    await expect(within(ended)).rejects.toMatchObject({
      code: "failed_precondition",
      message: expect.stringContaining("session invalid"),
    });
    const beat = (sessionId: string) => within(beatOnce(one.client, { nodeId: one.nodeId, sessionId }));
    await expect(beat(former.sessionId)).rejects.toMatchObject({ code: "failed_precondition" });
    await expect(beat(newer.sessionId)).resolves.toBeDefined();
    expect(view.sessions.get(one.nodeId)?.sessionId).toBe(newer.sessionId);
  });

  test("of two agents with one identity the one that began last has the session, while it is there", async () => {
    const { agent, clock, within, view } = await world();
    const one = agent();
    const other = agent(one.nodeId, "its copy");
    const [oneRun, otherRun] = [testId(), testId()];
    const { sessionId: previousSessionId } = await one.register({ instanceId: oneRun });
    const { sessionId } = await other.register({ instanceId: otherRun });
    const again = { instanceId: oneRun, previousSessionId };
    // As often as it asks: it costs the other one nothing.
    for (let count = 0; count < 5; count++) {
      await expect(one.register(again)).rejects.toMatchObject({ code: "already_exists" });
    }
    expect(view.sessions.get(one.nodeId)?.sessionId).toBe(sessionId);
    const beat = () => within(beatOnce(other.client, { nodeId: one.nodeId, sessionId }));
    await expect(beat()).resolves.toBeDefined();
    other.stop.abort();
    await clock.advance(3_100);
    await expect(one.register(again)).resolves.toBeDefined();
  });

  test("a fourth registration within eight seconds is refused, a later one is not", async () => {
    const { agent, clock } = await world();
    const one = agent();
    for (let count = 0; count < 3; count++) await one.register();
    await expect(one.register()).rejects.toMatchObject({ code: "resource_exhausted" });
    await clock.advance(8_000);
    await expect(one.register()).resolves.toBeDefined();
  });

  test("three missed beats end a session and take its key away; beats never touch the store", async () => {
    const { agent, clock, within, view, kv } = await world();
    const one = agent();
    const { sessionId, stream } = await one.register();
    const before = kv.revision;
    for (let beat = 0; beat < 5; beat++) {
      await clock.advance(900);
      await within(beatOnce(one.client, { nodeId: one.nodeId, sessionId }));
    }
    expect(kv.revision).toBe(before);
    const ended = stream.next();
    ended.catch(() => {});
    await clock.advance(2_900);
    expect(view.sessions.has(one.nodeId)).toBe(true);
    await clock.advance(200);
    await expect(within(ended)).rejects.toMatchObject({ code: "failed_precondition" });
    expect(view.sessions.has(one.nodeId)).toBe(false);
  });

  test("a manager that stood still lets beats in that have waited, before it judges", async () => {
    const { agent, clock, within } = await world();
    const one = agent();
    const { sessionId } = await one.register();
    await clock.advance(3_050);
    await within(beatOnce(one.client, { nodeId: one.nodeId, sessionId }));
    await clock.advance(2_900);
    await expect(within(beatOnce(one.client, { nodeId: one.nodeId, sessionId }))).resolves.toBeDefined();
  });

  test("a session that another manager took over ends here", async () => {
    const { agent, within, view, commit } = await world();
    const one = agent();
    const { stream } = await one.register();
    const ended = stream.next();
    ended.catch(() => {});
    const stored = view.sessions.get(one.nodeId);
    const version = view.version("session", one.nodeId);
    if (!stored) throw new Error("no session");
    const object = { ...stored, sessionId: testId(), managerId: testId() };
    await commit({ type: "update", kind: "session", object, version });
    await expect(within(ended)).rejects.toMatchObject({ message: expect.stringContaining("newer one at manager") });
  });

  test.each([
    [{ nodeId: "../../x" }, "node_id"],
    [{ nodeId: "a".repeat(25) }, "description.hostname"],
    [{ nodeId: "a".repeat(25), description: { hostname: "a b" } }, "description.hostname"],
    [
      { nodeId: "a".repeat(25), description: { hostname: "h", engine: { version: "x".repeat(70_000) } } },
      "description",
    ],
  ])("bad registration %#", async (request, field) => {
    const { agent, within, view } = await world();
    const stream = agent().client.openSession(request)[Symbol.asyncIterator]();
    await expect(within(stream.next())).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(field),
    });
    expect(view.nodes.size).toBe(0);
  });
});

describe("assignments", () => {
  test("first everything, then what changed, each message on top of the one before", async () => {
    const { agent, service, commit, current, taskOf } = await world();
    const one = agent();
    const { tasks, service: web } = await service(one.nodeId, 2);
    await service(testId(), 1);
    const { sessionId } = await one.register();
    const next = one.assignments(sessionId);
    const complete = await next();
    expect(complete).toMatchObject({ type: AssignmentsMessage_Type.COMPLETE, resultsIn: "1" });
    expect(complete.epoch).toBeGreaterThan(0n);
    // Published ports are everybody's, and so are the tasks of other nodes that serve them.
    const published = ["+endpoint", "+endpoint", "+taskEndpoint"];
    expect(words(complete)).toEqual([...published, "+template", ...tasks.map(({ id }) => `+task ${id}`)]);
    const template = complete.changes[published.length]?.item;
    expect(template).toMatchObject({
      value: { serviceName: web.name, serviceLabels: { tier: "front" }, spec: { container: { image: "demo/web:1" } } },
    });
    const third = taskOf(web.id, one.nodeId, 3);
    await commit({ type: "create", kind: "task", object: third });
    const more = await next();
    expect(more).toMatchObject({ type: AssignmentsMessage_Type.INCREMENTAL, appliesTo: "1", resultsIn: "2" });
    expect(words(more)).toEqual([`+task ${third.id}`]);
    // All tasks go: the template and the endpoint go after the last.
    await commit(
      ...[...tasks, third].map((task): Proposal => {
        const { meta } = current(task);
        return { type: "delete", kind: "task", id: task.id, version: meta?.version };
      }),
    );
    const last = await next();
    expect(last).toMatchObject({ appliesTo: "2", resultsIn: "3" });
    expect(words(last).sort()).toEqual(["-template", ...[...tasks, third].map(({ id }) => `-task ${id}`)].sort());
  });

  test("a task to be removed is sent until it has ended; the agent's own words do not come back", async () => {
    const { agent, service, commit, current, within } = await world();
    const one = agent();
    const { tasks } = await service(one.nodeId, 1, TaskState.RUNNING);
    const [task] = tasks;
    if (!task) throw new Error("no task");
    const { sessionId } = await one.register();
    const next = one.assignments(sessionId);
    await next();
    const object = { ...current(task), desiredState: TaskState.REMOVE };
    await commit({ type: "update", kind: "task", object });
    const stop = await next();
    expect(words(stop)).toEqual([`+task ${task.id}`]);
    const status = { state: TaskState.SHUTDOWN, message: "shutdown" };
    const answer = await within(
      one.client.updateTaskStatus({ nodeId: one.nodeId, sessionId, updates: [{ taskId: task.id, status }] }),
    );
    expect(answer.refused).toEqual([]);
    expect(words(await next())).toEqual([`-task ${task.id}`, "-template"]);
  });

  test("what happens while an agent does not read becomes one message", async () => {
    const { agent, service, commit, taskOf, clock } = await world();
    const one = agent();
    const { service: web } = await service(one.nodeId, 1);
    const { sessionId } = await one.register();
    const next = one.assignments(sessionId);
    await next();
    const made: Task[] = [];
    for (let slot = 2; slot < 40; slot++) {
      const object = taskOf(web.id, one.nodeId, slot);
      made.push(object);
      await commit({ type: "create", kind: "task", object });
    }
    await clock.advance(100);
    let count = 0;
    let messages = 0;
    while (count < made.length) {
      count += (await next()).changes.length;
      messages++;
    }
    expect(count).toBe(made.length);
    expect(messages).toBeLessThan(made.length);
  });

  test("a task whose service is gone is stopped, but never begun", async () => {
    const { agent, service, view, current, commit } = await world();
    const one = agent();
    const { tasks, service: web } = await service(one.nodeId, 2);
    const [first, second] = tasks;
    if (!first || !second) throw new Error("no tasks");
    const object = { ...current(first), desiredState: TaskState.REMOVE };
    await commit(
      { type: "update", kind: "task", object },
      { type: "delete", kind: "service", id: web.id },
      { type: "delete", kind: "spec", id: `${web.id}/0000000001` },
    );
    expect(view.services.size).toBe(0);
    const { sessionId } = await one.register();
    expect(words(await one.assignments(sessionId)())).toEqual(["+template", `+task ${first.id}`]);
  });
});

describe("statuses", () => {
  test("only the owner's moves that the table has are stored; the rest is refused with a reason", async () => {
    const { agent, service, within, view, clock, warnings } = await world();
    const one = agent();
    const { tasks } = await service(one.nodeId, 2);
    const { tasks: foreign } = await service(testId(), 1);
    const [first, second] = tasks;
    const [other] = foreign;
    if (!first || !second || !other) throw new Error("no tasks");
    const { sessionId } = await one.register();
    const say = (taskId: string, state: number) => ({ taskId, status: create(TaskStatusSchema, { state }) });
    const send = (...updates: ReturnType<typeof say>[]) =>
      within(one.client.updateTaskStatus({ nodeId: one.nodeId, sessionId, updates }));
    const answer = await send(
      say(first.id, TaskState.RUNNING),
      say(second.id, TaskState.NEW),
      say(other.id, TaskState.RUNNING),
      say(testId(), TaskState.RUNNING),
      say(second.id, 600),
    );
    expect(answer.refused.map(({ reason }) => reason)).toEqual([
      "assigned does not become new",
      "not a task of this node",
      "no such task",
      "no such state",
    ]);
    expect(view.tasks.get(other.id)?.status?.state).toBe(TaskState.ASSIGNED);
    expect(warnings).toEqual([{ nodeId: one.nodeId, tasks: [other.id], count: 1 }]);
    expect(view.tasks.get(first.id)?.status?.state).toBe(TaskState.RUNNING);
    expect(view.tasks.get(second.id)?.status?.state).toBe(TaskState.ASSIGNED);
    expect((await send(say(first.id, TaskState.STARTING))).refused).toHaveLength(1);
    await clock.advance(10_000);
    await expect(send(say(first.id, TaskState.FAILED))).rejects.toMatchObject({ code: "failed_precondition" });
    expect(view.tasks.get(first.id)?.status?.state).toBe(TaskState.RUNNING);
  });

  test("a status survives a manager's write to the same task, and many share a transaction", async () => {
    const { agent, service, within, view, current, store, kv } = await world();
    const one = agent();
    const { tasks } = await service(one.nodeId, 50);
    const [first] = tasks;
    if (!first) throw new Error("no task");
    const { sessionId } = await one.register();
    const updates = tasks.map(({ id }) => ({ taskId: id, status: { state: TaskState.RUNNING } }));
    const before = kv.revision;
    const reported = one.client.updateTaskStatus({ nodeId: one.nodeId, sessionId, updates });
    const object = { ...current(first), desiredState: TaskState.SHUTDOWN };
    const stopped = store.commit([{ type: "update", kind: "task", object }], { signal, wait: false });
    expect((await within(reported)).refused).toEqual([]);
    await within(stopped);
    expect(view.tasks.get(first.id)).toMatchObject({
      desiredState: TaskState.SHUTDOWN,
      status: { state: TaskState.RUNNING },
    });
    expect(kv.revision - before).toBeLessThan(6);
  });
});
