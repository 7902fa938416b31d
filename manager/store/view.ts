import { abortReason } from "../../common/base/clock.ts";
import type {
  Cluster,
  Config,
  Image,
  Ipam,
  LogSubscription,
  ManagerInfo,
  Network,
  Node,
  NodeVolumes,
  Secret,
  Service,
  Session,
  SpecVersion,
  Stack,
  StreamRequest,
  Task,
  User,
  Volume,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type Change, ChangeFeed } from "./changes.ts";
import { objectKey } from "./keys.ts";
import { KINDS, type Kind, kinds, type NamedKind, type Objects, type VersionKind, versionId } from "./kinds.ts";
import type { LeaderView } from "./leader.ts";
import { NetworkIndex } from "./network-index.ts";
import { type Slot, TaskIndex } from "./task-index.ts";
import { VersionIndex } from "./version-index.ts";

/**
 * The whole store in memory, for synchronous reads. Between two awaits it stands still at `revision`. Objects are
 * shared and never change: an update is a new object in the old one's place.
 */
export interface View {
  readonly revision: number;
  readonly services: ReadonlyMap<string, Service>;
  readonly tasks: ReadonlyMap<string, Task>;
  readonly nodes: ReadonlyMap<string, Node>;
  /** By id, which is the manifest digest's hex. */
  readonly images: ReadonlyMap<string, Image>;
  /** By node id. */
  readonly sessions: ReadonlyMap<string, Session>;
  readonly managers: ReadonlyMap<string, ManagerInfo>;
  readonly logSubscriptions: ReadonlyMap<string, LogSubscription>;
  readonly streamRequests: ReadonlyMap<string, StreamRequest>;
  readonly secrets: ReadonlyMap<string, Secret>;
  readonly configs: ReadonlyMap<string, Config>;
  readonly volumes: ReadonlyMap<string, Volume>;
  /** By node id. */
  readonly nodeVolumes: ReadonlyMap<string, NodeVolumes>;
  readonly networks: ReadonlyMap<string, Network>;
  readonly stacks: ReadonlyMap<string, Stack>;
  readonly users: ReadonlyMap<string, User>;
  readonly cluster: Cluster | undefined;
  /** Absent until the first network is made. */
  readonly ipam: Ipam | undefined;
  /** Who leads, as far as this view has come. */
  readonly leader: LeaderView | undefined;
  get<K extends Kind>(kind: K, id: string): Objects[K] | undefined;
  /** The mod_revision of an object, also of kinds that carry no Meta; undefined: there is none. */
  version(kind: Kind, id: string): bigint | undefined;
  /** The object of a kind that bears a unique name. */
  byName<K extends NamedKind>(kind: K, name: string): Objects[K] | undefined;
  serviceByName(name: string): Service | undefined;
  /** One version of a parent: of a service's spec, a secret's content, a stack. */
  versionOf<K extends VersionKind>(kind: K, parentId: string, version: bigint): Objects[K] | undefined;
  /** All versions of a parent, oldest first. */
  versionsOf<K extends VersionKind>(kind: K, parentId: string): readonly Objects[K][];
  specVersion(serviceId: string, version: bigint): SpecVersion | undefined;
  /** A service's spec versions, oldest first. */
  specVersions(serviceId: string): readonly SpecVersion[];
  tasksOfService(serviceId: string): Iterable<Task>;
  /** The slots of a service that hold a task. */
  slotsOfService(serviceId: string): Iterable<Slot>;
  tasksOfSlot(serviceId: string, slot: Slot): readonly Task[];
  tasksOfNode(nodeId: string): Iterable<Task>;
  /** Ids of the tasks on a network that can be reached: on their nodes, and not ended. */
  tasksOnNetwork(networkId: string): Iterable<string>;
  /** Ids of the nodes that have such tasks. */
  nodesOnNetwork(networkId: string): Iterable<string>;
  taskCountOfNode(nodeId: string): number;
  nodesByHostname(hostname: string): readonly Node[];
  /** The image that bears a canonical reference; the newest if several do. */
  imageByName(name: string): Image | undefined;
  /**
   * Every change from this call on, in batches: read the view after calling it and nothing is missed. While the reader
   * is slow, changes of one object melt into one. Throws the abort reason.
   */
  changes(signal: AbortSignal): AsyncIterable<readonly Change[]>;
  /** Resolves once the view has come to `revision`. */
  waitForRevision(revision: number, signal: AbortSignal): Promise<void>;
}

type Tables = { readonly [K in Kind]: Map<string, Objects[K]> };

