/**
 * The allocator's loop: ports and virtual addresses for services, then addresses for their NEW tasks, which become PENDING. A task
 * that must wait says why.
 */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { assert } from "../../common/base/error.ts";
import type { Service, SpecVersion, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, type TaskStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { TaskSet } from "../task-set.ts";
import { Addresses, type Allocation, areVipsCurrent, type TaskAddresses } from "./addresses.ts";
import { heldByService, heldByTask } from "./held.ts";
import { allocatePorts, portKey } from "./ports.ts";

/** How many tasks one pass moves on, so that the event loop gets its turn. */
const TASKS_PER_PASS = 5_000;

/** How soon a service whose wish could not be met is tried again: another one may have given the port back. */
const RETRY_MS = 1_000;

/** The key of the audit of addresses, which is no service's id, and how often it is due. */
const AUDIT = "";
const AUDIT_MS = 60_000;

export class Allocator implements Loop {
  readonly name = "allocator";
  readonly #context: Pick<LoopContext, "clock" | "logger">;
  readonly #new = new TaskSet();
  /** Published port → the service that holds it. */
  readonly #ports = new Map<string, string>();
  #addresses: Addresses | undefined;

  constructor(context: Pick<LoopContext, "clock" | "logger">) {
    this.#context = context;
  }

  *begin(view: View): Iterable<string> {
    this.#addresses = new Addresses(view);
    for (const twice of this.#addresses.twice) this.#context.logger.error({ twice }, "an address is given twice");
    for (const service of view.services.values()) this.#indexPorts(undefined, service);
    for (const task of view.tasks.values()) this.#indexTask(undefined, task);
    yield* view.services.keys();
    yield AUDIT;
  }

  *observe(change: Change): Iterable<string> {
    if (change.kind === "service") {
      this.#indexPorts(change.before, change.after);
      this.#addresses?.replace(change.id, heldByService(change.before), heldByService(change.after));
      yield change.id;
    } else if (change.kind === "task") {
      this.#indexTask(change.before, change.after);
      this.#addresses?.replace(change.id, heldByTask(change.before), heldByTask(change.after));
      if (change.after && isNew(change.after)) yield change.after.serviceId;
    } else if (change.kind === "network" && change.before && !change.after) {
      this.#addresses?.forget(change.id);
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    assert(this.#addresses, "a loop begins before it decides");
    const round = { view, addresses: this.#addresses, groups: [] as ProposalGroup[] };
    const wakeups: { key: string; delayMs: number }[] = [];
    let budget = TASKS_PER_PASS;
    if (keys.includes(AUDIT)) {
      this.#audit(view, this.#addresses);
      wakeups.push({ key: AUDIT, delayMs: AUDIT_MS });
    }
    for (const serviceId of keys) {
      const service = view.services.get(serviceId);
      const spec = service && view.specVersion(serviceId, service.specVersion);
      if (!service || !spec) continue;
      const problem = this.#decideEndpoint(round, service, spec);
      const { written, left } = this.#decideTasks(round, serviceId, budget, problem);
      budget -= written;
      if (left === "more") wakeups.push({ key: serviceId, delayMs: 0 });
      else if (left === "waiting" || problem !== undefined) wakeups.push({ key: serviceId, delayMs: RETRY_MS });
    }
    return { groups: round.groups, wakeups };
  }

  refused(proposal: Proposal, view: View): void {
    if (proposal.type === "delete") return;
    if (proposal.kind === "service") {
      const { id } = proposal.object;
      this.#indexPorts(proposal.object, view.services.get(id));
      this.#addresses?.replace(id, heldByService(proposal.object), heldByService(view.services.get(id)));
    } else if (proposal.kind === "task") {
      const { id } = proposal.object;
      this.#addresses?.replace(id, heldByTask(proposal.object), heldByTask(view.tasks.get(id)));
      this.#indexTask(undefined, view.tasks.get(id));
    }
  }

  /** Ports and virtual addresses of a service whose spec is newer than they are; what stands in their way, if anything does. */
  #decideEndpoint({ view, addresses, groups }: Round, service: Service, { spec, version }: SpecVersion) {
    if (service.portsVersion >= service.specVersion && areVipsCurrent(view, service, spec)) return undefined;
    const takenBy = (key: string) => {
      const holder = this.#ports.get(key);
      return holder === service.id ? undefined : holder;
    };
    const allocation = allocatePorts(spec?.endpoint?.ports ?? [], service.ports, takenBy);
    const virtual = allocation.ok ? addresses.forService(view, service, spec) : allocation;
    if (!allocation.ok || !virtual.ok) {
      const reason = virtual.ok ? "" : virtual.problem;
      this.#context.logger.warn({ serviceId: service.id, reason }, "ports and virtual addresses cannot be allocated");
      return reason;
    }
    for (const port of allocation.ports) this.#ports.set(portKey(port), service.id);
    const object: Service = {
      ...service,
      ports: [...allocation.ports],
      vips: [...virtual.vips],
      portsVersion: version,
    };
    groups.push({ type: "update", kind: "service", object });
    return undefined;
  }

  /** Moves NEW tasks on, or has them say why they cannot; writes at most `budget` of them. */
  #decideTasks(
    { view, addresses, groups }: Round,
    serviceId: string,
    budget: number,
    problem: string | undefined,
  ): { readonly written: number; readonly left: "none" | "waiting" | "more" } {
    const before = groups.length;
    let left: "none" | "waiting" = "none";
    // What one task of a version is refused the next one is refused as well.
    const refusals = new Map<bigint, string>();
    for (const taskId of this.#new.of(serviceId)) {
      const task = view.tasks.get(taskId);
      if (!task || !isNew(task)) continue;
      if (groups.length - before >= budget) return { written: groups.length - before, left: "more" };
      const refusal = problem ?? refusals.get(task.specVersion);
      const given = refusal === undefined ? this.#addressesFor(view, addresses, task) : refused(refusal);
      if (given.ok) {
        const { address, networks } = given;
        const status = this.#status(TaskState.PENDING, "pending task scheduling");
        groups.push({ type: "update", kind: "task", object: { ...task, address, networks, status } });
        continue;
      }
      left = "waiting";
      refusals.set(task.specVersion, given.problem);
      if (task.status?.error === given.problem) continue;
      const status = this.#status(TaskState.NEW, "pending network allocation", given.problem);
      groups.push({ type: "update", kind: "task", object: { ...task, status } });
    }
    return { written: groups.length - before, left };
  }

  #audit(view: View, addresses: Addresses): void {
    const { leaked, missing } = addresses.audit(view);
    if (leaked + missing > 0) this.#context.logger.error({ leaked, missing }, "taken addresses were not those in use");
  }

  #addressesFor(view: View, addresses: Addresses, task: Task): Allocation<TaskAddresses> {
    return addresses.forTask(view, task, view.specVersion(task.serviceId, task.specVersion)?.spec);
  }

  #status(state: TaskState, message: string, error = ""): TaskStatus {
    const timestamp = timestampFromMs(this.#context.clock.nowMs());
    return { $typeName: "swarm.v1.TaskStatus", state, timestamp, message, error };
  }

  #indexTask(before: Task | undefined, after: Task | undefined): void {
    if (before && (!after || !isNew(after))) this.#new.delete(before.serviceId, before.id);
    if (after && isNew(after)) this.#new.add(after.serviceId, after.id);
  }

  #indexPorts(before: Service | undefined, after: Service | undefined): void {
    for (const port of before?.ports ?? []) {
      if (this.#ports.get(portKey(port)) === before?.id) this.#ports.delete(portKey(port));
    }
    for (const port of after?.ports ?? []) this.#ports.set(portKey(port), after?.id ?? "");
  }
}

/** What one pass works on. */
interface Round {
  readonly view: View;
  readonly addresses: Addresses;
  readonly groups: ProposalGroup[];
}

function refused(problem: string): Allocation<TaskAddresses> {
  return { ok: false, problem };
}

function isNew(task: Task): boolean {
  return task.status?.state === TaskState.NEW && task.desiredState <= TaskState.RUNNING;
}
