/**
 * One run, from one seed: first faults and work at once, while no rule may ever be broken; then all is healed, and within
 * a bounded time the cluster must be as its users wished.
 */
import { seededRandom } from "../../common/base/random.ts";
import { fork } from "./chance.ts";
import { EventLog } from "./event-log.ts";
import { Nemesis } from "./nemesis.ts";
import { SimClock } from "./sim-clock.ts";
import { Workload } from "./workload.ts";
import { World } from "./world.ts";

export interface SimulationOptions {
  readonly seed: number;
  /** Virtual ms of the phase with faults. Default 40 s. */
  readonly faultsMs?: number;
  /** Gets each event as it comes. */
  readonly print?: (line: string) => void;
}

export interface SimulationResult {
  readonly seed: number;
  /** Rules that were broken, and what was not as wished at the end; empty for a good run. */
  readonly violations: readonly string[];
  /** The hash of all events: the same for the same seed. */
  readonly digest: string;
  readonly tail: readonly string[];
  readonly events: number;
  readonly revisions: number;
  /** Virtual ms from the healing until all was as wished. */
  readonly settledMs: number;
}

const FAULTS_MS = 40_000;
/**
 * How long the cluster may take to settle. The longest waits add up: an agent that comes back (8 s), a predecessor that
 * cannot stop (60 s), a step that is tried again (31 s), an update's steps.
 */
const SETTLE_MS_MAX = 180_000;
/** It must stay settled for as long. */
const CALM_MS = 2_000;
const MEND_EVERY_MS = 5_000;

/** Runs one simulation to its end, or to the first broken rule. */
export async function simulate({ seed, faultsMs = FAULTS_MS, print }: SimulationOptions): Promise<SimulationResult> {
  const random = seededRandom(seed);
  const clock = new SimClock();
  const log = new EventLog(clock, print);
  const world = new World({ clock, random: fork(random), log });
  const nemesis = new Nemesis(world, fork(random));
  const workload = new Workload(world, fork(random));
  const broken = () => world.violations.length > 0;
  world.begin();
  await clock.run(5_000, broken);
  nemesis.begin();
  const working = workload.run();
  await clock.run(faultsMs, broken);
  nemesis.end();
  workload.end();
  world.heal();
  const healedMs = clock.monotonicMs();
  let mended = false;
  const mendForEver = async () => {
    await working;
    while (true) {
      await workload.mend();
      mended = true;
      await clock.sleep(MEND_EVERY_MS);
    }
  };
  void mendForEver();
  const unsettled = () => (mended ? [...world.checker.unsettled(), ...world.astray()] : ["the users are not done"]);
  const left = broken() ? [] : await settle(world, unsettled);
  const settledMs = clock.monotonicMs() - healedMs;
  world.end();
  const violations = [...world.violations, ...left.map((what) => `not settled after ${settledMs / 1000} s: ${what}`)];
  return {
    ...{ seed, violations, tail: log.tail, events: log.count, revisions: world.kv.revision, settledMs },
    digest: log.digest(),
  };
}

/** Lets time pass until nothing is left to do, and says what is left when it does not come to that. */
async function settle(world: World, unsettled: () => readonly string[]): Promise<readonly string[]> {
  const { clock } = world;
  const endMs = clock.monotonicMs() + SETTLE_MS_MAX;
  let calmSinceMs: number | undefined;
  while (world.violations.length === 0) {
    await clock.run(500, () => world.violations.length > 0);
    world.restartAll();
    const left = unsettled();
    if (left.length > 0) calmSinceMs = undefined;
    else calmSinceMs ??= clock.monotonicMs();
    if (calmSinceMs !== undefined && clock.monotonicMs() - calmSinceMs >= CALM_MS) return [];
    if (clock.monotonicMs() >= endMs) return left;
  }
  return [];
}

/** What a failed run prints: how to see it again, what was broken, what led to it. */
export function report({ seed, violations, tail }: SimulationResult): string {
  const shown = violations.slice(0, 5);
  const more = violations.length > shown.length ? [`… and ${violations.length - shown.length} more`] : [];
  return [`SEED=${seed} npm run sim`, ...shown, ...more, "", ...tail].join("\n");
}
