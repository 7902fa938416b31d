/**
 * A whole control plane in one process, for tests of the API and of swarmctl: the real store, loops and Control over the
 * in-memory Kv, served on a unix socket by the real gRPC server. Nodes are played: a task that reaches one runs at once,
 * unless its image says otherwise (`FATES`).
 */

import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, equals } from "@bufbuild/protobuf";
import { systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { type ManagerId, type NodeId, newId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { toDuration, toTimestamp } from "../common/model/duration.ts";
import { canonicalName } from "../common/model/image-reference.ts";
import { isTerminal } from "../common/model/task-state.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import type { MutualTls } from "../common/rpc/tls.ts";
import { ClusterAuthority } from "../manager/ca/cluster-authority.ts";
import { caCertificates } from "../manager/ca/cluster-ca.ts";
import { ManagerIdentity } from "../manager/ca/manager-identity.ts";
import { createControl } from "../manager/control/control.ts";
import type { ImageBlobs } from "../manager/control/dependencies.ts";
import { Audit } from "../manager/guard/audit.ts";
import { AuditFile } from "../manager/guard/audit-file.ts";
import { gatheredAudits } from "../manager/guard/audit-gathering.ts";
import { guardControl } from "../manager/guard/guard.ts";
import { runLeader } from "../manager/leader.ts";
import { openMembersDoor } from "../manager/members-door.ts";
import { KEY_BYTES } from "../manager/sealing/cluster-key.ts";
import { Sealer } from "../manager/sealing/sealer.ts";
import { runElection } from "../manager/store/election.ts";
import { MemoryKv } from "../manager/store/memory-kv.ts";
import { openStore } from "../manager/store/open-store.ts";
import type { Store } from "../manager/store/store.ts";
import {
  Control,
  ExecEndedSchema,
  type ExecResponse,
  ExecResponseSchema,
  LogMessage_Stream,
  LogMessageSchema,
  LogMessagesSchema,
  TaskUsageSchema,
} from "../proto/gen/swarm/v1/control_pb.js";
import { type AgentFrame, AgentFrameSchema, type ManagerFrame } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  ClusterSchema,
  ManagerInfoSchema,
  type NodeCertificate,
  NodeCertificateSchema,
  NodeSchema,
  SessionSchema,
  type Task,
} from "../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState, TaskStatusSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { playCopy } from "./play-copy.ts";

/** What becomes of a task of an image, by a word in the image's name. */
const FATES: Readonly<
  Record<string, { readonly state: TaskState; readonly error: string; readonly exitCode: number }>
> = {
  missing: { state: TaskState.REJECTED, error: "no such image: registry says 404", exitCode: 0 },
  crashing: { state: TaskState.FAILED, error: "task: non-zero exit (3)", exitCode: 3 },
  oneshot: { state: TaskState.COMPLETE, error: "", exitCode: 0 },
};

export interface ControlPlane extends AsyncDisposable {
  /** For `--host`. */
  readonly host: string;
  /** What every task has for its files (`play-copy.ts`). */
  readonly files: string;
  readonly store: Store;
  readonly audit: Audit;
  readonly signal: AbortSignal;
  /** Serves the API on a free port of 127.0.0.1 as well, over TLS; answers the address. */
  serveTls(tls: MutualTls): Promise<string>;
  /** Serves it under the cluster's own certificates, as managers' port does; answers the address, which the store has too. */
  serveMembers(): Promise<string>;
}

/** Starts one with `nodes` ready nodes named node-1, node-2, … */
export async function startControlPlane(options: { readonly nodes: number }): Promise<ControlPlane> {
  const folder = await mkdtemp(join(tmpdir(), "swarm-control-"));
  await mkdir(join(folder, "files"));
  const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };
  const scope = new Scope();
  const kv = new MemoryKv(systemClock);
  const store = await openStore({ kv, ...shared }, scope);
  const managerId = newId<ManagerId>(systemRandom);
  const cluster = create(ClusterSchema, {
    id: "default",
    spec: { addressPool: "10.224.0.0/12", heartbeatPeriod: toDuration(1_000), taskHistoryLimit: 5 },
  });
  await store.commit([{ type: "create", kind: "cluster", object: cluster }], { signal: scope.signal });
  await addNodes(store, options.nodes, scope.signal);
  scope.spawn("leader", (signal) =>
    runElection({ kv, ...shared, managerId }, (fence) => runLeader({ store, fence, ...shared }, fence.signal), signal),
  );
  scope.spawn("nodes", (signal) => playNodes(store, signal));
  scope.spawn("volumes", (signal) => playVolumes(store, signal));
  scope.spawn("certificates", (signal) => playCertificates(store, signal));
  const server = new GrpcServer({ logger: silentLogger, identity: { kind: "host" } });
  const remotes: GrpcServer[] = [];
  const sealer = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy);
  const authority = new ClusterAuthority({ store, sealer, entropy: systemEntropy, ...shared });
  const auditFile = new AuditFile({ path: join(folder, "audit.log"), clock: systemClock, logger: silentLogger });
  const audit = new Audit({ view: store.view, ...shared, managerId, store: auditFile });
  const unguarded = createControl({
    audits: gatheredAudits({ view: store.view, clock: systemClock, managerId, audit, peers: undefined }),
    store,
    isInTouch: () => true,
    authority,
    blobs: new MemoryBlobs(),
    registry: {
      digestOf: async (reference) => `sha256:${createHash("sha256").update(canonicalName(reference)).digest("hex")}`,
    },
    logs: { subscribe: () => sayHello(store) },
    streams: {
      open: ({ taskId }, outgoing) =>
        taskId === undefined ? playStats(store, outgoing) : playTask(join(folder, "files"), outgoing),
    },
    sealer,
    entropy: systemEntropy,
    managerId,
    version: "0.0.0-test",
    ...shared,
  });
  const control = guardControl(unguarded, { view: store.view, audit });
  server.addService(Control, control);
  const address = await server.listen(`unix:${join(folder, "manager.sock")}`);
  return {
    host: address.replace(/^unix:/, "unix://"),
    files: join(folder, "files"),
    store,
    audit,
    signal: scope.signal,
    async serveTls(tls) {
      const identify = () => ({ kind: "operator", name: "CN=operator" }) as const;
      const remote = new GrpcServer({ logger: silentLogger, tls, identify });
      remotes.push(remote);
      remote.addService(Control, control);
      return await remote.listen("127.0.0.1:0");
    },
    async serveMembers() {
      await authority.ensure(scope.signal);
      let certificate: NodeCertificate | undefined;
      const identity = await ManagerIdentity.open({
        ...{ ...shared, authority, directory: join(folder, "identity"), hosts: ["localhost"] },
        nodeId: managerId as string as NodeId,
        announce(told) {
          certificate = told;
        },
      });
      const door = openMembersDoor({ identity, view: store.view, audit, logger: silentLogger });
      remotes.push(door);
      door.addService(Control, control);
      const bound = await door.listen("127.0.0.1:0");
      const object = create(ManagerInfoSchema, {
        id: managerId,
        address: bound,
        hostname: "manager",
        ...(certificate && { certificate }),
      });
      await store.commit([{ type: "create", kind: "manager", object }], { signal: scope.signal });
      return bound;
    },
    async [Symbol.asyncDispose]() {
      for (const each of [server, ...remotes]) await each[Symbol.asyncDispose]();
      await scope[Symbol.asyncDispose]();
      auditFile[Symbol.dispose]();
      kv[Symbol.dispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** What a task is asked for: files of `folder`, or a command. */
async function* playTask(
  folder: string,
  outgoing: AsyncIterable<ManagerFrame>,
): AsyncGenerator<AgentFrame, void, undefined> {
  const incoming = outgoing[Symbol.asyncIterator]();
  const { value: first } = await incoming.next();
  if (first?.content.case === "copy") return yield* playCopy(folder, first.content.value, incoming);
  yield* playCommand(
    (async function* () {
      if (first) yield first;
      yield* { [Symbol.asyncIterator]: () => incoming };
    })(),
  );
}

/** Plays a command in a task: `echo`, `cat`, `exit CODE`, `missing`, and `size`, which tells its terminal's. */
async function* playCommand(outgoing: AsyncIterable<ManagerFrame>): AsyncGenerator<AgentFrame, void, undefined> {
  const say = (content: ExecResponse["content"]) =>
    create(AgentFrameSchema, { content: { case: "exec", value: create(ExecResponseSchema, { content }) } });
  const end = (exitCode: number, error = "") =>
    say({ case: "ended", value: create(ExecEndedSchema, { exitCode, error }) });
  for await (const { content } of outgoing) {
    const request = content.case === "exec" ? content.value.content : undefined;
    if (request?.case === "stdin") yield say({ case: "stdout", value: request.value });
    if (request?.case === "stdinEnd") yield end(0);
    if (request?.case === "stdinEnd") return;
    if (request?.case !== "start") continue;
    const { args, env, user, dir, tty, size, stdin, detach } = request.value;
    const [program = "", ...words] = args;
    if (program === "missing") yield end(127, `exec: "missing": executable file not found in $PATH`);
    if (program === "missing") return;
    yield say({ case: "started", value: true });
    if (detach) return;
    if (program === "cat" && stdin) continue;
    const told = program === "size" ? [tty, size?.rows, size?.columns] : [...words, ...env, user, dir];
    if (program === "exit") yield say({ case: "stderr", value: Buffer.from("going\n") });
    else yield say({ case: "stdout", value: Buffer.from(`${told.join(" ").trim()}\n`) });
    yield end(program === "exit" ? Number(words[0]) : 0);
    return;
  }
}

/** Every task uses half a processor and 12 of 64 MiB; one on the host's network has no link of its own. */
async function* playStats(
  store: Store,
  outgoing: AsyncIterable<ManagerFrame>,
): AsyncGenerator<AgentFrame, void, undefined> {
  for await (const { content } of outgoing) {
    const taskIds = content.case === "stats" ? content.value.taskIds : [];
    const monotonicNanos = BigInt(Math.round(systemClock.monotonicMs() * 1e6));
    const tasks = taskIds.map((taskId) => {
      const { serviceId = "", specVersion = 0n } = store.view.tasks.get(taskId) ?? {};
      const networks = store.view.specVersion(serviceId, specVersion)?.spec?.task?.networks ?? [];
      return create(TaskUsageSchema, {
        ...{ taskId, monotonicNanos, cpuNanos: monotonicNanos / 2n, pids: 3n },
        ...{ memoryBytes: 12n << 20n, memoryLimitBytes: 64n << 20n, block: { in: 4_100_000n, out: 0n } },
        ...(networks[0]?.target !== "host" && { network: { in: 1_430n, out: 850n } }),
      });
    });
    yield create(AgentFrameSchema, { content: { case: "stats", value: { tasks } } });
  }
}

async function addNodes(store: Store, count: number, signal: AbortSignal): Promise<void> {
  for (let number = 1; number <= count; number++) {
    const id = newId<NodeId>(systemRandom);
    const node = create(NodeSchema, {
      id,
      spec: { labels: number === 1 ? { zone: "a" } : {} },
      description: {
        hostname: `node-${number}`,
        platform: { architecture: "x86_64", os: "linux" },
        resources: { nanoCpus: 4_000_000_000n, memoryBytes: 8n * 1024n ** 3n },
        engine: { version: "0.1.0" },
      },
      status: { state: NodeStatus_State.READY, address: `10.0.0.${number}` },
    });
    const session = create(SessionSchema, { nodeId: id, sessionId: newId(systemRandom), managerId: "m" });
    await store.commit(
      [
        { type: "create", kind: "node", object: node },
        { type: "create", kind: "session", object: session },
      ],
      { signal },
    );
  }
}

/** Moves every assigned task to where its image and its desired state lead. */
async function playNodes(store: Store, signal: AbortSignal): Promise<void> {
  for await (const changes of store.view.changes(signal)) {
    const moved = changes.flatMap((change) => {
      const task = change.kind === "task" ? store.view.tasks.get(change.id) : undefined;
      const next = task && nextStatus(store, task);
      return task && next ? [{ ...task, status: next }] : [];
    });
    if (moved.length === 0) continue;
    // A refused one comes back with the change that refused it.
    await store.commit(
      moved.map((object) => ({ type: "update" as const, kind: "task" as const, object })),
      { signal },
    );
  }
}

/** Nodes that are there delete the volumes that were removed. */
async function playVolumes(store: Store, signal: AbortSignal): Promise<void> {
  for await (const changes of store.view.changes(signal)) {
    for (const { kind, id } of changes) {
      const copies = kind === "nodevolumes" ? store.view.nodeVolumes.get(id) : undefined;
      const isReady = store.view.nodes.get(id)?.status?.state === NodeStatus_State.READY;
      if (!copies?.volumes.some(({ removing }) => removing) || !isReady) continue;
      const volumes = copies.volumes.filter(({ removing }) => !removing);
      const version = store.view.version("nodevolumes", id) ?? 0n;
      await store.commit([{ type: "update", kind: "nodevolumes", object: { ...copies, volumes }, version }], {
        signal,
      });
    }
  }
}

/** Nodes that are there renew when they are asked to, and trust what they are told. */
async function playCertificates(store: Store, signal: AbortSignal): Promise<void> {
  for await (const changes of store.view.changes(signal)) {
    const ca = store.view.cluster?.ca;
    if (ca === undefined || !changes.some(({ kind }) => kind === "node" || kind === "cluster")) continue;
    const { issuerKeyId, trustedKeyIds } = caCertificates(ca);
    for (const node of store.view.nodes.values()) {
      if (!store.view.sessions.has(node.id)) continue;
      const { issuerKey, askedRotation = "" } = node.certificate ?? {};
      const isAsked = ca.rotation === undefined || askedRotation === ca.rotation.id;
      const certificate = create(NodeCertificateSchema, {
        issuerKey: issuerKey && !isAsked ? issuerKey : issuerKeyId,
        trustedKeys: [...trustedKeyIds],
        notAfter: toTimestamp(1_900_000_000_000),
        askedRotation,
      });
      if (node.certificate && equals(NodeCertificateSchema, node.certificate, certificate)) continue;
      await store.commit([{ type: "update", kind: "node", object: { ...node, certificate } }], { signal });
    }
  }
}

function nextStatus(store: Store, task: Task) {
  const state = task.status?.state ?? TaskState.NEW;
  if (state < TaskState.ASSIGNED || isTerminal(state)) return undefined;
  const timestamp = toTimestamp(systemClock.nowMs());
  const become = (next: TaskState, error = "", exitCode = 0) =>
    create(TaskStatusSchema, { state: next, timestamp, message: "played", error, container: { exitCode } });
  if (task.desiredState > TaskState.RUNNING) return become(TaskState.SHUTDOWN);
  if (task.desiredState < TaskState.RUNNING) return state < TaskState.READY ? become(TaskState.READY) : undefined;
  const image = store.view.specVersion(task.serviceId, task.specVersion)?.spec?.task?.container?.image ?? "";
  const fate = Object.entries(FATES).find(([word]) => image.includes(word))?.[1];
  if (fate !== undefined) return become(fate.state, fate.error, fate.exitCode);
  return state < TaskState.RUNNING ? become(TaskState.RUNNING) : undefined;
}

/** Each running task has said hello once. */
async function* sayHello(store: Store) {
  const messages = [...store.view.tasks.values()]
    .filter((task) => task.status?.state === TaskState.RUNNING)
    .map((task) =>
      create(LogMessageSchema, {
        taskId: task.id,
        nodeId: task.nodeId,
        timestamp: toTimestamp(1_700_000_000_000),
        stream: LogMessage_Stream.STDOUT,
        data: Buffer.from("hello"),
      }),
    );
  yield create(LogMessagesSchema, { messages });
}

/** Blobs in memory, as strict as those on disk. */
class MemoryBlobs implements ImageBlobs {
  readonly #blobs = new Map<string, Buffer>();

  async missing(digests: readonly string[]): Promise<readonly string[]> {
    return digests.filter((digest) => !this.#blobs.has(digest));
  }

  async put(
    { digest, sizeBytes }: { readonly digest: string; readonly sizeBytes: number },
    data: AsyncIterable<Uint8Array>,
  ): Promise<void> {
    const bytes = Buffer.concat(await Array.fromAsync(data));
    const actual = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    if (bytes.length !== sizeBytes || actual !== digest) {
      throw new SwarmError("invalid_argument", `put blob ${digest}: size or digest differs`);
    }
    this.#blobs.set(digest, bytes);
  }

  async *open(digest: string, offset: number): AsyncGenerator<Uint8Array, void, undefined> {
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) throw new SwarmError("not_found", `no such blob: ${digest}`);
    yield bytes.subarray(offset);
  }

  async delete(digest: string): Promise<void> {
    this.#blobs.delete(digest);
  }
}
