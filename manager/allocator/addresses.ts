/**
 * Which addresses tasks and services get: of the nodes' own network, and on each network of their specs. Rebuilt from the store by
 * every new leader, so that nothing that a former one lost stays lost.
 *
 *   task on no network, or on bridge                      one address of the cluster's pool
 *   task on networks                                      one on each, in the spec's order
 *   … that are all internal, with published ports         one of the pool beside them: ports lead there
 *   service with mode vip, no job                         one on each network
 */
import { SwarmError } from "../../common/base/error.ts";
import { ADDRESS_POOL_DEFAULT } from "../../common/model/defaults.ts";
import { parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { slotName } from "../../common/model/names.ts";
import {
  gatewayOf,
  hasVirtualAddresses,
  isNodeNetwork,
  isWithoutNetwork,
  overlayNetworks,
} from "../../common/model/networks.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import { hostProblem } from "../../common/model/validate-network.ts";
import type { Network, NetworkAddresses, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type IpamConfig, NodeStatus_State, type ServiceSpec, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { AddressAudit, type AuditFindings } from "./address-audit.ts";
import { AddressBook, AddressRange } from "./address-book.ts";
import { type Held, heldByService, heldByTask } from "./held.ts";

type AddressView = Pick<View, "byName" | "cluster" | "networks" | "nodes" | "services" | "tasks">;

/** What a task or service is given, or why it is given nothing. */
export type Allocation<T> = ({ readonly ok: true } & T) | { readonly ok: false; readonly problem: string };
export type TaskAddresses = Pick<Task, "address" | "networks">;

export class Addresses {
  readonly #book = new AddressBook();
  readonly #audit = new AddressAudit(this.#book);
  readonly #pool: AddressRange;
  readonly #poolCidr: string;
  /** By network id. */
  readonly #ranges = new Map<string, readonly AddressRange[]>();
  readonly #twice: string[] = [];

  /** Takes what the store says is taken. */
  constructor(view: AddressView) {
    const subnet = view.cluster?.spec?.addressPool || ADDRESS_POOL_DEFAULT;
    this.#poolCidr = subnet;
    this.#pool = rangeOf(this.#book, { subnet, gateway: gatewayOf(subnet), ipRange: "", auxAddresses: {} });
    for (const service of view.services.values()) {
      this.replace(service.id, [], heldByService(service));
      for (const vip of service.vips) this.#passOver(view, vip);
    }
    for (const task of view.tasks.values()) {
      for (const address of heldByTask(task)) {
        const holder = this.#book.holderOf(address);
        // A fixed address is in each of a slot's tasks: it is the one's that lives.
        if (holder === undefined || !isInUse(view, holder)) this.#book.take(address, task.id);
        else if (isInUse(view, task.id)) {
          this.#twice.push(`${address}: ${nameOf(view, holder)} and ${nameOf(view, task.id)}`);
        }
      }
      if (task.address !== "") this.#pool.passOver(task.address);
      for (const addresses of task.networks) this.#passOver(view, addresses);
    }
  }

  /** What the store had given to two holders that may use it, in words: only one of them can be reached. */
  get twice(): readonly string[] {
    return this.#twice;
  }

  /** How many addresses are taken. */
  get size(): number {
    return this.#book.size;
  }

  /** Compares what is taken with what the store says. */
  audit(view: Pick<AddressView, "services" | "tasks">): AuditFindings {
    return this.#audit.run(view);
  }

  /** An object's addresses have changed. */
  replace(holder: string, before: Held, after: Held): void {
    for (const address of before) if (!after.includes(address)) this.#book.release(address, holder);
    for (const address of after) if (!before.includes(address)) this.#book.take(address, holder);
  }

  /** A removed network has no addresses to give any more; those that are taken stay so until their holders go. */
  forget(networkId: string): void {
    this.#ranges.delete(networkId);
  }

  /** All that a task needs, or nothing. */
  forTask(view: AddressView, task: Task, spec: ServiceSpec | undefined): Allocation<TaskAddresses> {
    if (isWithoutNetwork(spec)) return { ok: true, address: "", networks: [] };
    const networks: NetworkAddresses[] = [];
    const giveBack = (problem: string): Allocation<TaskAddresses> => {
      this.replace(task.id, heldByTask({ address: "", networks }), []);
      return { ok: false, problem };
    };
    for (const { target, addresses: wanted } of spec?.task?.networks ?? []) {
      if (isNodeNetwork(target)) continue;
      const given = this.#onNetwork(view, target, { wanted, holder: task.id });
      if (!given.ok) return giveBack(given.problem);
      networks.push(given.addresses);
    }
    if (!needsPoolAddress(view, spec)) return { ok: true, address: "", networks };
    const address = this.#pool.allocate(task.id);
    return address === undefined ? giveBack(`no free address in ${this.#poolCidr}`) : { ok: true, address, networks };
  }

  /** A service's virtual addresses: those that it has stay, as long as it is on their networks. */
  forService(view: AddressView, service: Service, spec: ServiceSpec | undefined): Allocation<Pick<Service, "vips">> {
    const vips: NetworkAddresses[] = [];
    for (const target of virtualNetworks(spec)) {
      const network = view.byName("network", target);
      const present = service.vips.find(({ networkId }) => networkId === network?.id);
      const given = present
        ? ({ ok: true, addresses: present } as const)
        : this.#onNetwork(view, target, { wanted: [], holder: service.id });
      if (!given.ok) {
        this.replace(service.id, heldByService({ vips }), heldByService(service));
        return { ok: false, problem: `virtual address: ${given.problem}` };
      }
      vips.push(given.addresses);
    }
    return { ok: true, vips };
  }

  /** An address of each family that the network has: the one that is wanted, or the next. */
  #onNetwork(
    view: AddressView,
    target: string,
    { wanted, holder }: Wish,
  ): Allocation<{ readonly addresses: NetworkAddresses }> {
    const network = view.byName("network", target);
    if (network === undefined) return { ok: false, problem: `network ${target} not found` };
    const addresses: string[] = [];
    const giveBack = (problem: string) => {
      this.replace(holder, addresses, []);
      return { ok: false, problem: `network ${target}: ${problem}` } as const;
    };
    const ranges = this.#rangesOf(network);
    for (const [index, config] of network.ipam.entries()) {
      const fixed = wanted.find((address) => isIPv6(address) === isIPv6(config.subnet));
      const problem = fixed && this.#fixedProblem(view, config, { address: fixed, holder });
      if (problem !== undefined) return giveBack(problem);
      const address = fixed ? `${fixed}/${config.subnet.split("/")[1]}` : ranges[index]?.allocate(holder);
      if (address === undefined) return giveBack(`no free address in ${config.ipRange || config.subnet}`);
      this.#book.take(address, holder);
      addresses.push(address);
    }
    const outside = wanted.find((address) => !network.ipam.some(({ subnet }) => isIPv6(address) === isIPv6(subnet)));
    if (outside !== undefined) return giveBack(`has no subnet for ${outside}`);
    return { ok: true, addresses: { $typeName: "swarm.v1.NetworkAddresses", networkId: network.id, addresses } };
  }

  #fixedProblem(
    view: AddressView,
    { subnet, gateway, auxAddresses }: IpamConfig,
    { address, holder }: { readonly address: string; readonly holder: string },
  ): string | undefined {
    const prefix = parseIpPrefix(subnet);
    const problem = prefix && hostProblem(address, prefix);
    if (problem !== undefined) return problem;
    if ([gateway, ...Object.values(auxAddresses)].includes(address)) return `${address} is the network's own`;
    const present = this.#book.holderOf(address);
    if (present === undefined || present === holder || !isInUse(view, present)) return undefined;
    return `${address} is taken by ${nameOf(view, present)}`;
  }

  #rangesOf(network: Network): readonly AddressRange[] {
    const known = this.#ranges.get(network.id);
    if (known) return known;
    const ranges = network.ipam.map((config) => rangeOf(this.#book, config));
    this.#ranges.set(network.id, ranges);
    return ranges;
  }

  #passOver(view: AddressView, { networkId, addresses }: NetworkAddresses): void {
    const network = view.networks.get(networkId);
    if (!network) return;
    for (const range of this.#rangesOf(network)) for (const address of addresses) range.passOver(address);
  }
}

/** Addresses on one network. */
interface Wish {
  /** Fixed ones, at most one of each family. */
  readonly wanted: readonly string[];
  readonly holder: string;
}

/** The networks on which a service has virtual addresses. */
export function virtualNetworks(spec: ServiceSpec | undefined): readonly string[] {
  return hasVirtualAddresses(spec) ? overlayNetworks(spec) : [];
}

/** Whether a service's virtual addresses are on the networks that its spec names, whatever became of those meanwhile. */
export function areVipsCurrent(view: Pick<View, "byName">, service: Service, spec: ServiceSpec | undefined): boolean {
  const wanted = virtualNetworks(spec).map((name) => view.byName("network", name)?.id);
  return wanted.length === service.vips.length && service.vips.every(({ networkId }) => wanted.includes(networkId));
}

function needsPoolAddress(view: AddressView, spec: ServiceSpec | undefined): boolean {
  const overlays = overlayNetworks(spec);
  if (overlays.length === 0 || spec?.task?.networks.some(({ target }) => isNodeNetwork(target))) return true;
  const published = (spec?.endpoint?.ports.length ?? 0) > 0;
  return published && overlays.every((name) => view.byName("network", name)?.spec?.internal);
}

/** Whether a holder may still use its addresses: a task that ended, or that runs on as long as its lost node does, may not. */
function isInUse(view: AddressView, holder: string): boolean {
  const task = view.tasks.get(holder);
  if (!task) return view.services.has(holder);
  if (isTerminal(task.status?.state ?? TaskState.NEW)) return false;
  const isLost = view.nodes.get(task.nodeId)?.status?.state === NodeStatus_State.DOWN;
  return !isLost || task.desiredState <= TaskState.RUNNING;
}

/** A holder as people call it: "web.1", "service web". */
function nameOf(view: AddressView, holder: string): string {
  const task = view.tasks.get(holder);
  if (!task) return `service ${view.services.get(holder)?.name ?? holder}`;
  const service = view.services.get(task.serviceId);
  return service ? slotName(service.name, task) : `task ${task.id}`;
}

function rangeOf(book: AddressBook, config: Pick<IpamConfig, "subnet" | "gateway" | "ipRange" | "auxAddresses">) {
  const subnet = parseIpPrefix(config.subnet);
  if (!subnet) throw new SwarmError("data_loss", `${config.subnet} is not a subnet`);
  const reserved = [config.gateway, ...Object.values(config.auxAddresses)].filter((address) => address !== "");
  return new AddressRange(book, { subnet, range: parseIpPrefix(config.ipRange), reserved });
}

function isIPv6(address: string): boolean {
  return address.includes(":");
}
