/**
 * The store as one process reaches it: each call travels there and back, may wait behind a slow disk or a cut, may fail,
 * and a write may be made though its answer is lost. It also keeps book of who wrote under which fence (H4).
 */
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Random } from "../../common/base/random.ts";
import { LEADER_KEY } from "../../manager/store/keys.ts";
import {
  type Kv,
  type LeaseId,
  outcomeUnknown,
  type RangeRequest,
  type RangeResult,
  type TxnRequest,
  type TxnResult,
  type WatchRequest,
  type WatchStep,
} from "../../manager/store/kv.ts";
import type { MemoryKv } from "../../manager/store/memory-kv.ts";
import { between, chance } from "./chance.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { SimProcess } from "./sim-process.ts";

/** The store's name in the network. */
export const STORE = "store";

/** What goes wrong with the store; the nemesis turns these. */
export interface StoreFaults {
  /** The most that one way takes, in ms. */
  latencyMsMax: number;
  /** The most that a write waits for the disk, in ms. */
  diskMsMax: number;
  /** The probability that a call is refused, and that the answer to a write is lost. */
  unavailable: number;
  answerLost: number;
}

/** How long a call may take before the client gives up: EtcdKv's own. */
const DEADLINE_MS = 4_000;

/** Which writes were a leader's. */
export class FenceBook {
  readonly #epochs = new Map<number, number>();
  readonly violations: string[] = [];
  #newest = 0;

  /** Notes a write that landed. */
  wrote(request: TxnRequest, revision: number, who: string): void {
    const fence = request.compare.find((compare) => compare.key === LEADER_KEY && "createRevision" in compare);
    const epoch = fence && "createRevision" in fence ? fence.createRevision : 0;
    const campaigns = request.operations.some(({ key }) => key === LEADER_KEY);
    if (epoch === 0 || campaigns) return;
    if (epoch < this.#newest) {
      this.violations.push(`H4 at revision ${revision}: ${who} wrote in epoch ${epoch} after epoch ${this.#newest}`);
    }
    this.#newest = Math.max(this.#newest, epoch);
    this.#epochs.set(revision, epoch);
  }

  /** Whether the write of this revision was a leader's. */
  isFenced(revision: number): boolean {
    return this.#epochs.has(revision);
  }
}

export interface SimKvOptions {
  readonly kv: MemoryKv;
  readonly clock: Clock;
  readonly random: Random;
  readonly faults: StoreFaults;
  readonly network: SimNetwork;
  readonly fences: FenceBook;
  readonly process: SimProcess;
}

export class SimKv implements Kv {
  readonly #options: SimKvOptions;
  /** What lies at the store goes on though its caller no longer waits. */
  readonly #forever = new AbortController().signal;

  constructor(options: SimKvOptions) {
    this.#options = options;
  }

  range(request: RangeRequest, signal: AbortSignal): Promise<RangeResult> {
    return this.#call("read", signal, () => this.#options.kv.range(request, this.#forever));
  }

  txn(request: TxnRequest, signal: AbortSignal): Promise<TxnResult> {
    return this.#call("write", signal, async () => {
      const { kv, fences, process } = this.#options;
      const before = kv.revision;
      const made = kv.txn(request, this.#forever);
      // It is made by now; the book must know before the checker reads it.
      if (kv.revision > before) fences.wrote(request, kv.revision, process.name);
      return made;
    });
  }

  async *watch(request: WatchRequest, signal: AbortSignal): AsyncGenerator<WatchStep, void, undefined> {
    const { kv, process } = this.#options;
    const inner = kv.watch(request, AbortSignal.any([signal, process.killed]))[Symbol.asyncIterator]();
    while (true) {
      const next = await process.deliver(abortable(this.#nextStep(inner), signal));
      if (next.done) return;
      yield next.value;
    }
  }

  leaseGrant(ttlMs: number, signal: AbortSignal): Promise<{ readonly lease: LeaseId; readonly ttlMs: number }> {
    return this.#call("write", signal, () => this.#options.kv.leaseGrant(ttlMs, this.#forever));
  }

  leaseKeepAlive(lease: LeaseId, signal: AbortSignal): Promise<{ readonly ttlMs: number } | undefined> {
    return this.#call("read", signal, () => this.#options.kv.leaseKeepAlive(lease, this.#forever));
  }

  leaseRevoke(lease: LeaseId, signal: AbortSignal): Promise<void> {
    return this.#call("write", signal, () => this.#options.kv.leaseRevoke(lease, this.#forever));
  }

  async #nextStep(inner: AsyncIterator<WatchStep>): Promise<IteratorResult<WatchStep>> {
    const next = await inner.next();
    const { network, process } = this.#options;
    await this.#travel();
    await network.untilJoined(process.name, STORE, Number.POSITIVE_INFINITY);
    return next;
  }

  async #call<T>(kind: "read" | "write", signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const { process } = this.#options;
    await process.running();
    return process.deliver(abortable(this.#roundTrip(kind, work), signal));
  }

  async #roundTrip<T>(kind: "read" | "write", work: () => Promise<T>): Promise<T> {
    const { random, faults, network, process, clock } = this.#options;
    const startMs = clock.monotonicMs();
    const arrives = async () => {
      const leftMs = startMs + DEADLINE_MS - clock.monotonicMs();
      if (await network.untilJoined(process.name, STORE, leftMs)) return;
      const reason = new SwarmError("unavailable", `store: no answer in ${DEADLINE_MS} ms`);
      throw kind === "write" ? outcomeUnknown("store", reason) : reason;
    };
    await this.#travel();
    await arrives();
    if (chance(random, faults.unavailable)) throw new SwarmError("unavailable", "store: connection refused");
    if (kind === "write" && faults.diskMsMax > 0) await clock.sleep(between(random, 0, faults.diskMsMax));
    const result = await work();
    await this.#travel();
    await arrives();
    if (kind === "write" && chance(random, faults.answerLost)) {
      throw outcomeUnknown("store", new SwarmError("unavailable", "store: connection reset"));
    }
    return result;
  }

  #travel(): Promise<void> {
    const { clock, random, faults } = this.#options;
    return clock.sleep(between(random, 0.2, faults.latencyMsMax));
  }
}
