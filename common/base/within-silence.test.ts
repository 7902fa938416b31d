import { expect, test } from "vitest";
import { FakeClock } from "./fake-clock.ts";
import { withinSilence } from "./within-silence.ts";

test("passes on what comes, and gives up a source that falls silent", async () => {
  const clock = new FakeClock();
  let told = false;
  async function* source() {
    try {
      yield 1;
      yield 2;
      await clock.sleep(10_000);
      yield 3;
    } finally {
      told = true;
    }
  }
  const read: number[] = [];
  const reading = (async () => {
    const options = { clock, timeoutMs: 1_000, operation: "wait for more" };
    for await (const each of withinSilence(source(), options, new AbortController().signal)) read.push(each);
  })();
  const outcome = expect(reading).rejects.toMatchObject({
    code: "deadline_exceeded",
    message: expect.stringContaining("wait for more"),
  });
  await clock.advance(2_000);
  await outcome;
  expect(read).toEqual([1, 2]);
  await clock.advance(10_000);
  expect(told).toBe(true);
});
