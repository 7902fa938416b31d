import { SwarmError } from "../../common/base/error.ts";
import type { TaskId } from "../../common/base/id.ts";
import { formatIp, type Ip } from "./address.ts";
import { addressesOf, type InterfaceSpec, vethName } from "./attach.ts";

/** The tasks of this host that are on the network, and who of them has which address. */
export class LiveTasks {
  readonly #interfaces = new Map<TaskId, readonly InterfaceSpec[]>();
  readonly #holders = new Map<Ip, TaskId>();

  has(taskId: TaskId): boolean {
    return this.#interfaces.has(taskId);
  }

  /** Throws `failed_precondition` when another task has one of its addresses: only one could be reached by it. */
  add(taskId: TaskId, interfaces: readonly InterfaceSpec[]): void {
    for (const address of interfaces.flatMap(addressesOf)) {
      const holder = this.#holders.get(address) ?? taskId;
      if (holder === taskId) continue;
      throw new SwarmError("failed_precondition", `address ${formatIp(address)}: task ${holder} of this node has it`);
    }
    this.adopt(taskId, interfaces, true);
  }

  /**
   * Takes a task of an earlier run. One without a link may have ended long ago: its addresses are anybody's, as fixed ones
   * of a service are its next task's.
   */
  adopt(taskId: TaskId, interfaces: readonly InterfaceSpec[], hasLink: boolean): void {
    this.delete(taskId);
    this.#interfaces.set(taskId, interfaces);
    if (!hasLink) return;
    for (const address of interfaces.flatMap(addressesOf)) {
      if (!this.#holders.has(address)) this.#holders.set(address, taskId);
    }
  }

  delete(taskId: TaskId): void {
    for (const address of (this.#interfaces.get(taskId) ?? []).flatMap(addressesOf)) {
      if (this.#holders.get(address) === taskId) this.#holders.delete(address);
    }
    this.#interfaces.delete(taskId);
  }

  clear(): void {
    this.#interfaces.clear();
    this.#holders.clear();
  }

  entries(): Iterable<readonly [TaskId, readonly InterfaceSpec[]]> {
    return this.#interfaces.entries();
  }

  interfaces(): Iterable<readonly InterfaceSpec[]> {
    return this.#interfaces.values();
  }

  /** The host's ends of their links, by name. */
  links(): ReadonlyMap<string, InterfaceSpec> {
    const links = new Map<string, InterfaceSpec>();
    for (const [taskId, interfaces] of this.#interfaces) {
      for (const [which, spec] of interfaces.entries()) links.set(vethName(taskId, which), spec);
    }
    return links;
  }
}
