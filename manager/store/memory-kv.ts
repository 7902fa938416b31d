import { abortReason, type Clock } from "../../common/base/clock.ts";
import { assert, SwarmError } from "../../common/base/error.ts";
import type {
  Compare,
  Kv,
  KvEntry,
  LeaseId,
  Operation,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
  WatchEvent,
  WatchRequest,
  WatchStep,
} from "./kv.ts";

/** etcd's limits and habits, so that what passes here passes there. */
const ETCD_OPERATIONS_MAX = 128;
const ETCD_REQUEST_BYTES_MAX = 1.5 * 1024 * 1024;
const ETCD_TTL_MS_MIN = 2000;
const WATCH_REVISIONS_MAX = 1000;

interface Version {
  readonly modRevision: number;
  /** Undefined: deleted at this revision. */
  readonly entry: KvEntry | undefined;
}

interface MemoryLease {
  readonly ttlMs: number;
  readonly keys: Set<string>;
  timer: AbortController;
}

interface Revision {
  readonly revision: number;
  readonly events: readonly WatchEvent[];
}

/**
 * The store in memory with etcd's contract: revisions, history, compaction, leases. It serves simulations and tests;
 * the programs never use it. `test/contract/kv.test.ts` holds it to what etcd does.
 */
export class MemoryKv implements Kv, Disposable {
  readonly #clock: Clock;
  readonly #versions = new Map<string, Version[]>();
  readonly #history: Revision[] = [];
  readonly #leases = new Map<LeaseId, MemoryLease>();
  readonly #waiting = new Set<() => void>();
  /** Every key that has versions, in order; sorted again when a new key came. */
  #keys: string[] = [];
  #keysDirty = false;
  #revision = 1;
  #compacted = 0;
  #leaseCount = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The current revision. */
  get revision(): number {
    return this.#revision;
  }

