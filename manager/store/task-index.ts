import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";

/** A slot number, or the node of a task of a global service, whose slot is its node. */
export type Slot = number | string;

/** The slot that a task runs in. */
export function slotOf({ slot, nodeId }: Pick<Task, "slot" | "nodeId">): Slot {
  return slot === 0 ? nodeId : slot;
}

/** Nearly every slot holds one task: it stands there itself, without an array around it. */
type Occupants = Task | readonly Task[];

const NONE: readonly Task[] = [];

/** Tasks by service and slot, and by node, at the cost of two map entries a task. */
export class TaskIndex {
  readonly #byService = new Map<string, Map<Slot, Occupants>>();
  readonly #byNode = new Map<string, Map<string, Task>>();

  /** Puts `after` in the place of `before`; either may be missing. */
  replace(before: Task | undefined, after: Task | undefined): void {
    if (before && (!after || before.serviceId !== after.serviceId || slotOf(before) !== slotOf(after))) {
      this.#leaveSlot(before);
    }
    if (after) this.#enterSlot(after);
    if (before && before.nodeId !== "" && before.nodeId !== after?.nodeId) {
      const ofNode = this.#byNode.get(before.nodeId);
      ofNode?.delete(before.id);
      if (ofNode?.size === 0) this.#byNode.delete(before.nodeId);
    }
    if (after && after.nodeId !== "") {
      const ofNode = this.#byNode.get(after.nodeId);
      if (ofNode) ofNode.set(after.id, after);
      else this.#byNode.set(after.nodeId, new Map([[after.id, after]]));
    }
  }

  *ofService(serviceId: string): Generator<Task, void, undefined> {
    for (const occupants of this.#byService.get(serviceId)?.values() ?? []) {
      if (isSeveral(occupants)) yield* occupants;
      else yield occupants;
    }
  }

  slotsOf(serviceId: string): Iterable<Slot> {
    return this.#byService.get(serviceId)?.keys() ?? [];
  }

  ofSlot(serviceId: string, slot: Slot): readonly Task[] {
    return listOf(this.#byService.get(serviceId)?.get(slot));
  }

  ofNode(nodeId: string): Iterable<Task> {
    return this.#byNode.get(nodeId)?.values() ?? NONE;
  }

  countOfNode(nodeId: string): number {
    return this.#byNode.get(nodeId)?.size ?? 0;
  }

  #enterSlot(task: Task): void {
    let ofService = this.#byService.get(task.serviceId);
    if (!ofService) {
      ofService = new Map();
      this.#byService.set(task.serviceId, ofService);
    }
    const slot = slotOf(task);
    const occupants = ofService.get(slot);
    if (!occupants || (!isSeveral(occupants) && occupants.id === task.id)) ofService.set(slot, task);
    else ofService.set(slot, [...listOf(occupants).filter(({ id }) => id !== task.id), task]);
  }

  #leaveSlot(task: Task): void {
    const ofService = this.#byService.get(task.serviceId);
    const slot = slotOf(task);
    const others = listOf(ofService?.get(slot)).filter(({ id }) => id !== task.id);
    const [only] = others;
    if (!only) ofService?.delete(slot);
    else ofService?.set(slot, others.length === 1 ? only : others);
    if (ofService?.size === 0) this.#byService.delete(task.serviceId);
  }
}

function isSeveral(occupants: Occupants): occupants is readonly Task[] {
  return Array.isArray(occupants);
}

function listOf(occupants: Occupants | undefined): readonly Task[] {
  if (!occupants) return NONE;
  return isSeveral(occupants) ? occupants : [occupants];
}
