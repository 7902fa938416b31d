import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { abortReason, type Clock, withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type Random, randomInteger } from "../../common/base/random.ts";
import { pack, toUnits, type Unit } from "./batch.ts";
import { LEADER_KEY, nameKey } from "./keys.ts";
import type { Kind } from "./kinds.ts";
import type { Compare, Kv, KvEntry } from "./kv.ts";
import type { Fence, Proposal, ProposalGroup } from "./proposal.ts";
import { sendGuarded } from "./send-guarded.ts";
import type { View } from "./view.ts";

export interface StoreOptions {
  readonly kv: Kv;
  /** The mirror's. */
  readonly view: View;
  readonly clock: Clock;
  readonly random: Random;
}

export interface CommitOptions {
  /** A leader's writes carry it; the API's do not. */
  readonly fence?: Fence | undefined;
  /**
   * Wait until the view shows what was committed, and what stood in the way of the rest. Default true, so that a loop
   * reads its own writes and does not run into the same conflict again.
   */
  readonly wait?: boolean;
  readonly signal: AbortSignal;
}

export interface CommitResult {
  /** The revision of the last write; 0 when nothing was written. */
  readonly revision: number;
  /** Proposals that were not made because the world had changed: read again and decide anew. */
  readonly conflicts: readonly Proposal[];
}

/** Transactions on their way at once: more only makes them queue inside etcd. */
const IN_FLIGHT_MAX = 4;
/** Groups translated without letting others run: about 10 ms of work. */
const GROUPS_PER_TURN = 1_000;
/** How long a commit waits for the view to show it; the watch takes milliseconds. */
const VIEW_TIMEOUT_MS = 5_000;

