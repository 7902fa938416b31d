/** Goal: versions of contents go when nothing can come back to them, and not before. */
import { expect, test } from "vitest";
import { decideCollected } from "./decide.ts";

const HOUR_MS = 60 * 60_000;
const version = (number: number, ageMs: number, pinned = false) => ({ version: BigInt(number), ageMs, pinned });

test.each([
  ["the newest stays, older ones go", [version(1, 9 * HOUR_MS), version(2, 8 * HOUR_MS)], 2n, [1n], false],
  ["what is pinned stays", [version(1, 9 * HOUR_MS, true), version(2, 8 * HOUR_MS)], 2n, [], false],
  ["what was the newest until just now stays for a while", [version(1, 9 * HOUR_MS), version(2, 1_000)], 2n, [], true],
  ["one that is on its way stays", [version(1, 9 * HOUR_MS), version(2, 1_000)], 1n, [], true],
  ["one that never arrived goes", [version(1, 9 * HOUR_MS), version(2, 2 * HOUR_MS)], 1n, [2n], false],
  ["all go with their object", [version(1, 5), version(2, 1)], undefined, [1n, 2n], false],
  ["even then not what is pinned", [version(1, 5, true), version(2, 1)], undefined, [2n], false],
])("%s", (_, versions, current, collected, young) => {
  expect(decideCollected(versions, current)).toEqual({ collected, young });
});
