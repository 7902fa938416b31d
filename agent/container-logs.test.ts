/** Goal: lines come back once each and in order, across rotation. Method: files written as the supervisor writes them. */
import { appendFileSync, renameSync } from "node:fs";
import { appendFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { setImmediate as nextTurn } from "node:timers/promises";
import { create, fromJson } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { FakeClock } from "../common/base/fake-clock.ts";
import { LogMessage_Stream } from "../proto/gen/swarm/v1/control_pb.js";
import { LogOptionsSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { eventually } from "../test/eventually.ts";
import { readContainerLog } from "./container-logs.ts";

let directory = "";
let path = "";

beforeEach(async () => {
  directory = await mkdtemp(`${tmpdir()}/swarm-logs-`);
  path = `${directory}/log`;
  onTestFinished(() => rm(directory, { recursive: true }));
});

function line(second: number, text = `line ${second}`, form = "stdout F"): string {
  return `2026-01-01T00:00:${String(second).padStart(2, "0")}.000000001Z ${form} ${text}\n`;
}

async function texts(init: Parameters<typeof create<typeof LogOptionsSchema>>[1]): Promise<string[]> {
  const options = create(LogOptionsSchema, { tail: -1n, ...init });
  const reader = readContainerLog(
    { clock: new FakeClock(), path, options, ended: () => true },
    new AbortController().signal,
  );
  const found: string[] = [];
  for await (const { data } of reader) found.push(new TextDecoder().decode(data));
  return found;
}

test("a log that does not exist is empty", async () => {
  expect(await texts({})).toEqual([]);
});

test("reads rotated files from the oldest on, skips garbage, knows stream and parts", async () => {
  await writeFile(`${path}.2`, line(1));
  await writeFile(`${path}.1`, `${line(2, "part", "stderr P")}no line of ours\n`);
  await writeFile(path, `${line(3)}2026-01-01T00:00:04`);
  expect(await texts({})).toEqual(["line 1", "part", "line 3"]);
  const options = create(LogOptionsSchema, { tail: 2n });
  const reader = readContainerLog(
    { clock: new FakeClock(), path: `${path}.1`, options, ended: () => true },
    new AbortController().signal,
  );
  const first = (await reader.next()).value;
  expect(first).toMatchObject({ stream: LogMessage_Stream.STDERR, partial: true, timestamp: { nanos: 1 } });
  await reader.return();
});

test("tail counts back across files, since cuts by time", async () => {
  await writeFile(`${path}.1`, [1, 2, 3].map((second) => line(second)).join(""));
  await writeFile(path, [4, 5].map((second) => line(second)).join(""));
  expect(await texts({ tail: 0n })).toEqual([]);
  expect(await texts({ tail: 1n })).toEqual(["line 5"]);
  expect(await texts({ tail: 2n })).toEqual(["line 4", "line 5"]);
  expect(await texts({ tail: 4n })).toEqual(["line 2", "line 3", "line 4", "line 5"]);
  expect(await texts({ tail: 99n })).toHaveLength(5);
  expect(await texts({ since: fromJson(TimestampSchema, "2026-01-01T00:00:04Z") })).toEqual(["line 4", "line 5"]);
});

test("a long log is read in blocks", async () => {
  const text = "x".repeat(1000);
  await writeFile(path, Array.from({ length: 500 }, (_, index) => line(index % 60, `${index} ${text}`)).join(""));
  expect(await texts({})).toHaveLength(500);
  expect((await texts({ tail: 200n }))[0]?.split(" ")[0]).toBe("300");
});

test("following goes on over rotation and ends with the container", async () => {
  const clock = new FakeClock();
  let ended = false;
  const options = create(LogOptionsSchema, { tail: -1n, follow: true });
  const found: string[] = [];
  const reading = (async () => {
    const reader = readContainerLog({ clock, path, options, ended: () => ended }, new AbortController().signal);
    for await (const { data } of reader) found.push(new TextDecoder().decode(data));
  })();
  const sees = (expected: string[]) =>
    eventually(async () => {
      await clock.advance(100);
      expect(found).toEqual(expected);
    });
  await writeFile(path, line(1));
  await sees(["line 1"]);
  await appendFile(path, line(2));
  await rename(path, `${path}.1`);
  await writeFile(path, line(3).slice(0, 20));
  await sees(["line 1", "line 2"]);
  await appendFile(path, line(3).slice(20));
  await sees(["line 1", "line 2", "line 3"]);
  ended = true;
  let over = false;
  void reading.finally(() => {
    over = true;
  });
  await eventually(async () => {
    await clock.advance(100);
    expect(over).toBe(true);
  });
  await reading;
  expect(found).toEqual(["line 1", "line 2", "line 3"]);
});

test("lines that come between a file's end and its rotation are read", async () => {
  // Reader and writer take turns as the event loop has it, so that rotations fall into every gap of the reader's.
  const clock = { nowMs: () => 0, monotonicMs: () => 0, sleep: () => nextTurn() };
  const options = create(LogOptionsSchema, { tail: -1n, follow: true });
  const found: string[] = [];
  let written = 0;
  let ended = false;
  const write = () => appendFileSync(path, line(1, `line ${++written}`));
  write();
  const reading = (async () => {
    const reader = readContainerLog({ clock, path, options, ended: () => ended }, new AbortController().signal);
    for await (const { data } of reader) found.push(new TextDecoder().decode(data));
  })();
  for (let rotation = 0; rotation < 300; rotation++) {
    await eventually(() => expect(found).toHaveLength(written), { intervalMs: 0 });
    write();
    renameSync(path, `${path}.1`);
    write();
  }
  ended = true;
  await reading;
  expect(found).toEqual(Array.from({ length: written }, (_, index) => `line ${index + 1}`));
});
