/**
 * An outside checker: reads the store's whole history, revision by revision, and says where it broke an invariant. It
 * knows the rules from the design, not the code that should keep them.
 *
 *   H1 a task moves only as the table says      H2 a task keeps its node; its service exists or it is to be removed
 *   H3 one task per slot should run             H4 what only a leader may write was written behind its fence
 *   H7 a desired state never falls              H8 addresses, ports and reserved resources are never given twice
 *   H10 what the API acknowledged is in the history
 *   J1 a slot of a job that completed gets no further task in that iteration
 */

import { equals } from "@bufbuild/protobuf";
import { overlaps, parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { offeredBy, reservedBy } from "../../common/model/resources.ts";
import { completionsOf, isJob } from "../../common/model/service-mode.ts";
import { isTerminal, mayMove } from "../../common/model/task-state.ts";
import { parseKey } from "../../manager/store/keys.ts";
import { type Kind, kinds, versionId } from "../../manager/store/kinds.ts";
import type { WatchEvent } from "../../manager/store/kv.ts";
import type {
  Network,
  NetworkAddresses,
  Node,
  Service,
  SpecVersion,
  Task,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  NodeStatus_State,
  PortConfig_PublishMode,
  type ServiceSpec,
  TaskSpecSchema,
  TaskState,
  UpdateConfig_Order,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { EventLog } from "./event-log.ts";
import type { FenceBook } from "./sim-kv.ts";

/** Something that the API said it had done. */
export type Acknowledgement =
  | { readonly type: "created"; readonly serviceId: string }
  | { readonly type: "removed"; readonly serviceId: string }
  | { readonly type: "updated"; readonly serviceId: string; readonly version: bigint };

/** Dead tasks that may be left in a slot: the world's setting. */
export const HISTORY_LIMIT = 2;

const LEADERS = ["allocator", "scheduler", "node monitor"] as const;

export class HistoryChecker {
  readonly violations: string[] = [];
  readonly #fences: FenceBook;
  readonly #tasks = new Map<string, Task>();
  readonly #services = new Map<string, Service>();
  readonly #specs = new Map<string, SpecVersion>();
  readonly #nodes = new Map<string, Node>();
  readonly #networks = new Map<string, Network>();
  readonly #everTasks = new Set<string>();
  readonly #everServices = new Set<string>();
  readonly #everSpecs = new Set<string>();
  readonly #removed = new Set<string>();
  /** Nodes that were ever out of reach: tasks were made elsewhere without waiting for theirs. */
  readonly #everDown = new Set<string>();
  /** Services of which any version, even a deleted one, starts tasks first. */
  readonly #startFirst = new Set<string>();
  #revision = 0;

  /** `fences` tells which revisions were a leader's. */
  constructor(fences: FenceBook) {
    this.#fences = fences;
  }

  /** How far it has read. */
  get revision(): number {
    return this.#revision;
  }

  /** Reads whole revisions, in order, and tells `log` of each change. */
  read(events: readonly WatchEvent[], log: EventLog): void {
    let from = 0;
    for (let index = 1; index <= events.length; index++) {
      if (events[index]?.modRevision === events[from]?.modRevision) continue;
      this.#step(events.slice(from, index), log);
      from = index;
    }
  }

  #step(events: readonly WatchEvent[], log: EventLog): void {
    this.#revision = events[0]?.modRevision ?? this.#revision;
    const touched: Task[] = [];
    for (const event of events) {
      const key = parseKey(event.key);
      if (key?.type !== "object") continue;
      const task = this.#apply(key.kind, key.id, event);
      if (task) touched.push(task);
      log.add("store", `${this.#revision} ${key.kind} ${key.id} ${event.type}${task ? shown(task) : ""}`);
    }
    for (const task of touched) {
      this.#checkSlot(task);
      this.#checkAddresses(task.id, addressesOf(task.address, task.networks));
      this.#checkResources(task);
    }
    if (events.some(({ key }) => key.startsWith("/swarm/service/"))) {
      this.#checkPorts();
      for (const { id, vips } of this.#services.values()) this.#checkAddresses(id, addressesOf("", vips));
    }
    if (events.some(({ key }) => key.startsWith("/swarm/network/"))) this.#checkSubnets();
  }

  #violated(rule: string, what: string): void {
    this.violations.push(`${rule} at revision ${this.#revision}: ${what}`);
  }

  #apply(kind: Kind, id: string, event: WatchEvent): Task | undefined {
    const table = this.#tableOf(kind);
    if (!table) return undefined;
    if (event.type === "delete") {
      if (kind === "task") this.#checkDeleted(this.#tasks.get(id));
      if (kind === "service") this.#removed.add(id);
      table.delete(id);
      return undefined;
    }
    const object = kinds[kind].decode(event.value, event.modRevision);
    const before = table.get(id);
    table.set(id, object);
    if (kind === "service") this.#everServices.add(id);
    if (kind === "node" && (object as Node).status?.state === NodeStatus_State.DOWN) this.#everDown.add(id);
    if (kind === "spec") this.#noteSpec(id, object as SpecVersion);
    if (kind !== "task") return undefined;
    // The table of kinds says that this is a task.
    const task = object as Task;
    if (before) this.#checkMove(before as Task, task);
    else this.#checkCreated(task);
    return task;
  }

  #noteSpec(id: string, { serviceId, spec }: SpecVersion): void {
    this.#everSpecs.add(id);
    if (spec?.update?.order === UpdateConfig_Order.START_FIRST) this.#startFirst.add(serviceId);
  }

  #tableOf(kind: Kind): Map<string, unknown> | undefined {
    switch (kind) {
      case "task":
        return this.#tasks;
      case "service":
        return this.#services;
      case "spec":
        return this.#specs;
      case "node":
        return this.#nodes;
      case "network":
        return this.#networks;
      default:
        return undefined;
    }
  }

  #checkCreated(task: Task): void {
    this.#requireFence(`task ${task.id} was created`);
    if (stateOf(task) !== TaskState.NEW) this.#violated("H1", `task ${task.id} began as ${TaskState[stateOf(task)]}`);
    if (this.#everTasks.has(task.id)) this.#violated("H2", `task id ${task.id} was used before`);
    this.#everTasks.add(task.id);
    // A service may be removed while its tasks are made; they must then go as well, which `unsettled` asks.
    if (!this.#everServices.has(task.serviceId)) this.#violated("H2", `task ${task.id} was made for no service`);
    this.#checkIteration(task);
  }

  /** A job's iteration is its service's task_version: a task made for it must not be one too many. */
  #checkIteration(task: Task): void {
    const service = this.#services.get(task.serviceId);
    if (!service || !isJob(this.#specOf(task.serviceId, service.specVersion))) return;
    const done = this.#completed(service).get(slotKey(task));
    if (done !== undefined && task.specVersion >= service.taskVersion) {
      this.#violated("J1", `task ${task.id} was made for slot ${slotKey(task)}, which ${done} has completed`);
    }
  }

  /** The slots of a job that have completed in the present iteration, with the task that did it. */
  #completed(service: Service): ReadonlyMap<string, string> {
    const done = new Map<string, string>();
    for (const task of this.#tasks.values()) {
      const current = task.serviceId === service.id && task.specVersion >= service.taskVersion;
      if (current && stateOf(task) === TaskState.COMPLETE) done.set(slotKey(task), task.id);
    }
    return done;
  }

  #checkMove(before: Task, after: Task): void {
    const from = stateOf(before);
    const to = stateOf(after);
    if (from !== to) {
      if (LEADERS.some((actor) => mayMove(actor, from, to))) this.#requireFence(`task ${after.id} was moved`);
      else if (!mayMove("agent", from, to)) {
        this.#violated("H1", `task ${after.id} went from ${TaskState[from]} to ${TaskState[to]}`);
      } else if (this.#fences.isFenced(this.#revision)) {
        this.#violated("H7", `a leader said of task ${after.id} what only its node may`);
      }
    }
    if (before.desiredState !== after.desiredState) this.#requireFence(`task ${after.id}: desired state was set`);
    if (before.nodeId !== "" && before.nodeId !== after.nodeId)
      this.#violated("H2", `task ${after.id} changed its node`);
    if (before.address !== "" && before.address !== after.address)
      this.#violated("H2", `task ${after.id} changed its address`);
    if (after.desiredState < before.desiredState) this.#violated("H7", `task ${after.id}: desired state fell`);
    if (
      before.specVersion !== after.specVersion ||
      before.slot !== after.slot ||
      before.serviceId !== after.serviceId
    ) {
      this.#violated("H2", `task ${after.id} changed what it is`);
    }
  }

  #requireFence(what: string): void {
    if (!this.#fences.isFenced(this.#revision)) this.#violated("H4", `${what} without a fence`);
  }

  #checkDeleted(task: Task | undefined): void {
    if (!task) return;
    this.#requireFence(`task ${task.id} was forgotten`);
    const state = stateOf(task);
    const holdsNothing = isTerminal(state) || state < TaskState.ASSIGNED || !this.#nodes.has(task.nodeId);
    if (!holdsNothing) this.#violated("H1", `task ${task.id} was forgotten while ${TaskState[state]}`);
  }

  #checkSlot(task: Task): void {
    const wanted = [...this.#tasks.values()].filter(
      (each) =>
        each.serviceId === task.serviceId &&
        each.slot === task.slot &&
        (task.slot > 0 || each.nodeId === task.nodeId) &&
        each.desiredState === TaskState.RUNNING &&
        !isTerminal(stateOf(each)),
    );
    const bound = this.#startFirst.has(task.serviceId) ? 2 : 1;
    if (wanted.length > bound)
      this.#violated("H3", `slot ${task.slot} of ${task.serviceId} has ${wanted.length} tasks that should run`);
  }

  #checkAddresses(holder: string, addresses: readonly string[]): void {
    if (addresses.length === 0) return;
    const check = (id: string, others: readonly string[]) => {
      const shared = id === holder ? undefined : others.find((address) => addresses.includes(address));
      if (shared !== undefined) this.#violated("H8", `${holder} and ${id} have the address ${shared}`);
    };
    for (const { id, address, networks } of this.#tasks.values()) check(id, addressesOf(address, networks));
    for (const { id, vips } of this.#services.values()) check(id, addressesOf("", vips));
  }

  #checkSubnets(): void {
    const subnets = [...this.#networks.values()].flatMap(({ name, ipam }) =>
      ipam.flatMap(({ subnet }) => ({ name, prefix: parseIpPrefix(subnet) })),
    );
    subnets.forEach(({ name, prefix }, index) => {
      const clash = subnets.slice(0, index).find((other) => prefix && other.prefix && overlaps(prefix, other.prefix));
      if (clash) this.#violated("H8", `networks ${clash.name} and ${name} overlap`);
    });
  }

  #checkResources(task: Task): void {
    const node = this.#nodes.get(task.nodeId);
    if (!node || stateOf(task) !== TaskState.ASSIGNED) return;
    let memoryBytes = 0;
    for (const other of this.#tasks.values()) {
      if (other.nodeId !== task.nodeId || isTerminal(stateOf(other)) || stateOf(other) < TaskState.ASSIGNED) continue;
      const spec = this.#specOf(other.serviceId, other.specVersion);
      memoryBytes += reservedBy(spec?.task).memoryBytes;
    }
    const offered = offeredBy(node.description).memoryBytes;
    if (memoryBytes > offered) this.#violated("H8", `node ${node.id}: ${memoryBytes} of ${offered} bytes are reserved`);
  }

  #checkPorts(): void {
    const holders = new Map<string, string>();
    for (const service of this.#services.values()) {
      for (const port of service.ports) {
        if (port.publishMode !== PortConfig_PublishMode.INGRESS) continue;
        const key = `${port.protocol}/${port.publishedPort}`;
        const holder = holders.get(key);
        if (holder !== undefined && holder !== service.id)
          this.#violated("H8", `services ${holder} and ${service.id} publish port ${port.publishedPort}`);
        holders.set(key, service.id);
      }
    }
  }

  /** H10: the API said that this was done. */
  acknowledged(done: Acknowledgement): void {
    const { serviceId } = done;
    const isThere = () => {
      if (done.type === "created") return this.#everServices.has(serviceId);
      if (done.type === "removed") return this.#removed.has(serviceId);
      return this.#everSpecs.has(versionId(serviceId, done.version));
    };
    if (!isThere()) this.#violated("H10", `service ${serviceId} was ${done.type}, but not in the store`);
  }

  /** H5, asked once all faults are over: what still differs from what is desired. */
  unsettled(): string[] {
    const problems: string[] = [];
    for (const service of this.#services.values()) problems.push(...this.#unsettledService(service));
    for (const task of this.#tasks.values()) {
      if (!this.#services.has(task.serviceId)) problems.push(`H5: task ${task.id} of a removed service is still there`);
    }
    for (const node of this.#nodes.values()) {
      if (node.status?.state !== NodeStatus_State.READY)
        problems.push(`H5: node ${node.description?.hostname} is not ready`);
    }
    return problems;
  }

  #unsettledService(service: Service): string[] {
    const problems: string[] = [];
    const spec = this.#specOf(service.id, service.specVersion);
    if (isJob(spec)) return this.#unsettledJob(service, spec);
    const mode = spec?.mode?.mode;
    const wanted = mode?.case === "replicated" ? Number(mode.value.replicas) : this.#nodes.size;
    const tasks = [...this.#tasks.values()].filter((task) => task.serviceId === service.id);
    const running = tasks.filter(
      (task) => task.desiredState === TaskState.RUNNING && stateOf(task) === TaskState.RUNNING,
    );
    if (running.length !== wanted) {
      problems.push(`H5: service ${service.name}: ${running.length} of ${wanted} tasks run`);
    }
    const moving = tasks.filter((task) => !isAtRest(task) && !running.includes(task));
    for (const task of moving) problems.push(`H5: service ${service.name}: task ${task.id} ${shown(task)}`);
    const updating = service.updateStatus?.state;
    const paused = updating === UpdateStatus_State.PAUSED || updating === UpdateStatus_State.ROLLBACK_PAUSED;
    const old = running.filter((task) => !this.#isCurrent(task, spec));
    if (old.length > 0 && !paused) {
      problems.push(`H5: service ${service.name}: ${old.length} tasks are of an old version`);
    }
    const dead = new Map<string, number>();
    for (const task of tasks) {
      if (!isAtRest(task)) continue;
      const slot = task.slot > 0 ? String(task.slot) : task.nodeId;
      dead.set(slot, (dead.get(slot) ?? 0) + 1);
    }
    for (const [slot, count] of dead) {
      if (count > HISTORY_LIMIT) problems.push(`H5: service ${service.name}: slot ${slot} keeps ${count} dead tasks`);
    }
    return problems;
  }

  /** A job settles when it is done. */
  #unsettledJob(service: Service, spec: ServiceSpec | undefined): string[] {
    const done = this.#completed(service);
    const problems: string[] = [];
    for (let slot = 1; slot <= completionsOf(spec); slot++) {
      if (!done.has(String(slot))) problems.push(`H5: job ${service.name}: slot ${slot} has not completed`);
    }
    for (const task of this.#tasks.values()) {
      if (task.serviceId === service.id && !isAtRest(task))
        problems.push(`H5: job ${service.name}: task ${task.id} ${shown(task)}`);
    }
    return problems;
  }

  #isCurrent(task: Task, spec: ServiceSpec | undefined): boolean {
    const own = this.#specOf(task.serviceId, task.specVersion);
    return own?.task !== undefined && spec?.task !== undefined && equals(TaskSpecSchema, own.task, spec.task);
  }

  #specOf(serviceId: string, version: bigint): ServiceSpec | undefined {
    return this.#specs.get(versionId(serviceId, version))?.spec;
  }

  /** Whether the store knows of a task. */
  hasTask(taskId: string): boolean {
    return this.#tasks.has(taskId);
  }

  /** Whether the store says that a task runs, and should go on: not when its service is gone. */
  shouldRun(taskId: string): boolean {
    const task = this.#tasks.get(taskId);
    if (!task || !this.#services.has(task.serviceId)) return false;
    return task.desiredState <= TaskState.RUNNING && !isTerminal(stateOf(task));
  }

  /** Whether a task must not start while another one runs: of the same slot, stopped first, and on a node in reach. */
  mustNotOverlap(taskId: string, otherId: string): boolean {
    const task = this.#tasks.get(taskId);
    const other = this.#tasks.get(otherId);
    if (!task || !other || task.serviceId !== other.serviceId || this.#startFirst.has(task.serviceId)) return false;
    if (task.slot !== other.slot || (task.slot === 0 && task.nodeId !== other.nodeId)) return false;
    return !this.#everDown.has(task.nodeId) && !this.#everDown.has(other.nodeId);
  }

  /** The ids of tasks that should run on a node, for comparing with what its executor really runs. */
  runningOn(nodeId: string): Set<string> {
    const ids = [...this.#tasks.values()]
      .filter((task) => task.nodeId === nodeId && stateOf(task) === TaskState.RUNNING)
      .map((task) => task.id);
    return new Set(ids);
  }
}

function shown(task: Task): string {
  const { status, desiredState, serviceId, specVersion, slot, attempt } = task;
  const place = `${serviceId.slice(0, 5)}.${slot > 0 ? slot : task.nodeId.slice(0, 5)}#${attempt} v${specVersion}`;
  return ` ${place} ${TaskState[stateOf(task)]}→${TaskState[desiredState]} ${status?.error}`.trimEnd();
}

function slotKey({ slot, nodeId }: Task): string {
  return slot > 0 ? String(slot) : nodeId;
}

/** Whether the task holds nothing, and never will: it ended, or was called off before a node had it. */
function isAtRest(task: Task): boolean {
  return isTerminal(stateOf(task)) || (stateOf(task) < TaskState.ASSIGNED && task.desiredState > TaskState.RUNNING);
}

function addressesOf(address: string, networks: readonly NetworkAddresses[]): readonly string[] {
  const all = networks.flatMap(({ addresses }) => addresses);
  return address === "" ? all : [address, ...all];
}

function stateOf(task: Task): TaskState {
  return task.status?.state ?? TaskState.NEW;
}