  async range(request: RangeRequest, signal: AbortSignal): Promise<RangeResult> {
    throwIfAborted(signal);
    const at = request.revision ?? this.#revision;
    if (at < this.#compacted) throw compactedError(at, this.#compacted);
    if (at > this.#revision) {
      throw new SwarmError("out_of_range", `read at revision ${at}: the store is at ${this.#revision}`);
    }
    const entries: KvEntry[] = [];
    let more = false;
    for (const key of this.#select(request.from)) {
      const entry = this.#entryAt(key, at);
      if (!entry) continue;
      if (entries.length === request.limit) {
        more = true;
        break;
      }
      entries.push((request.keysOnly ? withoutValue(entry) : undefined) ?? entry);
    }
    return { revision: this.#revision, entries, more };
  }

  async txn(request: TxnRequest, signal: AbortSignal): Promise<TxnResult> {
    throwIfAborted(signal);
    checkLimits(request);
    if (!request.compare.every((compare) => this.#holds(compare))) {
      const found = request.compare.map(({ key }) => withoutValue(this.#entryAt(key, this.#revision)));
      return { succeeded: false, revision: this.#revision, found };
    }
    for (const operation of request.operations) {
      if (operation.type === "put" && operation.lease && !this.#leases.has(operation.lease)) {
        throw new SwarmError("not_found", `put ${operation.key}: lease ${operation.lease} is gone`);
      }
    }
    this.#apply(request.operations);
    return { succeeded: true, revision: this.#revision };
  }

  async *watch(request: WatchRequest, signal: AbortSignal): AsyncGenerator<WatchStep, void, undefined> {
    let next = request.fromRevision;
    while (true) {
      throwIfAborted(signal);
      if (next <= this.#compacted) {
        yield { type: "compacted", revision: this.#compacted };
        return;
      }
      if (next > this.#revision) {
        await this.#changed(signal);
        continue;
      }
      const first = next - (this.#history[0]?.revision ?? next);
      const batch = this.#history.slice(Math.max(0, first), Math.max(0, first) + WATCH_REVISIONS_MAX);
      const revision = batch.at(-1)?.revision ?? this.#revision;
      const events = batch.flatMap((one) => one.events.filter((event) => event.key.startsWith(request.prefix)));
      next = revision + 1;
      if (events.length > 0) yield { type: "events", revision: events.at(-1)?.modRevision ?? revision, events };
    }
  }

  async leaseGrant(ttlMs: number, signal: AbortSignal): Promise<{ readonly lease: LeaseId; readonly ttlMs: number }> {
    throwIfAborted(signal);
    const granted = Math.max(ETCD_TTL_MS_MIN, Math.ceil(ttlMs / 1000) * 1000);
    this.#leaseCount += 1;
    const lease = String(this.#leaseCount) as LeaseId;
    this.#leases.set(lease, { ttlMs: granted, keys: new Set(), timer: this.#expire(lease, granted) });
    return { lease, ttlMs: granted };
  }

  async leaseKeepAlive(lease: LeaseId, signal: AbortSignal): Promise<{ readonly ttlMs: number } | undefined> {
    throwIfAborted(signal);
    const found = this.#leases.get(lease);
    if (!found) return undefined;
    found.timer.abort();
    found.timer = this.#expire(lease, found.ttlMs);
    return { ttlMs: found.ttlMs };
  }

  async leaseRevoke(lease: LeaseId, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    this.#end(lease);
  }

  /** Forgets what happened before `revision`, as etcd's compaction does. */
  compact(revision: number): void {
    assert(revision <= this.#revision, `compact ${revision}: the store is at ${this.#revision}`);
    this.#compacted = Math.max(this.#compacted, revision);
    while ((this.#history[0]?.revision ?? Infinity) <= revision) this.#history.shift();
    for (const [key, versions] of this.#versions) {
      const kept = versions.filter((_, index) => (versions[index + 1]?.modRevision ?? Infinity) > revision);
      if (kept.length === 1 && kept[0]?.entry === undefined && (kept[0]?.modRevision ?? 0) <= revision) {
        this.#versions.delete(key);
        this.#keysDirty = true;
      } else if (kept.length < versions.length) this.#versions.set(key, kept);
    }
    this.#wake();
  }

  /** Stops the timers of all leases. */
  [Symbol.dispose](): void {
    for (const lease of this.#leases.values()) lease.timer.abort();
  }

  #select(from: RangeRequest["from"]): Iterable<string> {
    if ("key" in from) return [from.key];
    if (this.#keysDirty) {
      this.#keys = [...this.#versions.keys()].sort((left, right) => (left < right ? -1 : 1));
      this.#keysDirty = false;
    }
    return keysBelow(this.#keys, from.prefix, from.after);
  }

  #entryAt(key: string, revision: number): KvEntry | undefined {
    return this.#versions.get(key)?.findLast((version) => version.modRevision <= revision)?.entry;
  }

  #holds(compare: Compare): boolean {
    const entry = this.#entryAt(compare.key, this.#revision);
    if ("modRevision" in compare) return (entry?.modRevision ?? 0) === compare.modRevision;
    return (entry?.createRevision ?? 0) === compare.createRevision;
  }

  #apply(operations: readonly Operation[]): void {
    const revision = this.#revision + 1;
    const events: WatchEvent[] = [];
    for (const operation of operations) {
      const before = this.#entryAt(operation.key, this.#revision);
      if (operation.type === "delete" && !before) continue;
      if (before?.lease) this.#leases.get(before.lease)?.keys.delete(operation.key);
      if (operation.type === "delete") {
        this.#record(operation.key, { modRevision: revision, entry: undefined });
        events.push({ type: "delete", key: operation.key, modRevision: revision });
        continue;
      }
      const { key, value, lease } = operation;
      const entry = {
        key,
        value,
        createRevision: before?.createRevision ?? revision,
        modRevision: revision,
        lease,
      };
      if (lease) this.#leases.get(lease)?.keys.add(key);
      this.#record(key, { modRevision: revision, entry });
      events.push({ type: "put", ...entry });
    }
    if (events.length === 0) return;
    this.#revision = revision;
    this.#history.push({ revision, events });
    this.#wake();
  }

  #record(key: string, version: Version): void {
    const versions = this.#versions.get(key);
    if (versions) versions.push(version);
    else {
      this.#versions.set(key, [version]);
      this.#keysDirty = true;
    }
  }

  #expire(lease: LeaseId, ttlMs: number): AbortController {
    const timer = new AbortController();
    this.#clock.sleep(ttlMs, timer.signal).then(
      () => this.#end(lease),
      () => {},
    );
    return timer;
  }

  #end(lease: LeaseId): void {
    const found = this.#leases.get(lease);
    if (!found) return;
    found.timer.abort();
    this.#leases.delete(lease);
    this.#apply([...found.keys].map((key) => ({ type: "delete", key })));
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  async #changed(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    try {
      await promise;
    } finally {
      this.#waiting.delete(wake);
      signal.removeEventListener("abort", wake);
    }
  }
}

function withoutValue(entry: KvEntry | undefined): KvEntry | undefined {
  return entry && { ...entry, value: new Uint8Array() };
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortReason(signal);
}

function compactedError(revision: number, compacted: number): SwarmError {
  return new SwarmError("out_of_range", `read at revision ${revision}: compacted up to ${compacted}`);
}

function checkLimits({ compare, operations }: TxnRequest): void {
  if (Math.max(compare.length, operations.length) > ETCD_OPERATIONS_MAX) {
    throw new SwarmError("invalid_argument", `transaction: more than ${ETCD_OPERATIONS_MAX} operations`);
  }
  if (new Set(operations.map(({ key }) => key)).size < operations.length) {
    throw new SwarmError("invalid_argument", "transaction: duplicate key");
  }
  let bytes = 0;
  for (const operation of operations) {
    bytes += operation.key.length + (operation.type === "put" ? operation.value.length : 0);
  }
  if (bytes > ETCD_REQUEST_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `transaction: request is too large (${bytes} bytes)`);
  }
}

function* keysBelow(keys: readonly string[], prefix: string, after: string | undefined): Generator<string> {
  const start = after !== undefined && after > prefix ? after : prefix;
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? "") < start) low = middle + 1;
    else high = middle;
  }
  for (let index = low; index < keys.length; index++) {
    const key = keys[index] ?? "";
    if (!key.startsWith(prefix)) return;
    if (key !== after) yield key;
  }
}
