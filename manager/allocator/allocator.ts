/** The allocator's loop: ports for services, then addresses for their NEW tasks, which become PENDING. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ADDRESS_POOL_DEFAULT } from "../../common/model/defaults.ts";
import type { Service, SpecVersion, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, type TaskStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { TaskSet } from "../task-set.ts";
import { AddressPool } from "./address-pool.ts";
import { allocatePorts, portKey } from "./ports.ts";

/** How many tasks one pass moves on, so that the event loop gets its turn. */
const TASKS_PER_PASS = 5_000;

/** How soon a service whose wish could not be met is tried again: another one may have given the port back. */
const RETRY_MS = 1_000;

export class Allocator implements Loop {
  readonly name = "allocator";
  readonly #context: Pick<LoopContext, "clock" | "logger">;
  readonly #new = new TaskSet();
  /** Published port → the service that holds it. */
  readonly #ports = new Map<string, string>();
  #pool = new AddressPool(ADDRESS_POOL_DEFAULT);

  constructor(context: Pick<LoopContext, "clock" | "logger">) {
    this.#context = context;
  }

  *begin(view: View): Iterable<string> {
    this.#pool = new AddressPool(view.cluster?.spec?.addressPool || ADDRESS_POOL_DEFAULT);
    for (const service of view.services.values()) this.#indexService(undefined, service);
    for (const task of view.tasks.values()) this.#indexTask(undefined, task);
    yield* view.services.keys();
  }

  *observe(change: Change): Iterable<string> {
    if (change.kind === "service") {
      this.#indexService(change.before, change.after);
      yield change.id;
    } else if (change.kind === "task") {
      this.#indexTask(change.before, change.after);
      if (change.after && isNew(change.after)) yield change.after.serviceId;
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const groups: ProposalGroup[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    let budget = TASKS_PER_PASS;
    for (const serviceId of keys) {
      const service = view.services.get(serviceId);
      const spec = service && view.specVersion(serviceId, service.specVersion);
      if (!service || !spec) continue;
      if (service.portsVersion < service.specVersion && !this.#decidePorts(service, spec, groups)) {
        wakeups.push({ key: serviceId, delayMs: RETRY_MS });
        continue;
      }
      const taken = this.#decideTasks(view, serviceId, budget, groups);
      budget -= taken;
      if (taken < this.#new.of(serviceId).size) wakeups.push({ key: serviceId, delayMs: budget > 0 ? RETRY_MS : 0 });
    }
    return { groups, wakeups };
  }

  refused(proposal: Proposal, view: View): void {
    if (proposal.type === "delete" || proposal.kind !== "task") return;
    const { id, address } = proposal.object;
    if (address !== "" && view.tasks.get(id)?.address !== address) this.#pool.release(address);
    this.#indexTask(undefined, view.tasks.get(id));
  }

  #decidePorts(service: Service, { spec, version }: SpecVersion, groups: ProposalGroup[]): boolean {
    const takenBy = (key: string) => {
      const holder = this.#ports.get(key);
      return holder === service.id ? undefined : holder;
    };
    const allocation = allocatePorts(spec?.endpoint?.ports ?? [], service.ports, takenBy);
    if (!allocation.ok) {
      this.#context.logger.warn({ serviceId: service.id, reason: allocation.problem }, "ports cannot be allocated");
      return false;
    }
    for (const port of allocation.ports) this.#ports.set(portKey(port), service.id);
    const object: Service = { ...service, ports: [...allocation.ports], portsVersion: version };
    groups.push({ type: "update", kind: "service", object });
    return true;
  }

  #decideTasks(view: View, serviceId: string, budget: number, groups: ProposalGroup[]): number {
    let taken = 0;
    for (const taskId of this.#new.of(serviceId)) {
      if (taken >= budget) break;
      const task = view.tasks.get(taskId);
      if (!task || !isNew(task)) continue;
      const address = needsAddress(view, task) ? this.#pool.allocate() : "";
      if (address === undefined) {
        this.#context.logger.warn({ serviceId }, "address pool is exhausted");
        break;
      }
      taken++;
      groups.push({ type: "update", kind: "task", object: { ...task, address, status: this.#pending() } });
    }
    return taken;
  }

  #pending(): TaskStatus {
    return {
      $typeName: "swarm.v1.TaskStatus",
      state: TaskState.PENDING,
      timestamp: timestampFromMs(this.#context.clock.nowMs()),
      message: "pending task scheduling",
      error: "",
    };
  }

  #indexTask(before: Task | undefined, after: Task | undefined): void {
    if (before && (!after || !isNew(after))) this.#new.delete(before.serviceId, before.id);
    if (after && isNew(after)) this.#new.add(after.serviceId, after.id);
    if (before && before.address !== "" && before.address !== after?.address) this.#pool.release(before.address);
    if (after && after.address !== "" && before?.address !== after.address) this.#pool.reserve(after.address);
  }

  #indexService(before: Service | undefined, after: Service | undefined): void {
    for (const port of before?.ports ?? []) {
      if (this.#ports.get(portKey(port)) === before?.id) this.#ports.delete(portKey(port));
    }
    for (const port of after?.ports ?? []) this.#ports.set(portKey(port), after?.id ?? "");
  }
}

function isNew(task: Task): boolean {
  return task.status?.state === TaskState.NEW && task.desiredState <= TaskState.RUNNING;
}

/** Tasks on the host's network, or on none, take no address. */
function needsAddress(view: View, task: Task): boolean {
  const networks = view.specVersion(task.serviceId, task.specVersion)?.spec?.task?.networks ?? [];
  return !networks.some(({ target }) => target === "host" || target === "none");
}
