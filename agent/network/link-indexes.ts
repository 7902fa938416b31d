import { isTaskLink, listLinks } from "./fabric.ts";
import type { Netlink } from "./netlink.ts";

/** Above what the kernel gives by itself: it counts up from one. */
const FIRST = 1 << 20;

/**
 * Free indexes for the hosts' ends of veths. They are chosen here, so that the messages which follow a link's creation
 * may name it before anybody has been told what the kernel would have chosen.
 */
export class LinkIndexes {
  readonly #netlink: Netlink;
  readonly #group: number;
  #next = FIRST;

  constructor(netlink: Netlink, group: number) {
    this.#netlink = netlink;
    this.#group = group;
  }

  /** Looks which indexes are taken: those of an earlier run, and anybody's. */
  async read(signal: AbortSignal): Promise<void> {
    for (const link of await listLinks(this.#netlink, signal)) {
      if (link.index >= this.#next || isTaskLink(link, this.#group)) this.#next = Math.max(this.#next, link.index + 1);
    }
  }

  next(): number {
    return this.#next++;
  }
}
