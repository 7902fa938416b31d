/**
 * A simulated cluster made from one seed: managers and nodes that run the same classes as the programs, over virtual
 * time, a simulated store, network and hosts. It knows how things can break; when they do is the nemesis's affair.
 *
 *   nemesis ──▶ faults ──┐
 *   workload ─▶ Control ─┤   manager × n ── SimKv ──▶ MemoryKv ──▶ history checker
 *                        │      ║ SimNetwork
 *                        └─▶ agent × n ── SimHost (containers, disk)
 */
import { inspect } from "node:util";
import { Agent } from "../../agent/agent.ts";
import { ManagerList } from "../../agent/session.ts";
import type { Clock } from "../../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../../common/base/error.ts";
import { type ManagerId, type NodeId, newId } from "../../common/base/id.ts";
import { type Random, randomEntropy } from "../../common/base/random.ts";
import { type Client, createClient } from "../../common/rpc/service.ts";
import type { ImageBlobs } from "../../manager/control/dependencies.ts";
import { Manager } from "../../manager/manager.ts";
import { MemoryKv } from "../../manager/store/memory-kv.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { Dispatcher, LogBroker, StreamBroker } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { TEST_KEYS } from "../cluster-key.ts";
import { between, fork, integerBetween } from "./chance.ts";
import { HISTORY_LIMIT, HistoryChecker } from "./checker.ts";
import type { EventLog } from "./event-log.ts";
import type { SimClock } from "./sim-clock.ts";
import { type HostFaults, SimHost } from "./sim-host.ts";
import { FenceBook, SimKv, type StoreFaults } from "./sim-kv.ts";
import { SimNetwork, type WireFaults } from "./sim-network.ts";
import { SimProcess } from "./sim-process.ts";

/** A program that is started again when it ends, as systemd does. */
export interface Member {
  /** Its name in the network: a manager's address, a node's name. */
  readonly name: string;
  process: SimProcess | undefined;
  /** The host's wall clock, against true time. */
  wallOffsetMs: number;
  /** Ends the program as SIGTERM does. */
  terminate: () => Promise<void>;
}

export interface ManagerMember extends Member {
  readonly kind: "manager";
  readonly managerId: ManagerId;
}

export interface NodeMember extends Member {
  readonly kind: "node";
  readonly host: SimHost;
}

/** How long systemd waits before it starts a program again. */
const RESTART_MS = 1_000;

/** Everything off: how the world is once it is healed. */
const CALM_STORE: StoreFaults = { latencyMsMax: 2, diskMsMax: 1, unavailable: 0, answerLost: 0 };
const CALM_WIRE: WireFaults = { latencyMsMax: 2, reset: 0 };
const CALM_HOSTS: HostFaults = { stepFails: 0, stepFailsForNow: 0, crashes: 0, unhealthy: 0, diskMsMax: 1 };

export interface WorldOptions {
  readonly clock: SimClock;
  readonly random: Random;
  readonly log: EventLog;
}

export class World {
  readonly clock: SimClock;
  readonly random: Random;
  readonly log: EventLog;
  readonly kv: MemoryKv;
  readonly network: SimNetwork;
  readonly checker: HistoryChecker;
  readonly fences = new FenceBook();
  readonly managers: ManagerMember[] = [];
  readonly nodes: NodeMember[] = [];
  readonly storeFaults: StoreFaults = { ...CALM_STORE };
  readonly wireFaults: WireFaults = { ...CALM_WIRE };
  readonly hostFaults: HostFaults = { ...CALM_HOSTS };
  readonly #processes = new Map<string, SimProcess>();
  readonly #violations: string[] = [];
  readonly #over = new AbortController();
  #skewed = false;

