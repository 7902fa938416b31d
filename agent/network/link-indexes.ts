import { isTaskLink, listLinks } from "./fabric.ts";
import type { Netlink } from "./netlink.ts";

/** How many a fabric has for itself, and of how many ranges: above what the kernel gives, which counts up from one. */
const RANGE = 1 << 20;
const RANGES = 1 << 10;

/**
 * Free indexes for the hosts' ends of veths. They are chosen here, so that the messages which follow a link's creation
 * may name it before anybody has been told what the kernel would have chosen. Agents that share a network namespace begin
 * in different ranges: neither sees what the other has chosen a moment ago.
 */
export class LinkIndexes {
  readonly #netlink: Netlink;
  readonly #group: number;
  #next: number;

  constructor(netlink: Netlink, group: number) {
    this.#netlink = netlink;
    this.#group = group;
    this.#next = RANGE * (1 + (group % RANGES));
  }

  /** Looks which indexes are taken: those of an earlier run, and of anybody else in the range. */
  async read(signal: AbortSignal): Promise<void> {
    const end = RANGE * (2 + (this.#group % RANGES));
    for (const link of await listLinks(this.#netlink, signal)) {
      const isNear = link.index >= this.#next && link.index < end;
      if (isNear || isTaskLink(link, this.#group)) this.#next = Math.max(this.#next, link.index + 1);
    }
  }

  next(): number {
    return this.#next++;
  }
}
