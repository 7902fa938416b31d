import { Backoff } from "../../common/base/backoff.ts";
import { abortable, abortReason, type Clock, withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { auditView } from "./audit.ts";
import { parseKey, ROOT } from "./keys.ts";
import { type Kind, kinds, type Objects } from "./kinds.ts";
import { type Kv, type KvEntry, readPages, type WatchEvent } from "./kv.ts";
import { decodeLeader } from "./leader.ts";
import { type View, ViewState } from "./view.ts";

export interface MirrorOptions {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Between two comparisons with the store. Default 10 minutes: how long a lost event can stay unseen. */
  readonly auditPeriodMs?: number;
}

const AUDIT_PERIOD_MS = 10 * 60_000;
const RETRY = { delayMsMin: 50, delayMsMax: 2_000 };
/** Events applied without letting others run: about 10 ms of work. */
const EVENTS_PER_TURN = 2_000;
/** How long an audit waits for the watch to come to the audited revision before it compares anyway. */
const CATCH_UP_MS = 5_000;

/**
 * Keeps the whole store in memory: lists it at a revision, watches from the next one, lists again and applies the
 * difference when the watch was compacted away, and every ten minutes compares itself with the store, since etcd's
 * watch has lost events before.
 *
 *      list at R ──► watch from R+1 ──► apply ──► readers, waiters
 *        ▲               │    ▲                      ▲
 *        └── compacted ──┘    └── audit differs ─────┘ list again
 */
export class Mirror {
  readonly #options: MirrorOptions;
  readonly #state = new ViewState();
  readonly #ready = Promise.withResolvers<void>();
  /** Keys that events touched since an audit began; undefined while none runs. */
  #touched: Set<string> | undefined;
  #relist = new AbortController();

  constructor(options: MirrorOptions) {
    this.#options = options;
  }

  get view(): View {
    return this.#state;
  }

  /** Resolves when the first list is in. */
  ready(signal: AbortSignal): Promise<void> {
    return abortable(this.#ready.promise, signal);
  }

  /** Runs until `signal` aborts. Throws `data_loss` when the store went back in time. */
  async run(signal: AbortSignal): Promise<void> {
    await using scope = new Scope(signal);
    scope.spawn("audit", (until) => this.#auditForever(until));
    scope.spawn("follow", (until) => this.#followForever(until));
    await scope.join();
    throw abortReason(signal);
  }

  async #followForever(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RETRY, this.#options.random);
    while (true) {
      try {
        await this.#list(signal);
        backoff.reset();
        this.#ready.resolve();
        await this.#follow(signal);
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        const error = SwarmError.from(reason);
        if (error.code === "data_loss") throw error;
        this.#options.logger.warn({ err: error, revision: this.#state.revision }, "cannot read the store");
        await this.#options.clock.sleep(backoff.nextDelayMs(), signal);
      }
    }
  }

  /** Lists the store and applies what differs in one go; the first list, which nobody reads yet, page by page. */
  async #list(signal: AbortSignal): Promise<void> {
    const first = this.#state.revision === 0;
    const seen = new Set<string>();
    const fresh: KvEntry[] = [];
    let revision = 0;
    for await (const page of readPages(this.#options.kv, { prefix: ROOT }, signal)) {
      revision = page.revision;
      if (first) for (const entry of page.entries) this.#put(entry);
      else {
        for (const entry of page.entries) {
          seen.add(entry.key);
          if (this.#isNews(entry)) fresh.push(entry);
        }
      }
    }
    if (revision < this.#state.revision) {
      throw new SwarmError("data_loss", `the store went back from revision ${this.#state.revision} to ${revision}`);
    }
    if (!first) {
      for (const key of [...this.#state.keys()]) if (!seen.has(key)) this.#remove(key);
      for (const entry of fresh) this.#put(entry);
    }
    this.#state.advance(revision);
  }

  /** Applies events until the watch is compacted or an audit asks for a new list. */
  async #follow(signal: AbortSignal): Promise<void> {
    this.#relist = new AbortController();
    const either = AbortSignal.any([signal, this.#relist.signal]);
    const fromRevision = this.#state.revision + 1;
    try {
      for await (const step of this.#options.kv.watch({ prefix: ROOT, fromRevision }, either)) {
        if (step.type === "compacted") {
          this.#options.logger.info({ revision: step.revision }, "watch was compacted, listing the store again");
          return;
        }
        await this.#applyAll(step.events, either);
        this.#state.advance(step.revision);
      }
    } catch (reason) {
      if (!this.#relist.signal.aborted || signal.aborted) throw reason;
    }
  }

  /** Applies events in turns that end where a revision ends. */
  async #applyAll(events: readonly WatchEvent[], signal: AbortSignal): Promise<void> {
    let inTurn = 0;
    let revision = 0;
    for (const event of events) {
      if (inTurn >= EVENTS_PER_TURN && event.modRevision > revision) {
        this.#state.advance(revision);
        await this.#options.clock.sleep(0, signal);
        inTurn = 0;
      }
      inTurn += 1;
      revision = event.modRevision;
      this.#touched?.add(event.key);
      if (event.type === "put") this.#put(event);
      else this.#remove(event.key);
    }
  }

  #put(entry: KvEntry): void {
    const key = parseKey(entry.key);
    if (key?.type === "object") this.#putObject(key.kind, key.id, entry);
    if (key?.type === "leader") this.#state.setLeader(decodeLeader(entry));
  }

  #putObject<K extends Kind>(kind: K, id: string, entry: KvEntry): void {
    let object: Objects[K];
    try {
      object = kinds[kind].decode(entry.value, entry.modRevision);
    } catch (reason) {
      // Somebody else wrote into our keys; one such value must not bring every manager down.
      this.#options.logger.error({ err: reason, key: entry.key }, "stored object is unreadable, left out");
      this.#state.remove(kind, id);
      return;
    }
    shareIds(object, this.#state);
    // The object's own id, not the key's slice, which would keep the whole key in memory.
    const own = kinds[kind].idOf(object);
    this.#state.put(kind, own === id ? own : id, object, entry.modRevision);
  }

  #remove(key: string): void {
    const parsed = parseKey(key);
    if (parsed?.type === "object") this.#state.remove(parsed.kind, parsed.id);
    if (parsed?.type === "leader") this.#state.setLeader(undefined);
  }

  #isNews(entry: KvEntry): boolean {
    const key = parseKey(entry.key);
    if (key?.type === "object") return this.#state.modRevision(key.kind, key.id) !== entry.modRevision;
    return key?.type === "leader";
  }

  async #auditForever(signal: AbortSignal): Promise<void> {
    const { clock, kv, logger, auditPeriodMs } = this.#options;
    await this.ready(signal);
    while (true) {
      await clock.sleep(auditPeriodMs ?? AUDIT_PERIOD_MS, signal);
      this.#touched = new Set();
      try {
        const difference = await auditView(
          { kv, state: this.#state, touched: this.#touched, catchUp: (revision) => this.#catchUp(revision, signal) },
          signal,
        );
        if (difference) {
          logger.warn({ difference }, "view differs from the store, listing it again");
          this.#relist.abort();
        }
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        logger.warn({ err: reason }, "cannot compare the view with the store");
      } finally {
        this.#touched = undefined;
      }
    }
  }

  async #catchUp(revision: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const options = { clock, timeoutMs: CATCH_UP_MS, operation: "catch up" };
    await withTimeout(options, signal, (until) => this.#state.waitForRevision(revision, until)).catch((reason) => {
      if (signal.aborted) throw reason;
      // The last write may lie outside our keys; or the watch hangs, which the comparison will show.
    });
  }
}

/** A million tasks name few services and nodes: let them share the strings. */
function shareIds(object: Objects[Kind], view: View): void {
  if (object.$typeName !== "swarm.v1.Task") return;
  object.serviceId = view.services.get(object.serviceId)?.id ?? object.serviceId;
  object.nodeId = view.nodes.get(object.nodeId)?.id ?? object.nodeId;
}
