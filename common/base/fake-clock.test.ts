/** Goal: the tests' clock keeps the promises of Clock. Method: sleepers of known times. */
import { expect, test } from "vitest";
import { FakeClock } from "./fake-clock.ts";

test("wakes sleepers in the order of their times, those of 0 ms without being stepped", async () => {
  const clock = new FakeClock();
  const woken: string[] = [];
  const sleep = (delayMs: number) =>
    clock.sleep(delayMs).then(() => woken.push(`${delayMs} at ${clock.monotonicMs()}`));
  const first = sleep(0);
  void sleep(20);
  void sleep(10);
  await first;
  await clock.advance(15);
  expect(woken).toEqual(["0 at 0", "10 at 10"]);
  await clock.advance(5);
  expect(woken).toEqual(["0 at 0", "10 at 10", "20 at 20"]);
});

test("after a jump late sleepers wake late", async () => {
  const clock = new FakeClock();
  const late = clock.sleep(10).then(() => clock.monotonicMs());
  clock.jump(1_000);
  await clock.advance(0);
  expect(await late).toBe(1_000);
});
