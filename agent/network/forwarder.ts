import { type Ip, type Ipv4, macOf } from "./address.ts";
import { addressesOf, type InterfaceSpec } from "./attach.ts";
import { isTaskLink, listLinks } from "./fabric.ts";
import {
  applyForwarding,
  type Forwarding,
  goneAddresses,
  goneMarks,
  type HostMark,
  type KernelForwarding,
  kernelAfter,
  type LocalAddress,
  marksOf,
  readForwarding,
  type Way,
} from "./forwarding.ts";
import type { Netlink } from "./netlink.ts";

/** What the cluster says is behind the fabric. */
export type FabricContent = Pick<Forwarding, "ways" | "nowhere" | "source" | "ipv6">;

/**
 * Keeps the kernel's entries as they should be. What was sent is remembered, so a change costs as much as it changes;
 * after `distrust` the kernel is asked for all of it.
 */
export class Forwarder {
  readonly #netlink: Netlink;
  readonly #options: { readonly group: number; readonly gateway: Ipv4 };
  #kernel: KernelForwarding | undefined;
  /** What led to that. */
  #applied: FabricContent | undefined;
  #marks: readonly HostMark[] = [];

  constructor(netlink: Netlink, options: { readonly group: number; readonly gateway: Ipv4 }) {
    this.#netlink = netlink;
    this.#options = options;
  }

  /** The marks of the other hosts. */
  get marks(): readonly HostMark[] {
    return this.#marks;
  }

  /** Somebody may have changed what the kernel has. */
  distrust(): void {
    this.#kernel = undefined;
  }

  /**
   * Makes the kernel know exactly this, and of live tasks' links what it lost; returns how much had to change, which
   * addresses led to a task that is gone, and which marks to a host that is.
   */
  async apply(
    content: FabricContent,
    links: () => ReadonlyMap<string, InterfaceSpec>,
    signal: AbortSignal,
  ): Promise<{ readonly changed: number; readonly gone: readonly Ip[]; readonly goneMarks: readonly number[] }> {
    const known = this.#kernel;
    if (known !== undefined && this.#applied !== undefined && isSame(this.#applied, content))
      return { changed: 0, gone: [], goneMarks: [] };
    this.#kernel = undefined;
    const kernel = known ?? (await readForwarding(this.#netlink, content, signal));
    // What joins a task to the host comes with its links; only what was lost since needs to be made here. Links are
    // asked for after the routes: a task that was attached meanwhile must not lose its route.
    const local = known === undefined ? await this.#localAddresses(links(), signal) : [];
    const wanted = { ...content, local, gateway: this.#options.gateway };
    const marks = marksOf(content.ways, kernel);
    const changed = await applyForwarding(this.#netlink, wanted, kernel, signal);
    this.#marks = marks;
    this.#kernel = kernelAfter({ ...wanted, local: [] }, marks);
    this.#applied = content;
    return { changed, gone: goneAddresses(content, kernel), goneMarks: goneMarks(marks, kernel) };
  }

  async #localAddresses(
    links: ReadonlyMap<string, InterfaceSpec>,
    signal: AbortSignal,
  ): Promise<readonly LocalAddress[]> {
    return (await listLinks(this.#netlink, signal)).flatMap((link) => {
      const spec = links.get(link.name);
      if (spec === undefined || !isTaskLink(link, this.#options.group)) return [];
      const mac = macOf(spec.address.address);
      return addressesOf(spec).map((address) => ({ address, index: link.index, mac }));
    });
  }
}

/** Whether two contents say the same in the same order: most changes of a cluster are of who serves, not of who is where. */
function isSame(one: FabricContent, other: FabricContent): boolean {
  return (
    one.ipv6 === other.ipv6 &&
    one.source === other.source &&
    sameList(one.ways, other.ways, isSameWay) &&
    sameList(one.nowhere, other.nowhere, (a, b) => a.address === b.address && a.length === b.length)
  );
}

function isSameWay(one: Way, other: Way): boolean {
  return (
    one.index === other.index &&
    one.under === other.under &&
    sameList(one.hosts, other.hosts, (a, b) => a === b) &&
    sameList(one.remote, other.remote, (a, b) => a.address === b.address && a.host === b.host)
  );
}

function sameList<T>(one: readonly T[], other: readonly T[], isEqual: (a: T, b: T) => boolean): boolean {
  if (one.length !== other.length) return false;
  return one.every((each, index) => {
    const found = other[index];
    return found !== undefined && isEqual(each, found);
  });
}
