/**
 * Puts back the links that running tasks lost: somebody deleted the host's end of a veth, or took it down, and the
 * container's end went with it. The same operations as at first, the container's half sent from its own namespace.
 */
import { SwarmError } from "../../common/base/error.ts";
import type { TaskId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import { type AttachOp, type InterfaceSpec, linkName, vethName } from "./attach.ts";
import { isTaskLink, listLinks, removeLink } from "./fabric.ts";
import { exchange, NETLINK, type Netlink } from "./netlink.ts";

/** Netlink in a task's own network namespace, until it is disposed. */
export type TaskNetlink = Netlink & AsyncDisposable;

/** What mending needs from outside. */
export interface LinkMenderOptions {
  readonly netlink: Netlink;
  readonly logger: Logger;
  /** The link group of the fabric's veths. */
  readonly group: number;
  /** Enters the namespace of a task whose links were made; undefined while it has no process that lives. */
  readonly enter: (taskId: TaskId, signal: AbortSignal) => Promise<TaskNetlink | undefined>;
  /** What `routedOps` says of the task, for a process of the host's namespace. */
  readonly opsOf: (taskId: TaskId, interfaces: readonly InterfaceSpec[]) => readonly AttachOp[];
}

export class LinkMender {
  readonly #options: LinkMenderOptions;

  constructor(options: LinkMenderOptions) {
    this.#options = options;
  }

  /**
   * Looks once, and mends what is missing. One task that cannot be helped is logged and does not keep the others from
   * it. What is right is not touched.
   */
  async mend(live: Iterable<readonly [TaskId, readonly InterfaceSpec[]]>, signal: AbortSignal): Promise<void> {
    // Live tasks first: one that is attached meanwhile would be missing among links that were read before.
    const tasks = [...live];
    const { netlink, group, logger } = this.#options;
    const links = (await listLinks(netlink, signal)).filter((link) => isTaskLink(link, group) && link.up);
    const present = new Set(links.map(({ name }) => name));
    for (const [taskId, interfaces] of tasks) {
      const names = interfaces.map((_, which) => vethName(taskId, which));
      const missing = names.filter((name) => !present.has(name));
      if (missing.length === 0) continue;
      try {
        if (await this.#relink(taskId, interfaces, signal)) {
          logger.warn({ taskId, links: missing }, "a running task had lost its network link: made again");
        }
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        logger.warn({ taskId, links: missing, err: reason }, "a running task's network link cannot be made again");
      }
    }
  }

  /** All of the task's links anew: what leads out of its namespace depends on each of them. False: it does not run. */
  async #relink(taskId: TaskId, interfaces: readonly InterfaceSpec[], signal: AbortSignal): Promise<boolean> {
    const { netlink, enter, opsOf } = this.#options;
    await using inside = await enter(taskId, signal);
    if (inside === undefined) return false;
    for (const which of interfaces.keys()) {
      await removeLink(inside, { name: linkName(which) }, signal);
      await removeLink(netlink, { name: vethName(taskId, which) }, signal);
    }
    for (const op of opsOf(taskId, interfaces)) {
      // What else there is are settings of the namespace, which it still has.
      if (op.op !== "netlink") continue;
      // Routing rules stay when their link goes.
      const request = { protocol: NETLINK.ROUTE, message: op.message, label: op.label, tolerated: ["EEXIST"] };
      await exchange(op.side === "host" ? netlink : inside, request, signal);
    }
    return true;
  }
}
