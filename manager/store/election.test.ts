import { describe, expect, test } from "vitest";
import type { Clock } from "../../common/base/clock.ts";
import { abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock, settle } from "../../common/base/fake-clock.ts";
import type { ManagerId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { testId } from "../../test/objects.ts";
import { type Leadership, runElection } from "./election.ts";
import type { Kv } from "./kv.ts";
import { MemoryKv } from "./memory-kv.ts";

/** Goal: at most one leader, soon a new one. Method: candidates over one store in memory on a clock that we move. */
class Candidate {
  readonly id: ManagerId;
  leadership: Leadership | undefined;
  readonly terms: number[] = [];
  readonly ended: Promise<unknown>;
  readonly #stop = new AbortController();
  #cut = false;

  constructor(kv: Kv, clock: Clock, id = testId() as ManagerId) {
    this.id = id;
    const options = { kv: this.#cuttable(kv), clock, random: seededRandom(5), logger: silentLogger, managerId: id };
    this.ended = runElection(options, (leadership) => this.#lead(leadership), this.#stop.signal).catch(
      (reason) => reason,
    );
  }

  get leads(): boolean {
    return this.leadership !== undefined && !this.leadership.signal.aborted;
  }

  /** From now on nothing reaches the store: what kill -9 or a lost network looks like to it. */
  cut(): void {
    this.#cut = true;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.ended;
  }

  async #lead(leadership: Leadership): Promise<void> {
    this.leadership = leadership;
    this.terms.push(leadership.epoch);
    await new Promise<void>((resolve) => leadership.signal.addEventListener("abort", () => resolve(), { once: true }));
    throw abortReason(leadership.signal);
  }

  #cuttable(kv: Kv): Kv {
    const check = () => {
      if (this.#cut) throw new SwarmError("unavailable", "cut off");
    };
    const guard = async <T>(call: () => Promise<T>): Promise<T> => {
      check();
      return call();
    };
    return {
      range: (request, signal) => guard(() => kv.range(request, signal)),
      txn: (request, signal) => guard(() => kv.txn(request, signal)),
      watch: (request, signal) => kv.watch(request, signal),
      leaseGrant: (ttlMs, signal) => guard(() => kv.leaseGrant(ttlMs, signal)),
      leaseKeepAlive: (lease, signal) => guard(() => kv.leaseKeepAlive(lease, signal)),
      leaseRevoke: (lease, signal) => guard(() => kv.leaseRevoke(lease, signal)),
    };
  }
}

describe("the election", () => {
  test("has one leader at a time; when it stops, the next one leads at once", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const all = [new Candidate(kv, clock), new Candidate(kv, clock), new Candidate(kv, clock)];
    await settle();
    const [first] = all.filter(({ leads }) => leads);
    expect(all.filter(({ leads }) => leads)).toHaveLength(1);
    await clock.advance(60_000);
    expect(first?.leads, "renewed for a minute").toBe(true);
    await first?.stop();
    await settle();
    const [second] = all.filter(({ leads }) => leads);
    expect(second).toBeDefined();
    expect(second?.terms[0]).toBeGreaterThan(first?.terms[0] ?? Infinity);
    for (const one of all) await one.stop();
  });

  test("replaces a leader that the store no longer hears; that one knows before the store does", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const first = new Candidate(kv, clock);
    await settle();
    const second = new Candidate(kv, clock);
    await clock.advance(10_000);
    first.cut();
    await clock.advance(1_600);
    expect(first.leads).toBe(false);
    expect(second.leads).toBe(false);
    await clock.advance(500);
    expect(second.leads).toBe(true);
    for (const one of [first, second]) await one.stop();
  });

  test("stops a leader that slept: it sees the deadline before it writes", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const leader = new Candidate(kv, clock);
    await clock.advance(5_000);
    expect(() => leader.leadership?.checkDeadline()).not.toThrow();
    clock.jump(6_000);
    expect(() => leader.leadership?.checkDeadline()).toThrow(expect.objectContaining({ code: "aborted" }));
    expect(leader.leads).toBe(false);
    await clock.advance(1_000);
    expect(leader.leads, "and it is elected anew").toBe(true);
    expect(leader.terms).toHaveLength(2);
    await leader.stop();
  });

  test("ends a term whose key is taken away", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const leader = new Candidate(kv, clock);
    await settle();
    const operations = [{ type: "delete", key: "/swarm/leader" }] as const;
    await kv.txn({ compare: [], operations }, new AbortController().signal);
    await settle();
    await settle();
    expect(leader.terms).toHaveLength(2);
    await leader.stop();
  });

  test("a manager that starts again does not wait for its own former lease", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const former = new Candidate(kv, clock);
    await settle();
    former.cut();
    const again = new Candidate(kv, clock, former.id);
    await settle();
    expect(again.leads).toBe(true);
    for (const one of [former, again]) await one.stop();
  });

  test("hands back the lease and throws when leading fails", async () => {
    const clock = new FakeClock();
    using kv = new MemoryKv(clock);
    const { signal } = new AbortController();
    const options = { kv, clock, random: seededRandom(1), logger: silentLogger, managerId: testId() as ManagerId };
    const election = runElection(options, () => Promise.reject(new SwarmError("internal", "a loop broke")), signal);
    await expect(election).rejects.toThrow("a loop broke");
    expect((await kv.range({ from: { key: "/swarm/leader" }, limit: 1 }, signal)).entries).toEqual([]);
  });
});
