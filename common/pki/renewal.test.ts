/** Goal: every certificate is renewed in time, and not all at once. Method: properties over a day-by-day walk through its life. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seededRandom } from "../base/random.ts";
import { drawRenewal, planRenewal, type RenewalState } from "./renewal.ts";
import { BACKDATE_MS, LIFETIME_MS_DEFAULT, LIFETIME_MS_MIN, type Validity } from "./validity.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const ISSUED_MS = Date.UTC(2026, 0, 1);

function validity(lifetimeMs = LIFETIME_MS_DEFAULT): Validity {
  return { notBeforeMs: ISSUED_MS - BACKDATE_MS, notAfterMs: ISSUED_MS + lifetimeMs };
}

function state(change: Partial<RenewalState> = {}): RenewalState {
  return {
    validity: validity(),
    renewAtMs: ISSUED_MS + 60 * DAY_MS,
    nowMs: ISSUED_MS,
    failures: 0,
    isRotated: false,
    ...change,
  };
}

describe("the drawn point", () => {
  test("property: lies between 50 and 80 % of the life, which begins when it was issued", () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: LIFETIME_MS_MIN, max: 10 * LIFETIME_MS_DEFAULT }),
        (seed, lifetimeMs) => {
          const share = (drawRenewal(validity(lifetimeMs), seededRandom(seed)) - ISSUED_MS) / lifetimeMs;
          expect(share).toBeGreaterThanOrEqual(0.5);
          expect(share).toBeLessThanOrEqual(0.8);
        },
      ),
    );
  });

  test("of a certificate that is not backdated is within it", () => {
    const short = { notBeforeMs: ISSUED_MS, notAfterMs: ISSUED_MS + 1000 };
    expect(drawRenewal(short, seededRandom(1))).toBe(ISSUED_MS + 1000);
  });

  test("property: 5,000 nodes that joined in one minute renew over weeks", () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const random = seededRandom(seed);
        const perHour = new Map<number, number>();
        for (let node = 0; node < 5000; node++) {
          const lateMs = (node / 5000) * 60_000;
          const { notBeforeMs, notAfterMs } = validity();
          const atMs = drawRenewal({ notBeforeMs: notBeforeMs + lateMs, notAfterMs: notAfterMs + lateMs }, random);
          const hour = Math.floor(atMs / HOUR_MS);
          perHour.set(hour, (perHour.get(hour) ?? 0) + 1);
        }
        // 27 days have 648 hours: 7.7 a hour, evenly.
        expect(perHour.size).toBeGreaterThan(600);
        expect(Math.max(...perHour.values())).toBeLessThan(30);
      }),
      { numRuns: 20 },
    );
  });
});

describe("the plan", () => {
  const random = { next: () => 0.5 };

  test.each<[string, Partial<RenewalState>, ReturnType<typeof planRenewal>]>([
    ["waits a day at most", {}, { type: "wait", delayMs: DAY_MS }],
    ["waits for the drawn point", { nowMs: ISSUED_MS + 60 * DAY_MS - 5 }, { type: "wait", delayMs: 5 }],
    [
      "waits although the clock is before the certificate",
      { nowMs: ISSUED_MS - 2 * DAY_MS },
      { type: "wait", delayMs: DAY_MS },
    ],
    ["renews at the drawn point", { nowMs: ISSUED_MS + 60 * DAY_MS }, { type: "renew", delayMs: 0, reason: "due" }],
    [
      "spreads what is overdue over a minute",
      { nowMs: ISSUED_MS + 61 * DAY_MS },
      { type: "renew", delayMs: 30_000, reason: "due" },
    ],
    [
      "spreads no further than time is left",
      { nowMs: ISSUED_MS + 90 * DAY_MS - 1000 },
      { type: "renew", delayMs: 50, reason: "due" },
    ],
    ["renews at once when the root rotates", { isRotated: true }, { type: "renew", delayMs: 0, reason: "rotated" }],
    ["tries again after a failure", { isRotated: true, failures: 1 }, { type: "renew", delayMs: 750, reason: "retry" }],
    ["and later after more", { isRotated: true, failures: 4 }, { type: "renew", delayMs: 6000, reason: "retry" }],
    ["but not too late", { isRotated: true, failures: 99 }, { type: "renew", delayMs: 225_000, reason: "retry" }],
    ["forgets failures that are over", { failures: 3 }, { type: "wait", delayMs: DAY_MS }],
    ["says that it has expired", { nowMs: ISSUED_MS + 90 * DAY_MS }, { type: "expired", delayMs: 225_000 }],
    [
      "even when the root rotates",
      { nowMs: ISSUED_MS + 99 * DAY_MS, isRotated: true },
      { type: "expired", delayMs: 225_000 },
    ],
  ])("%s", (_, change, plan) => {
    expect(planRenewal(state(change), random)).toEqual(plan);
  });

  test("property: whoever follows it renews before 80 % of the life, however the root and the clock go", () => {
    const life = fc.integer({ min: LIFETIME_MS_MIN, max: LIFETIME_MS_DEFAULT });
    fc.assert(
      fc.property(fc.integer(), life, fc.nat({ max: 3 }), (seed, lifetimeMs, slipHours) => {
        const chance = seededRandom(seed);
        const own = validity(lifetimeMs);
        const renewAtMs = drawRenewal(own, chance);
        let nowMs = ISSUED_MS - Math.min(slipHours * HOUR_MS, lifetimeMs / 4);
        for (let look = 0; look < 1000; look++) {
          const plan = planRenewal({ validity: own, renewAtMs, nowMs, failures: 0, isRotated: false }, chance);
          expect(plan.delayMs).toBeGreaterThanOrEqual(0);
          nowMs += plan.delayMs;
          if (plan.type === "wait") continue;
          expect(plan.type).toBe("renew");
          expect(nowMs).toBeGreaterThanOrEqual(renewAtMs);
          expect(nowMs).toBeLessThanOrEqual(ISSUED_MS + 0.8 * lifetimeMs + 1);
          return;
        }
        expect.fail("it never renewed");
      }),
    );
  });

  test("property: with every try failing, there are many before the end, and never a storm", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: LIFETIME_MS_MIN, max: 30 * DAY_MS }), (seed, lifetimeMs) => {
        const chance = seededRandom(seed);
        const own = validity(lifetimeMs);
        const renewAtMs = drawRenewal(own, chance);
        let nowMs = renewAtMs;
        let failures = 0;
        for (; failures < 100_000; failures++) {
          const plan = planRenewal({ validity: own, renewAtMs, nowMs, failures, isRotated: false }, chance);
          if (plan.type !== "renew") break;
          if (failures > 0) expect(plan.delayMs).toBeGreaterThanOrEqual(500);
          expect(plan.delayMs).toBeLessThanOrEqual(300_000);
          nowMs += plan.delayMs;
        }
        expect(nowMs).toBeGreaterThanOrEqual(own.notAfterMs);
        expect(failures).toBeGreaterThan(15);
      }),
      { numRuns: 30 },
    );
  });

  test("property: 5,000 overdue nodes that wake together are spread over a minute", () => {
    const chance = seededRandom(7);
    const perSecond = new Map<number, number>();
    for (let node = 0; node < 5000; node++) {
      const { delayMs } = planRenewal(state({ nowMs: ISSUED_MS + 80 * DAY_MS }), chance);
      const second = Math.floor(delayMs / 1000);
      perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
    }
    expect(perSecond.size).toBe(60);
    expect(Math.max(...perSecond.values())).toBeLessThan(150);
  });
});
