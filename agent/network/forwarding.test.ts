import fc from "fast-check";
import { expect, test } from "vitest";
import { fabricMac } from "./fabric.ts";
import { goneAddresses, goneMarks, kernelAfter, marksOf } from "./forwarding.ts";
import type { Rule } from "./routing-messages.ts";

/** Walks the rules as the kernel does: the table that a packet's mark leads to, and how many rules were looked at. */
function walk(rules: readonly Rule[], packet: number): { table: number | undefined; looks: number } {
  let from = 0;
  let looks = 0;
  for (const { priority, mark, mask, unless, table, goTo } of rules) {
    if (priority < from) continue;
    looks++;
    const matches = (packet & mask) >>> 0 === mark;
    if (matches === unless) continue;
    if (goTo !== 0) from = goTo;
    if (table !== 0) return { table, looks };
  }
  return { table: undefined, looks };
}

test("each host's mark leads to its table in few steps, other packets pass all rules by", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(1_000), { maxLength: 600, size: "max" }), (numbers) => {
      const hosts = numbers.map((number) => 0x0a000001 + number);
      const ways = [7, 8].map((index) => ({ index, hosts, remote: [], macOf: fabricMac }));
      const marks = marksOf(ways, { routes: [] });
      expect(new Set(marks.map(({ mark }) => mark)).size).toBe(2 * hosts.length);
      const wanted = { ways, nowhere: [], local: [], gateway: 1, ipv6: "off" } as const;
      const rules = kernelAfter(wanted, marks).rules.toSorted((one, other) => one.priority - other.priority);
      for (const { mark } of marks) {
        const { table, looks } = walk(rules, mark);
        expect(table).toBe(mark);
        expect(looks).toBeLessThanOrEqual(2 + 40 + 32);
      }
      for (const mark of [0, 1, 0x4000, 0x53560001]) {
        const { table, looks } = walk(rules, mark);
        expect(table).toBeUndefined();
        expect(looks).toBeLessThanOrEqual(2);
      }
    }),
  );
});

test("an address is gone when nobody has it, or another host; not when its host has another address", () => {
  const [a, b, c] = [0x0a000001, 0x0a000002, 0x0a000003];
  const to = (hosts: readonly number[], ...remote: readonly (readonly [number | bigint, number])[]) => ({
    ways: [{ index: 7, hosts, macOf: fabricMac, remote: remote.map(([address, host]) => ({ address, host })) }],
  });
  const rest = { nowhere: [], local: [], gateway: 1, ipv6: "on" } as const;
  const before = { ...rest, ...to([a, b], [1, a], [2, a], [3, b], [4n, b], [5n, b]) };
  const kernel = kernelAfter(before, marksOf(before.ways, { routes: [] }));
  expect(goneAddresses(before, kernel)).toEqual([]);
  expect(goneAddresses(to([a, b], [2, b], [3, b], [5n, a]), kernel)).toEqual([1, 2, 4n, 5n]);
  const marks = marksOf(to([a, c]).ways, kernel);
  expect(goneMarks(marks, kernel), "a's stays, b's is c's now").toEqual(marks.slice(1).map(({ mark }) => mark));
  expect(goneAddresses(to([a, c], [1, a], [2, a], [3, c], [4n, c], [5n, c]), kernel)).toEqual([]);
});