  constructor({ clock, random, log }: WorldOptions) {
    this.clock = clock;
    this.random = random;
    this.log = log;
    this.kv = new MemoryKv(lateClock(clock, fork(random)));
    this.checker = new HistoryChecker(this.fences);
    const wire = { clock, random: fork(random), faults: this.wireFaults, processes: this.#processes };
    this.network = new SimNetwork(wire);
    for (let number = 1; number <= integerBetween(random, 1, 3); number++) this.#addManager(number);
    for (let number = 1; number <= integerBetween(random, 2, 5); number++) this.#addNode(number);
  }

  /** Starts reading the history, and every program. */
  begin(): void {
    void this.#readHistory();
    for (const member of [...this.managers, ...this.nodes]) this.start(member);
  }

  /** Every rule that was broken so far. */
  get violations(): readonly string[] {
    return [...this.#violations, ...this.checker.violations, ...this.fences.violations];
  }

  /** Starts a program unless it runs. */
  start(member: ManagerMember | NodeMember): void {
    if (member.process) return;
    const process = new SimProcess(member.name, {
      clock: this.clock,
      random: fork(this.random),
      wallOffsetMs: () => member.wallOffsetMs,
    });
    member.process = process;
    this.#processes.set(member.name, process);
    this.log.add(member.name, "starts");
    const stop = new AbortController();
    const run =
      member.kind === "manager" ? this.#runManager(member, process, stop) : this.#runAgent(member, process, stop);
    const ended = run.then(
      () => new SwarmError("canceled", "it returned"),
      (reason: unknown) => {
        if (!stop.signal.aborted || reason instanceof AssertionFailure) this.#died(member, process, reason);
      },
    );
    member.terminate = async () => {
      if (member.process !== process) return;
      this.log.add(member.name, "is terminated");
      stop.abort(new SwarmError("canceled", "SIGTERM"));
      await Promise.race([ended, this.clock.sleep(10_000)]);
      this.kill(member);
    };
  }

  /** SIGKILL. */
  kill(member: ManagerMember | NodeMember): void {
    const { process } = member;
    if (!process) return;
    this.log.add(member.name, "is killed");
    process.kill();
    member.process = undefined;
    this.#processes.delete(member.name);
    this.network.wire.disconnect(member.name);
  }

  /** Ends all faults: cuts, stopped and dead programs, skewed clocks, failing disks. */
  heal(): void {
    this.log.add("nemesis", "heals everything");
    Object.assign(this.storeFaults, CALM_STORE);
    Object.assign(this.wireFaults, CALM_WIRE);
    Object.assign(this.hostFaults, CALM_HOSTS);
    this.network.joinAll();
    for (const member of [...this.managers, ...this.nodes]) {
      member.wallOffsetMs = 0;
      member.process?.resume();
    }
    this.restartAll();
  }

  /** Starts every program that does not run. */
  restartAll(): void {
    for (const member of [...this.managers, ...this.nodes]) this.start(member);
  }

  /** Ends the reading of the history and what the store's timers hold. */
  end(): void {
    this.#over.abort();
    this.kv[Symbol.dispose]();
    for (const member of [...this.managers, ...this.nodes]) member.process?.kill();
  }

  /** A client of a manager's API. */
  control(manager: ManagerMember): Client<typeof Control> {
    return createClient(Control, this.network.wire.transport("client", manager.name, { kind: "host" }));
  }

  /** What the hosts really run and hold, against what the store says. */
  astray(): string[] {
    return this.nodes.flatMap(({ host }) => {
      const stored = this.checker.runningOn(host.nodeId);
      const running = new Set(host.running);
      return [
        ...[...running]
          .filter((id) => !stored.has(id))
          .map((id) => `H3: ${host.name} runs ${id}, the store does not know`),
        ...[...stored].filter((id) => !running.has(id)).map((id) => `H3: ${host.name} does not run ${id}`),
        ...host.held.filter((id) => !this.checker.hasTask(id)).map((id) => `H9: ${host.name} still holds ${id}`),
      ];
    });
  }

  /** Sets a host's clock wrong. Waits for tasks to stop are then cut short, which X3 allows. */
  skew(member: Member, offsetMs: number): void {
    this.#skewed = true;
    member.wallOffsetMs = offsetMs;
    this.log.add(member.name, `clock is off by ${offsetMs} ms`);
  }

  /** Forgets history that everybody may have read, and some that not everybody has. */
  compact(): void {
    const revision = Math.floor(between(this.random, Math.max(1, this.kv.revision - 20), this.kv.revision));
    if (revision <= this.checker.revision) this.kv.compact(revision);
  }

  violated(what: string): void {
    this.#violations.push(what);
  }

  #addManager(number: number): void {
    const managerId = newId<ManagerId>(this.random);
    const base = { name: `m${number}:2377`, process: undefined, wallOffsetMs: 0, terminate: async () => {} };
    this.managers.push({ kind: "manager", managerId, ...base });
  }

  #addNode(number: number): void {
    const name = `node-${number}`;
    const host = new SimHost({
      name,
      nodeId: newId<NodeId>(this.random),
      clock: this.clock,
      random: fork(this.random),
      faults: this.hostFaults,
      log: (what) => this.log.add(name, what),
      violated: (what) => this.violated(what),
      started: (taskId) => this.#checkAlone(taskId),
      shouldRun: (taskId) => this.checker.shouldRun(taskId),
    });
    this.nodes.push({ kind: "node", host, name, process: undefined, wallOffsetMs: 0, terminate: async () => {} });
  }

