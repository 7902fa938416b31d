/** Goal: a rotation asks every node, a few at a time, and is over when all have changed and not before. Method: tables, and a walk with failing and absent nodes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { NodeId } from "../base/id.ts";
import { randomInteger, seededRandom } from "../base/random.ts";
import type { KeyId } from "./certificates.ts";
import {
  ASK_AGAIN_MS,
  decideRotation,
  ROTATION_BATCH_MAX,
  type RotatingNode,
  type RotationGoal,
} from "./root-rotation.ts";

const [OLD, NEW, OTHER] = ["old", "new", "other"] as unknown as readonly [KeyId, KeyId, KeyId];
const GOAL: RotationGoal = { issuerKeyId: NEW, rootKeyId: NEW, isCrossSigned: true };
const NOW_MS = 1_000_000;

function node(id: string, change: Partial<RotatingNode> = {}): RotatingNode {
  return { id: id as NodeId, issuerKeyId: OLD, trusted: [OLD], isConnected: true, ...change };
}

const RENEWED = { issuerKeyId: NEW, trusted: [OLD, NEW] } as const;

function decide(nodes: readonly RotatingNode[], goal = GOAL) {
  return decideRotation(goal, nodes, { nowMs: NOW_MS });
}

function many(count: number, change: Partial<RotatingNode> = {}): RotatingNode[] {
  return Array.from({ length: count }, (_, index) => node(`n${index}`, change));
}

describe("a rotation", () => {
  test("of no nodes, or of nodes that have all changed, is complete", () => {
    expect(decide([])).toEqual({ type: "complete" });
    expect(decide(many(3, RENEWED))).toEqual({ type: "complete" });
    expect(decide(many(3, { issuerKeyId: NEW, trusted: [NEW] }))).toEqual({ type: "complete" });
  });

  test("asks who has not changed, and waits for who is away", () => {
    const nodes = [node("a", RENEWED), node("b"), node("c", { isConnected: false }), node("d", { issuerKeyId: OTHER })];
    expect(decide(nodes)).toEqual({
      type: "rotating",
      phase: "certificates",
      ask: ["b", "d"],
      remaining: 3,
      offline: ["c"],
    });
  });

  test.each<[string, Partial<RotatingNode>]>([
    ["is away", { isConnected: false }],
    ["never came", { issuerKeyId: undefined, trusted: [], isConnected: false }],
    ["has a new certificate and does not trust the new root", { issuerKeyId: NEW }],
    ["trusts the new root and has its old certificate", { trusted: [OLD, NEW] }],
    ["was asked and has not answered", { askedMs: NOW_MS }],
  ])("stays open while one node %s", (_, change) => {
    expect(decide([...many(3, RENEWED), node("x", change)])).toMatchObject({ type: "rotating", remaining: 1 });
  });

  test("waits no longer for one that is away when its certificate has ended", () => {
    const [gone, here] = [node("a", { isConnected: false, hasEnded: true }), node("b", { hasEnded: true })];
    expect(decide([gone, node("c", RENEWED)])).toEqual({ type: "complete" });
    // A machine whose clock is wrong, say: it has a session, so somebody believes it.
    expect(decide([gone, here])).toMatchObject({ ask: ["b"], remaining: 1, offline: [] });
  });

  test("asks a few at a time, and again after a while", () => {
    const fresh = decide(many(200));
    expect(fresh).toMatchObject({ type: "rotating", remaining: 200 });
    expect(fresh.type === "rotating" && fresh.ask).toHaveLength(ROTATION_BATCH_MAX);
    const busy = [...many(ROTATION_BATCH_MAX - 1, { askedMs: NOW_MS - ASK_AGAIN_MS + 1 }), node("x"), node("y")];
    expect(decide(busy)).toMatchObject({ ask: ["x"] });
    const stuck = [
      node("a", { askedMs: NOW_MS - ASK_AGAIN_MS }),
      node("b", { askedMs: NOW_MS - 2 * ASK_AGAIN_MS }),
      node("c"),
    ];
    expect(decide(stuck)).toMatchObject({ ask: ["c", "b", "a"] });
  });

  test("without a cross-signed root gives everyone the new root before anyone a new certificate", () => {
    const goal = { ...GOAL, isCrossSigned: false };
    const trusting = { trusted: [OLD, NEW] };
    expect(decide([node("a"), node("b", trusting)], goal)).toMatchObject({ phase: "trust", ask: ["a"], remaining: 1 });
    expect(decide([node("a", { isConnected: false }), node("b", trusting)], goal)).toMatchObject({
      phase: "trust",
      ask: [],
      offline: ["a"],
    });
    expect(decide([node("a", trusting), node("b", trusting)], goal)).toMatchObject({
      phase: "certificates",
      ask: ["a", "b"],
    });
    expect(decide([node("a", RENEWED)], goal)).toEqual({ type: "complete" });
  });

  test("back to the old root is a rotation like any other", () => {
    const back = { ...GOAL, issuerKeyId: OLD, rootKeyId: OLD };
    expect(decide([node("a"), node("b", RENEWED)], back)).toMatchObject({ ask: ["b"], remaining: 1 });
  });

  test("property: ends when the last node is back, never before, with few at it at any time", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 300 }), fc.boolean(), (seed, size, isCrossSigned) => {
        const chance = seededRandom(seed);
        const goal = { ...GOAL, isCrossSigned };
        let phase: string | undefined;
        const nodes = new Map(many(size).map((each) => [each.id, { ...each, isConnected: chance.next() < 0.7 }]));
        const change = (id: NodeId, to: Partial<RotatingNode>) => {
          const present = nodes.get(id);
          if (present) nodes.set(id, { ...present, ...to });
        };
        for (let round = 0; round < 600; round++) {
          const nowMs = round * 5000;
          const step = decideRotation(goal, [...nodes.values()], { nowMs });
          if (step.type === "complete") {
            expect(
              [...nodes.values()].every(({ issuerKeyId, trusted }) => issuerKeyId === NEW && trusted.includes(NEW)),
            ).toBe(true);
            return;
          }
          if (step.phase !== phase)
            for (const { id, askedMs, ...rest } of [...nodes.values()]) nodes.set(id, { id, ...rest });
          phase = step.phase;
          for (const id of step.ask) {
            expect(nodes.get(id)?.isConnected).toBe(true);
            if (step.phase === "certificates" && !isCrossSigned) {
              expect([...nodes.values()].every(({ trusted }) => trusted.includes(NEW))).toBe(true);
            }
            change(id, { askedMs: nowMs });
          }
          const atIt = [...nodes.values()].filter((each) => {
            const isDone = step.phase === "trust" ? each.trusted.includes(NEW) : each.issuerKeyId === NEW;
            return !isDone && each.isConnected && each.askedMs !== undefined && nowMs - each.askedMs < ASK_AGAIN_MS;
          });
          // Some may have been away when others were asked, and be back.
          expect(step.ask.length === 0 || atIt.length <= ROTATION_BATCH_MAX).toBe(true);
          for (const each of atIt) {
            if (chance.next() < 0.3) continue;
            change(each.id, step.phase === "trust" ? { trusted: [OLD, NEW] } : RENEWED);
          }
          // First nodes come and go, then all stay.
          if (round >= 200) for (const { id } of [...nodes.values()]) change(id, { isConnected: true });
          const moved = [...nodes.keys()][randomInteger(chance, size)];
          if (moved !== undefined && round < 200) change(moved, { isConnected: chance.next() < 0.7 });
        }
        expect.fail("it never ended");
      }),
      { numRuns: 40 },
    );
  });
});
