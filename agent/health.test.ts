/** Goal: Docker's meaning of health checks. Method: tables for the pure part, a stepped clock for the monitor. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { FakeClock } from "../common/base/fake-clock.ts";
import { HealthConfigSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { type CheckResult, HEALTH_BEGIN, type HealthPolicy, healthPolicy, monitorHealth } from "./health.ts";

const POLICY: HealthPolicy = {
  command: ["check"],
  intervalMs: 1_000,
  timeoutMs: 500,
  retries: 2,
  startPeriodMs: 0,
  startIntervalMs: 100,
};

test("the service's check wins over the image's, field by field", () => {
  const image = { test: ["CMD-SHELL", "curl -f localhost"], intervalMs: 5_000, retries: 7 };
  const of = (init: Parameters<typeof create<typeof HealthConfigSchema>>[1]) =>
    healthPolicy(create(HealthConfigSchema, init), image);
  expect(healthPolicy(undefined, undefined)).toBeUndefined();
  expect(healthPolicy(undefined, image)).toEqual({
    command: ["/bin/sh", "-c", "curl -f localhost"],
    intervalMs: 5_000,
    timeoutMs: 30_000,
    retries: 7,
    startPeriodMs: 0,
    startIntervalMs: 5_000,
  });
  expect(of({ test: ["NONE"] })).toBeUndefined();
  expect(of({ test: ["CMD", "true"], interval: { seconds: 2n } })).toMatchObject({
    command: ["true"],
    intervalMs: 2_000,
    retries: 7,
  });
  expect(of({ retries: 1 })).toMatchObject({ command: ["/bin/sh", "-c", "curl -f localhost"], retries: 1 });
  expect(() => of({ test: ["RUN", "x"] })).toThrow('"RUN" is not CMD');
});

async function observe(over: Partial<HealthPolicy>, results: readonly (number | "timeout")[], advanceMs: number) {
  const clock = new FakeClock();
  const events: string[] = [];
  const queue = [...results];
  const stop = new AbortController();
  const monitor = monitorHealth(
    {
      clock,
      policy: { ...POLICY, ...over },
      startedMs: 0,
      initial: HEALTH_BEGIN,
      check: async (): Promise<CheckResult> => {
        const result = queue.shift() ?? 0;
        events.push(`${clock.monotonicMs()} check`);
        return { exitCode: result === "timeout" ? 137 : result, timedOut: result === "timeout", output: "no answer\n" };
      },
      onHealthy: () => events.push(`${clock.monotonicMs()} healthy`),
    },
    stop.signal,
  ).then(
    (reason) => events.push(`${clock.monotonicMs()} ${reason}`),
    () => {},
  );
  await clock.advance(advanceMs);
  stop.abort();
  await monitor;
  return events;
}

test("the first check comes after one interval; retries in a row make it unhealthy", async () => {
  expect(await observe({}, [0, 1, 0, 1, 1], 10_000)).toEqual([
    "1000 check",
    "1000 healthy",
    "2000 check",
    "3000 check",
    "4000 check",
    "5000 check",
    "5000 unhealthy: no answer",
  ]);
});

test("failures within the start period do not count, and checks come more often", async () => {
  expect(await observe({ startPeriodMs: 250 }, [1, 1, 1, "timeout"], 4_000)).toEqual([
    "100 check",
    "200 check",
    "300 check",
    "1300 check",
    "1300 unhealthy: health check exceeded timeout (500 ms)",
  ]);
  expect(await observe({ startPeriodMs: 250 }, [0, 1, 1], 4_000)).toEqual([
    "100 check",
    "100 healthy",
    "1100 check",
    "2100 check",
    "2100 unhealthy: no answer",
  ]);
});
