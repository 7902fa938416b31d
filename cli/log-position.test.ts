// Goal: whatever a stream breaks at, the next one adds exactly what is missing. Method: logs with times that repeat, cut at
// every place and read on as an agent would.
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type LogMessage, LogMessageSchema } from "../proto/gen/swarm/v1/control_pb.js";
import { LogPosition, LogTail } from "./log-position.ts";

function line(taskId: string, time: number, text: string): LogMessage {
  return create(LogMessageSchema, { taskId, timestamp: { seconds: BigInt(time), nanos: 0 }, data: Buffer.from(text) });
}

/** What an agent sends of `log` to a reader that goes on. */
function resumed(log: readonly LogMessage[], position: LogPosition): LogMessage[] {
  const from = position.resumeFrom();
  return log.filter(({ taskId, timestamp }) => (timestamp?.seconds ?? 0n) >= (from[taskId]?.seconds ?? 0n));
}

const text = (messages: readonly LogMessage[]) => messages.map(({ data }) => Buffer.from(data).toString());

test("a reader that breaks anywhere, twice, misses no line and repeats none", () => {
  const steps = fc.array(fc.record({ task: fc.constantFrom("a", "b"), step: fc.integer({ min: 0, max: 1 }) }), {
    maxLength: 30,
  });
  fc.assert(
    fc.property(steps, fc.nat(30), fc.nat(30), (entries, first, second) => {
      let time = 1;
      const log = entries.map(({ task, step }, index) => {
        time += step;
        return line(task, time, `${task}${index}`);
      });
      const position = new LogPosition();
      const seen: LogMessage[] = [];
      const read = (messages: readonly LogMessage[]) => seen.push(...messages.filter((each) => position.admits(each)));
      read(log.slice(0, first));
      for (const cut of [second, log.length]) {
        position.resume();
        read(resumed(log, position).slice(0, cut));
      }
      for (const task of ["a", "b"]) {
        const of = (messages: readonly LogMessage[]) => text(messages.filter(({ taskId }) => taskId === task));
        expect(of(seen)).toEqual(of(log));
      }
    }),
  );
});

test("a task that had said nothing begins where the reader began", () => {
  const position = new LogPosition();
  position.begin("a", 5_000);
  expect(position.resumeFrom()).toEqual({});
  position.resume();
  expect(position.resumeFrom()).toMatchObject({ a: { seconds: 5n } });
});

describe("the last lines", () => {
  test.each([
    [0, []],
    [2, ["a3", "a4", "b0"]],
    [9, ["a0", "a1", "a2", "a3", "a4", "b0"]],
  ])("%d of each task", (lines, expected) => {
    const tail = new LogTail(lines);
    tail.add([0, 1, 2, 3, 4].map((number) => line("a", number, `a${number}`)));
    tail.add([line("b", 1, "b0")]);
    expect(text(tail.take())).toEqual(expected);
  });
});
