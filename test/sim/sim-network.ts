/** The network between the simulated processes: latency, connections that break, and cuts between any two. */
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Random } from "../../common/base/random.ts";
import { type Link, MemoryNetwork } from "../../common/rpc/memory-transport.ts";
import { between, chance } from "./chance.ts";
import type { SimProcess } from "./sim-process.ts";

/** What goes wrong on the wire; the nemesis turns these. */
export interface WireFaults {
  /** The most that one message takes, in ms. */
  latencyMsMax: number;
  /** The probability that a message finds its connection reset. */
  reset: number;
}

/** How long a message is sent again before its connection counts as broken: a keepalive's time-out. */
const BREAK_MS = 15_000;

export class SimNetwork {
  readonly wire: MemoryNetwork;
  readonly #clock: Clock;
  readonly #cuts = new Map<string, PromiseWithResolvers<void>>();
  readonly #processes: ReadonlyMap<string, SimProcess>;

  /** `processes` by their names in the network: a message to one that is stopped waits. */
  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly faults: WireFaults;
    readonly processes: ReadonlyMap<string, SimProcess>;
  }) {
    const { clock, random, faults, processes } = options;
    this.#clock = clock;
    this.#processes = processes;
    const link: Link = async ({ from, to }, signal) => {
      await clock.sleep(between(random, 0.1, faults.latencyMsMax), signal);
      if (!(await abortable(this.untilJoined(from, to, BREAK_MS), signal))) {
        throw new SwarmError("unavailable", `connection between ${from} and ${to} timed out`);
      }
      if (chance(random, faults.reset)) {
        throw new SwarmError("unavailable", `connection between ${from} and ${to} was reset`);
      }
      const process = this.#processes.get(to);
      if (process) await abortable(process.running(), signal);
    };
    this.wire = new MemoryNetwork({ clock, link });
  }

  /** Nothing passes between the two any more. */
  cut(one: string, other: string): void {
    const key = keyOf(one, other);
    if (!this.#cuts.has(key)) this.#cuts.set(key, Promise.withResolvers());
  }

  /** Joins the two again. */
  join(one: string, other: string): void {
    const key = keyOf(one, other);
    this.#cuts.get(key)?.resolve();
    this.#cuts.delete(key);
  }

  /** Joins all. */
  joinAll(): void {
    for (const cut of this.#cuts.values()) cut.resolve();
    this.#cuts.clear();
  }

  /** Resolves when messages pass between the two: true; false when that took longer than `timeoutMs`. */
  async untilJoined(one: string, other: string, timeoutMs: number): Promise<boolean> {
    const endMs = this.#clock.monotonicMs() + timeoutMs;
    for (let cut = this.#cuts.get(keyOf(one, other)); cut; cut = this.#cuts.get(keyOf(one, other))) {
      const leftMs = endMs - this.#clock.monotonicMs();
      if (leftMs <= 0) return false;
      const waits = leftMs === Number.POSITIVE_INFINITY ? [cut.promise] : [cut.promise, this.#clock.sleep(leftMs)];
      await Promise.race(waits);
    }
    return true;
  }
}

function keyOf(one: string, other: string): string {
  return one < other ? `${one}|${other}` : `${other}|${one}`;
}