/** The one door through which the store is written, and the view through which it is read. */
export class Store {
  readonly view: View;
  readonly #options: StoreOptions;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.view = options.view;
  }

  /**
   * Makes proposals, packed into transactions of at most 100 operations and 1 MiB that travel in parallel: their order
   * is not kept, an inner array is made whole or not at all, and one object may occur once. A conflict takes out its
   * own group only; the rest lands. Every transaction compares what it replaces, so that one whose outcome was lost
   * can be sent again and is made once.
   * @throws aborted: the leadership behind the fence is over. already_exists: a unique name is taken (the rest landed).
   * unavailable: the store does not answer; some transactions may have landed. invalid_argument: a group is too large.
   */
  async commit(groups: readonly ProposalGroup[], options: CommitOptions): Promise<CommitResult> {
    const { fence, signal } = options;
    if (signal.aborted) throw abortReason(signal);
    const { units, conflicts } = await this.#translate(groups, signal);
    const waiting = pack(units).reverse();
    const nameClashes: NameClash[] = [];
    let revision = 0;
    let newest = 0;
    let failure: unknown;
    const work = async () => {
      for (let next = waiting.pop(); next && failure === undefined; next = waiting.pop()) {
        try {
          const outcome = await this.#transact(next, fence, { conflicts, nameClashes }, signal);
          revision = Math.max(revision, outcome.landed);
          newest = Math.max(newest, outcome.landed, outcome.met);
        } catch (reason) {
          failure ??= reason;
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(IN_FLIGHT_MAX, waiting.length) }, work));
    if (failure !== undefined) throw SwarmError.from(failure);
    if (options.wait !== false && newest > 0) await this.#shown(newest, signal);
    const [clash] = nameClashes;
    if (clash) throw await this.#nameTaken(clash, signal);
    return { revision, conflicts };
  }

  /** Groups to units, in turns: encoding ten thousand objects at once would hold everyone else up. */
  async #translate(
    groups: readonly ProposalGroup[],
    signal: AbortSignal,
  ): Promise<{ readonly units: Unit[]; readonly conflicts: Proposal[] }> {
    const now = this.#stamp();
    const keys = new Set<string>();
    const all = toUnits(groups.slice(0, GROUPS_PER_TURN), this.view, now, keys);
    for (let from = GROUPS_PER_TURN; from < groups.length; from += GROUPS_PER_TURN) {
      await this.#options.clock.sleep(0, signal);
      const { units, conflicts } = toUnits(groups.slice(from, from + GROUPS_PER_TURN), this.view, now, keys);
      for (const unit of units) all.units.push(unit);
      for (const conflict of conflicts) all.conflicts.push(conflict);
    }
    return all;
  }

  /**
   * One transaction, again without the units in conflict until the others have landed. Returns the revision at which it
   * `landed` (0: nothing was left of it) and the newest one that it `met` in a conflict.
   */
  async #transact(
    packed: readonly Unit[],
    fence: Fence | undefined,
    refused: { readonly conflicts: Proposal[]; readonly nameClashes: NameClash[] },
    signal: AbortSignal,
  ): Promise<{ readonly landed: number; readonly met: number }> {
    let units = packed;
    let met = 0;
    while (units.length > 0) {
      fence?.checkDeadline();
      const guard: Compare[] = fence ? [{ key: LEADER_KEY, createRevision: fence.epoch }] : [];
      const request = {
        compare: [...guard, ...units.flatMap(({ compare }) => compare)],
        operations: units.flatMap(({ operations }) => operations),
      };
      const result = await sendGuarded(this.#options, request, signal);
      if (result.succeeded) return { landed: result.revision, met };
      if (fence && result.found[0]?.createRevision !== fence.epoch) {
        throw new SwarmError("aborted", `leadership lost: epoch ${fence.epoch} is over`);
      }
      const found = result.found.slice(guard.length);
      units = withoutConflicts(units, found, refused);
      met = found.reduce((newest, entry) => Math.max(newest, entry?.modRevision ?? 0), met);
    }
    return { landed: 0, met };
  }

  async #shown(revision: number, signal: AbortSignal): Promise<void> {
    const options = {
      clock: this.#options.clock,
      timeoutMs: VIEW_TIMEOUT_MS,
      operation: `wait for the view to come from revision ${this.view.revision} to ${revision}`,
    };
    await withTimeout(options, signal, (until) => this.view.waitForRevision(revision, until));
  }

  async #nameTaken({ kind, name }: NameClash, signal: AbortSignal): Promise<SwarmError> {
    const { entries } = await this.#options.kv.range({ from: { key: nameKey(kind, name) }, limit: 1 }, signal);
    const bearer = entries[0] ? ` (${Buffer.from(entries[0].value).toString()})` : "";
    return new SwarmError("already_exists", `${kind} name ${JSON.stringify(name)} is in use${bearer}`);
  }

  /** Now, with chance in the digits below a ms: so the value of a write tells it from everyone else's. */
  #stamp(): Timestamp {
    const nowMs = this.#options.clock.nowMs();
    const belowMs = randomInteger(this.#options.random, 1_000_000);
    return {
      $typeName: "google.protobuf.Timestamp",
      seconds: BigInt(Math.floor(nowMs / 1000)),
      nanos: (Math.floor(nowMs) % 1000) * 1_000_000 + belowMs,
    };
  }
}

interface NameClash {
  readonly kind: Kind;
  readonly name: string;
}

/** Sorts out the units of a refused transaction whose compares did not hold; returns the others. */
function withoutConflicts(
  units: readonly Unit[],
  found: readonly (KvEntry | undefined)[],
  refused: { readonly conflicts: Proposal[]; readonly nameClashes: NameClash[] },
): readonly Unit[] {
  let index = 0;
  return units.filter((unit) => {
    let holds = true;
    for (const compare of unit.compare) {
      const entry = found[index++];
      const stands = "modRevision" in compare ? entry?.modRevision : entry?.createRevision;
      const expected = "modRevision" in compare ? compare.modRevision : compare.createRevision;
      if ((stands ?? 0) === expected) continue;
      holds = false;
      const clash = unit.names.get(compare.key);
      if (clash) refused.nameClashes.push(clash);
    }
    if (!holds) refused.conflicts.push(...unit.proposals);
    return holds;
  });
}
