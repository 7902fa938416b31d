import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { slotsOf } from "./affinity-slots.ts";

/** Targets by name, and one of them. */
const SETS = fc
  .uniqueArray(fc.ipV4(), { minLength: 2, maxLength: 60, size: "max" })
  .chain((names) => fc.tuple(fc.constant(names), fc.constantFrom(...names)));

function slots(names: readonly string[]): readonly string[] {
  return slotsOf(names, (name) => name);
}

describe("slots", () => {
  test("are dealt evenly, in whatever order the targets are told", () => {
    fc.assert(
      fc.property(SETS, ([names]) => {
        const dealt = slots(names);
        const counts = names.map((name) => dealt.filter((each) => each === name).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
        expect(slots(names.toReversed())).toEqual(dealt);
      }),
    );
  });

  test("change hands when a target goes, but few that were not its own", () => {
    // On average: a hash may deal any one set badly, and a search for the worst one finds it.
    const shares = fc.sample(SETS, 500).flatMap(([names, gone]) => {
      const [before, after] = [slots(names), slots(names.filter((name) => name !== gone))];
      // Over a threshold of their number all slots are other ones.
      if (before.length !== after.length) return [];
      return before.filter((name, slot) => name !== gone && name !== after[slot]).length / before.length;
    });
    expect(shares.length).toBeGreaterThan(300);
    expect(shares.reduce((sum, share) => sum + share, 0) / shares.length).toBeLessThan(0.06);
  });
});