  /** X3: in a slot only one container runs at a time, unless its service wants it so or the other's node is out of reach. */
  #checkAlone(taskId: string): void {
    if (this.#skewed) return;
    for (const { host, name } of this.nodes) {
      for (const other of host.running) {
        if (other !== taskId && this.checker.mustNotOverlap(taskId, other)) {
          this.violated(`X3: task ${taskId} starts while ${other} of its slot runs on ${name}`);
        }
      }
    }
  }

  async #runManager(member: ManagerMember, process: SimProcess, stop: AbortController): Promise<void> {
    const { network, log } = this;
    const kv = new SimKv({
      ...{ kv: this.kv, clock: this.clock, random: fork(this.random), faults: this.storeFaults, network, process },
      fences: this.fences,
    });
    const manager = new Manager({
      ...{ kv, clock: process.clock, random: process.random, logger: log.logger(member.name) },
      managerId: member.managerId,
      hostname: member.name,
      version: "0.0.0",
      cluster: { addressPool: "10.224.0.0/16", heartbeatPeriodMs: 1_000, taskHistoryLimit: HISTORY_LIMIT },
      blobs: NO_BLOBS,
      clusterKeys: TEST_KEYS,
      entropy: (count) => randomEntropy(process.random, count),
      registry: { digestOf: async () => undefined },
      serve: async ({ control, dispatcher, logBroker, streamBroker }, scope) => {
        const server = network.wire.serve(member.name);
        const close = () => void server[Symbol.asyncDispose]();
        process.killed.addEventListener("abort", close, { once: true });
        scope.signal.addEventListener("abort", close, { once: true });
        server.addService(Control, control);
        server.addService(Dispatcher, dispatcher);
        server.addService(LogBroker, logBroker);
        server.addService(StreamBroker, streamBroker);
        return member.name;
      },
    });
    await manager.run(stop.signal);
  }

  async #runAgent({ name, host }: NodeMember, process: SimProcess, stop: AbortController): Promise<void> {
    const agent = new Agent({
      nodeId: host.nodeId,
      managers: new ManagerList(this.managers.map((manager) => manager.name)),
      clock: process.clock,
      random: process.random,
      logger: this.log.logger(name),
      connect: (address) => process.transport(this.network.wire.transport(name, address)),
      executor: host.executor(process),
      database: host.database(process),
      bootId: host.bootId,
    });
    await agent.run(stop.signal);
  }

  /** A program that ended by itself: a bug of ours is a violation, anything else is started again. */
  #died(member: ManagerMember | NodeMember, process: SimProcess, reason: unknown): void {
    if (member.process !== process) return;
    this.log.add(member.name, `ended by itself: ${reason instanceof Error ? reason.message : String(reason)}`);
    if (isBug(reason)) {
      this.violated(`bug in ${member.name}: ${inspect(reason)}`);
    }
    this.kill(member);
    void this.clock.sleep(RESTART_MS).then(() => this.start(member));
  }

  async #readHistory(): Promise<void> {
    const { signal } = this.#over;
    try {
      for await (const step of this.kv.watch({ prefix: "/swarm/", fromRevision: 1 }, signal)) {
        if (step.type === "compacted") this.violated(`the checker missed revisions up to ${step.revision}`);
        else this.checker.read(step.events, this.log);
      }
    } catch (reason) {
      if (!signal.aborted)
        this.violated(`the checker failed: ${reason instanceof Error ? reason.stack : String(reason)}`);
    }
  }
}

/** Whether a failure is a bug of ours and not the world's doing, however often it was wrapped. */
function isBug(reason: unknown): boolean {
  for (let error = reason; ; error = error.cause) {
    if (!(error instanceof SwarmError)) return error !== undefined;
    if (error.cause === undefined) return false;
  }
}

/** The store's clock: leases end up to half a second late, as etcd looks at them that often. */
function lateClock(clock: Clock, random: Random): Clock {
  return {
    nowMs: () => clock.nowMs(),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (delayMs, signal) => clock.sleep(delayMs + between(random, 0, 500), signal),
  };
}

/** No image is loaded in the simulation: hosts know their images by name. */
const NO_BLOBS: ImageBlobs = {
  missing: async (digests) => digests,
  put: async () => {
    throw new SwarmError("unimplemented", "no blobs here");
  },
  // biome-ignore lint/correctness/useYield: it has nothing to yield
  async *open(digest) {
    throw new SwarmError("not_found", `no such blob: ${digest}`);
  },
  delete: async () => {},
};