/** The view with its writing side, which only the mirror uses: `put` and `remove`, then `advance`. */
export class ViewState implements View {
  readonly #tables: Tables = {
    service: new Map(),
    spec: new Map(),
    task: new Map(),
    node: new Map(),
    image: new Map(),
    secret: new Map(),
    config: new Map(),
    content: new Map(),
    volume: new Map(),
    nodevolumes: new Map(),
    network: new Map(),
    ipam: new Map(),
    stack: new Map(),
    stackrevision: new Map(),
    user: new Map(),
    cluster: new Map(),
    session: new Map(),
    manager: new Map(),
    logs: new Map(),
    stream: new Map(),
  };
  /** Versions of objects that carry no Meta, by kind and id. */
  readonly #versions = new Map<string, number>();
  readonly #taskIndex = new TaskIndex();
  readonly #networkIndex = new NetworkIndex();
  /** Ids by kind and unique name. */
  readonly #idByName = new Map<string, string>();
  readonly #versionIndex = new VersionIndex();
  readonly #nodesByHostname = new Map<string, readonly Node[]>();
  readonly #imagesByName = new Map<string, readonly Image[]>();
  readonly #feeds = new Set<ChangeFeed>();
  readonly #waiters = new Set<{ readonly revision: number; readonly resolve: () => void }>();
  #revision = 0;
  #leader: LeaderView | undefined;

  get revision(): number {
    return this.#revision;
  }
  get services(): ReadonlyMap<string, Service> {
    return this.#tables.service;
  }
  get tasks(): ReadonlyMap<string, Task> {
    return this.#tables.task;
  }
  get nodes(): ReadonlyMap<string, Node> {
    return this.#tables.node;
  }
  get images(): ReadonlyMap<string, Image> {
    return this.#tables.image;
  }
  get sessions(): ReadonlyMap<string, Session> {
    return this.#tables.session;
  }
  get managers(): ReadonlyMap<string, ManagerInfo> {
    return this.#tables.manager;
  }
  get logSubscriptions(): ReadonlyMap<string, LogSubscription> {
    return this.#tables.logs;
  }
  get streamRequests(): ReadonlyMap<string, StreamRequest> {
    return this.#tables.stream;
  }
  get secrets(): ReadonlyMap<string, Secret> {
    return this.#tables.secret;
  }
  get configs(): ReadonlyMap<string, Config> {
    return this.#tables.config;
  }
  get volumes(): ReadonlyMap<string, Volume> {
    return this.#tables.volume;
  }
  get networks(): ReadonlyMap<string, Network> {
    return this.#tables.network;
  }
  get nodeVolumes(): ReadonlyMap<string, NodeVolumes> {
    return this.#tables.nodevolumes;
  }
  get stacks(): ReadonlyMap<string, Stack> {
    return this.#tables.stack;
  }
  get users(): ReadonlyMap<string, User> {
    return this.#tables.user;
  }
  get cluster(): Cluster | undefined {
    return this.#tables.cluster.get("default");
  }
  get ipam(): Ipam | undefined {
    return this.#tables.ipam.get("default");
  }
  get leader(): LeaderView | undefined {
    return this.#leader;
  }

  get<K extends Kind>(kind: K, id: string): Objects[K] | undefined {
    return this.#tables[kind].get(id);
  }

  version<K extends Kind>(kind: K, id: string): bigint | undefined {
    const object = this.get(kind, id);
    if (!object) return undefined;
    const version = kinds[kind].metaOf(object)?.version;
    return version ?? BigInt(this.#versions.get(`${kind}/${id}`) ?? 0);
  }

  byName<K extends NamedKind>(kind: K, name: string): Objects[K] | undefined {
    const id = this.#idByName.get(`${kind}/${name}`);
    return id === undefined ? undefined : this.#tables[kind].get(id);
  }

  serviceByName(name: string): Service | undefined {
    return this.byName("service", name);
  }

  versionOf<K extends VersionKind>(kind: K, parentId: string, version: bigint): Objects[K] | undefined {
    return this.#tables[kind].get(versionId(parentId, version));
  }

  versionsOf<K extends VersionKind>(kind: K, parentId: string): readonly Objects[K][] {
    const versions = this.#versionIndex.of(kind, parentId);
    return versions.flatMap((version) => this.versionOf(kind, parentId, version) ?? []);
  }

  specVersion(serviceId: string, version: bigint): SpecVersion | undefined {
    return this.versionOf("spec", serviceId, version);
  }

  specVersions(serviceId: string): readonly SpecVersion[] {
    return this.versionsOf("spec", serviceId);
  }

  tasksOfService(serviceId: string): Iterable<Task> {
    return this.#taskIndex.ofService(serviceId);
  }

  slotsOfService(serviceId: string): Iterable<Slot> {
    return this.#taskIndex.slotsOf(serviceId);
  }

  tasksOfSlot(serviceId: string, slot: Slot): readonly Task[] {
    return this.#taskIndex.ofSlot(serviceId, slot);
  }

  tasksOfNode(nodeId: string): Iterable<Task> {
    return this.#taskIndex.ofNode(nodeId);
  }

  tasksOnNetwork(networkId: string): Iterable<string> {
    return this.#networkIndex.tasksOn(networkId);
  }

  nodesOnNetwork(networkId: string): Iterable<string> {
    return this.#networkIndex.nodesOn(networkId);
  }

  taskCountOfNode(nodeId: string): number {
    return this.#taskIndex.countOfNode(nodeId);
  }

  nodesByHostname(hostname: string): readonly Node[] {
    return this.#nodesByHostname.get(hostname) ?? [];
  }

  imageByName(name: string): Image | undefined {
    return this.#imagesByName.get(name)?.at(-1);
  }

  changes(signal: AbortSignal): AsyncIterable<readonly Change[]> {
    const feed = new ChangeFeed();
    // Joined now, not at the first read: what changes in between must not be missed.
    this.#feeds.add(feed);
    const leave = () => this.#feeds.delete(feed);
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
    return (async function* read() {
      try {
        while (true) yield await feed.take(signal);
      } finally {
        leave();
        signal.removeEventListener("abort", leave);
      }
    })();
  }

  async waitForRevision(revision: number, signal: AbortSignal): Promise<void> {
    if (this.#revision >= revision) return;
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter = { revision, resolve };
    this.#waiters.add(waiter);
    signal.addEventListener("abort", resolve as () => void, { once: true });
    await promise;
    signal.removeEventListener("abort", resolve as () => void);
    this.#waiters.delete(waiter);
    if (this.#revision < revision) throw abortReason(signal);
  }

  /** The mod_revision at which an object stands here; 0 for none. */
  modRevision(kind: Kind, id: string): number {
    return Number(this.version(kind, id) ?? 0n);
  }

  /** Puts a freshly decoded object in place. */
  put<K extends Kind>(kind: K, id: string, object: Objects[K], modRevision: number): void {
    const before = this.#tables[kind].get(id);
    this.#tables[kind].set(id, object);
    if (!kinds[kind].hasMeta) this.#versions.set(`${kind}/${id}`, modRevision);
    this.#changed({ kind, id, before, after: object } as Change);
  }

  /** Takes an object out; none is no error. */
  remove(kind: Kind, id: string): void {
    const before = this.#tables[kind].get(id);
    if (!before) return;
    this.#tables[kind].delete(id);
    this.#versions.delete(`${kind}/${id}`);
    this.#changed({ kind, id, before, after: undefined } as Change);
  }

  setLeader(leader: LeaderView | undefined): void {
    this.#leader = leader;
  }

  /** Says that everything up to `revision` is in; wakes readers and waiters. */
  advance(revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
    for (const waiter of this.#waiters) if (waiter.revision <= this.#revision) waiter.resolve();
    for (const feed of this.#feeds) feed.flush();
  }

  /** How many objects there are. */
  get size(): number {
    return KINDS.reduce((sum, kind) => sum + this.#tables[kind].size, 0);
  }

  /** The keys of all objects. */
  *keys(): Generator<string, void, undefined> {
    for (const kind of KINDS) for (const id of this.#tables[kind].keys()) yield objectKey(kind, id);
  }

  #changed(change: Change): void {
    switch (change.kind) {
      case "task":
        this.#taskIndex.replace(change.before, change.after);
        this.#networkIndex.replace(change.before, change.after);
        break;
      case "service":
      case "secret":
      case "config":
      case "volume":
      case "network":
      case "stack":
      case "user":
        if (change.before) this.#idByName.delete(`${change.kind}/${change.before.name}`);
        if (change.after) this.#idByName.set(`${change.kind}/${change.after.name}`, change.id);
        break;
      case "spec":
      case "content":
      case "stackrevision":
        if (change.after) this.#versionIndex.add(change.kind, change.id);
        else this.#versionIndex.delete(change.kind, change.id);
        break;
      case "node":
        moveInto(this.#nodesByHostname, change, ({ description }) => [description?.hostname ?? ""]);
        break;
      case "image":
        moveInto(this.#imagesByName, change, ({ names }) => names);
        break;
      case "nodevolumes":
      case "ipam":
      case "cluster":
      case "session":
      case "manager":
      case "logs":
      case "stream":
        break;
      default:
        change satisfies never;
    }
    for (const feed of this.#feeds) feed.add(change);
  }
}

/** Moves an object in an index from the words it had to the words it has; the newest stands last. */
function moveInto<T>(
  index: Map<string, readonly T[]>,
  { before, after }: { readonly before: T | undefined; readonly after: T | undefined },
  wordsOf: (object: T) => readonly string[],
): void {
  for (const word of before ? wordsOf(before) : []) {
    const others = (index.get(word) ?? []).filter((object) => object !== before);
    if (others.length > 0) index.set(word, others);
    else index.delete(word);
  }
  for (const word of after ? wordsOf(after) : []) {
    if (after) index.set(word, [...(index.get(word) ?? []), after]);
  }
}
