/** Goal: circles of waiting are found, and nothing else is called one. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { findCycle } from "./dependency-cycle.ts";

const graph = (edges: Readonly<Record<string, string>>) =>
  new Map(Object.entries(edges).map(([from, to]) => [from, to.split(" ").filter(Boolean)]));

test.each([
  [{ web: "db cache", db: "", cache: "" }, undefined],
  [{ web: "db", db: "web" }, "web db web"],
  [{ web: "db", db: "cache", cache: "queue", queue: "db" }, "db cache queue db"],
  [{ web: "web" }, "web web"],
  [{ web: "db migrate", migrate: "db", db: "" }, undefined],
  [{ web: "elsewhere" }, undefined],
])("%j", (edges, expected) => {
  expect(findCycle(graph(edges as Record<string, string>))?.join(" ")).toBe(expected);
});

test("a long chain does not end the stack", () => {
  const chain = new Map(Array.from({ length: 50_000 }, (_, index) => [`s${index}`, [`s${index + 1}`]]));
  expect(findCycle(chain)).toBeUndefined();
});

test("what only points forward has no circle, and one edge back makes one", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(30), fc.nat(30)), { maxLength: 80 }), (pairs) => {
      const edges = new Map<string, string[]>();
      for (const [left, right] of pairs) {
        if (left === right) continue;
        const [from, to] = [Math.min(left, right), Math.max(left, right)];
        edges.set(`${from}`, [...(edges.get(`${from}`) ?? []), `${to}`]);
      }
      expect(findCycle(edges)).toBeUndefined();
      const [first] = [...edges.entries()];
      if (first === undefined) return;
      const [from, [to = ""]] = first;
      const cycle = findCycle(new Map([...edges, [to, [...(edges.get(to) ?? []), from]]])) ?? [];
      expect(cycle.length).toBeGreaterThan(1);
      expect(cycle[0]).toBe(cycle.at(-1));
    }),
  );
});
