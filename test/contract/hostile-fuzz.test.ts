/**
 * Goal: no bytes of somebody without a certificate stop a manager, fill it, or find a bug in it (issue: the unauthenticated surface).
 * Method: five seconds of bytes drawn from a seed, which a failure prints; `test/run --long hostile-fuzz` takes ten minutes, and
 * `SEED=…` draws the same again.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fuzz } from "../hostile/fuzz.ts";
import { joinAsMember, watched } from "../hostile/victim.ts";
import { startManagerProgram } from "../manager-program.ts";

const LONG = process.env.SWARM_TEST_LONG === "1";
const SECONDS = LONG ? 600 : 5;
const seed = Number(process.env.SEED ?? randomInt(2 ** 31));

test(`bytes from seed ${seed}: the manager answers, and holds no more`, {
  timeout: (SECONDS + 60) * 1_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "hostile-fuzz-"));
  const manager = await startManagerProgram(folder, "m");
  try {
    const { client } = await joinAsMember(manager, join(folder, "before"));
    const seen = await watched(manager, client, fuzz({ address: manager.address, seed, seconds: SECONDS }));
    const again = `SEED=${seed} test/run hostile-fuzz`;
    expect(
      Object.values(seen.outcome).reduce((sum, count) => sum + count, 0),
      again,
    ).toBeGreaterThan(20 * SECONDS);
    expect(seen.medianMs, again).toBeLessThan(1_000);
    expect(seen.grownMib, again).toBeLessThan(100);
    // What is kept for each connection shows here: a timer's list that Node keeps for an hour made 75 MiB in five minutes.
    if (LONG) expect(seen.grownLateMib, again).toBeLessThan(20);
    expect(manager.child.exitCode, again).toBeNull();
    const bugs = manager.text.filter((line) => line.includes("failed by a bug") || /"level":(50|60)/.test(line));
    expect(bugs, again).toEqual([]);
    // Whoever has a token still joins.
    await joinAsMember(manager, join(folder, "after"));
  } finally {
    await manager.stop();
    await rm(folder, { recursive: true, force: true });
  }
});
