/**
 * Goal: whatever breaks, no rule of the design is ever broken, and once all is healed the cluster comes to what its users
 * wished. Method: the programs' own classes in one process, from many seeds; a failure prints the seed to see it again.
 */
import { describe, expect, test } from "vitest";
import { report, simulate } from "./simulate.ts";

/** 200 seeds take less than a minute of one core; SWARM_TEST_LONG=1 takes ten times as many. */
const SEEDS = process.env.SWARM_TEST_LONG === "1" ? 2_000 : 200;
const SEEDS_PER_TEST = 20;
const TIMEOUT_MS = 120_000;

describe("a cluster from a seed", () => {
  test("one seed gives one history", { timeout: TIMEOUT_MS }, async () => {
    const first = await simulate({ seed: 7 });
    const again = await simulate({ seed: 7 });
    expect(again.digest).toBe(first.digest);
    expect(first.events).toBeGreaterThan(100);
    expect((await simulate({ seed: 8 })).digest).not.toBe(first.digest);
  });

  const chunks = Array.from({ length: SEEDS / SEEDS_PER_TEST }, (_, index) => 1 + index * SEEDS_PER_TEST);
  test.each(chunks)(`${SEEDS_PER_TEST} seeds from %i keep every rule`, { timeout: TIMEOUT_MS }, async (from) => {
    for (let seed = from; seed < from + SEEDS_PER_TEST; seed++) {
      const result = await simulate({ seed });
      if (result.violations.length > 0) expect.fail(report(result));
    }
  });
});
