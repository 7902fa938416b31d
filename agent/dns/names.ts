/**
 * The names that a task can ask for: those of the services and tasks on its own networks, and of no others. It holds plain
 * data, which is replaced whole; what one network's names mean is worked out when somebody first asks. Pure.
 */

/** A service on some networks. */
export interface NamedService {
  readonly serviceId: string;
  readonly name: string;
  readonly networks: readonly {
    readonly networkId: string;
    /** Virtual addresses; none with dnsrr. */
    readonly addresses: readonly string[];
    readonly aliases: readonly string[];
  }[];
}

/** A task on some networks. */
export interface NamedTask {
  readonly taskId: string;
  readonly serviceId: string;
  /** Its number, or its node's id where the service is global. */
  readonly slot: string;
  readonly networks: readonly { readonly networkId: string; readonly addresses: readonly string[] }[];
  readonly serving: boolean;
}

/** A task of this node: one that asks. */
export interface Client {
  /** All of its addresses: a question comes from one of them. */
  readonly addresses: readonly string[];
  /** In the order in which they are searched. */
  readonly networkIds: readonly string[];
  /** Whether it may ask for names beyond its networks. */
  readonly forwards: boolean;
  /** Whom to ask for those; empty: the host's servers. */
  readonly servers: readonly string[];
}

/** Everything that names follow from. */
export interface NameData {
  readonly networks: readonly { readonly networkId: string; readonly name: string }[];
  readonly services: readonly NamedService[];
  readonly tasks: readonly NamedTask[];
  readonly clients: readonly Client[];
}

/** What a name stands for. */
export interface NameEntry {
  /** IPv4 and IPv6, as text. */
  readonly addresses: readonly string[];
  /** How long that stays true, in seconds. */
  readonly ttl: number;
}

/**
 * A virtual address stays for as long as its service is on the network, so it may be remembered for a while; which tasks
 * serve may change the next moment.
 */
const VIRTUAL_TTL = 60;
const TASK_TTL = 0;

interface NetworkNames {
  readonly names: ReadonlyMap<string, NameEntry>;
  /** Names by address, for questions that go the other way. */
  readonly reverse: ReadonlyMap<string, string>;
}

export class ServiceNames {
  readonly #data: NameData;
  readonly #clients = new Map<string, Client>();
  readonly #networkNames: ReadonlyMap<string, string>;
  readonly #built = new Map<string, NetworkNames>();
  #turn = 0;

  constructor(data: NameData) {
    this.#data = data;
    this.#networkNames = new Map(data.networks.map(({ networkId, name }) => [networkId, name.toLowerCase()]));
    for (const client of data.clients) for (const address of client.addresses) this.#clients.set(address, client);
  }

  /** The task that an address is of. */
  client(address: string): Client | undefined {
    return this.#clients.get(address);
  }

  /**
   * What a name, in lower case, means to a task. `NAME.NETWORK` is looked up on that network alone; the first network of
   * the task that knows a name decides. Addresses of several tasks come in another order each time.
   */
  find({ networkIds }: Client, name: string): NameEntry | undefined {
    for (const networkId of networkIds) {
      const { names } = this.#namesOf(networkId);
      const entry = names.get(name) ?? names.get(withoutSuffix(name, this.#networkNames.get(networkId)));
      if (entry !== undefined) return { ...entry, addresses: rotated(entry.addresses, this.#turn++) };
    }
    return undefined;
  }

  /** The name of an address on one of the task's networks, with the network's behind it, as Docker has it. */
  findReverse({ networkIds }: Client, address: string): string | undefined {
    for (const networkId of networkIds) {
      const name = this.#namesOf(networkId).reverse.get(address);
      if (name !== undefined) return `${name}.${this.#networkNames.get(networkId) ?? networkId}`;
    }
    return undefined;
  }

  #namesOf(networkId: string): NetworkNames {
    const known = this.#built.get(networkId);
    if (known) return known;
    const built = buildNames(networkId, this.#data);
    this.#built.set(networkId, built);
    return built;
  }
}

function buildNames(networkId: string, { services, tasks }: NameData): NetworkNames {
  const names = new Map<string, NameEntry>();
  const reverse = new Map<string, string>();
  /** Two services may bear one alias: then it stands for both. */
  const add = (name: string, addresses: readonly string[], ttl: number) => {
    const lower = name.toLowerCase();
    const known = names.get(lower);
    if (known === undefined) names.set(lower, { addresses, ttl });
    else names.set(lower, { addresses: [...known.addresses, ...addresses], ttl: Math.min(ttl, known.ttl) });
  };
  const byService = new Map<string, { readonly task: NamedTask; readonly addresses: readonly string[] }[]>();
  for (const task of tasks) {
    const addresses = task.networks.find((each) => each.networkId === networkId)?.addresses;
    if (addresses === undefined) continue;
    const ofService = byService.get(task.serviceId);
    if (ofService) ofService.push({ task, addresses });
    else byService.set(task.serviceId, [{ task, addresses }]);
  }
  for (const { serviceId, name, networks } of services) {
    const on = networks.find((each) => each.networkId === networkId);
    if (on === undefined) continue;
    const all = byService.get(serviceId) ?? [];
    const serving = all.filter(({ task }) => task.serving).flatMap(({ addresses }) => addresses);
    const virtual = on.addresses.length > 0;
    const bearers = [...new Set([name, ...on.aliases])];
    for (const each of bearers) {
      add(each, virtual ? on.addresses : serving, virtual ? VIRTUAL_TTL : TASK_TTL);
      add(`tasks.${each}`, serving, TASK_TTL);
    }
    for (const address of on.addresses) reverse.set(address, name);
    for (const { task, addresses } of all) {
      const container = `${name}.${task.slot}.${task.taskId}`;
      // A slot's name is its task's from before it serves: members of one service find each other by it.
      for (const each of bearers) add(`${task.slot}.${each}`, addresses, TASK_TTL);
      for (const each of [container, task.taskId, task.taskId.slice(0, 12)]) add(each, addresses, TASK_TTL);
      for (const address of addresses) reverse.set(address, container);
    }
  }
  return { names, reverse };
}

function withoutSuffix(name: string, network: string | undefined): string {
  return network !== undefined && name.endsWith(`.${network}`) ? name.slice(0, -network.length - 1) : "";
}

function rotated(addresses: readonly string[], turn: number): readonly string[] {
  if (addresses.length < 2) return addresses;
  const first = turn % addresses.length;
  return [...addresses.slice(first), ...addresses.slice(0, first)];
}
