import { describe, expect, test } from "vitest";
import {
  formatBytes,
  formatBytesDecimal,
  formatDurationMs,
  formatNanoCpus,
  humanDuration,
  parseBytes,
  parseDurationMs,
  parseInteger,
  parseNanoCpus,
  parseRatio,
} from "./units.ts";

function value<T>(parsed: {
  readonly ok: boolean;
  readonly value?: T;
  readonly problem?: string;
}): T | string | undefined {
  return parsed.ok ? parsed.value : parsed.problem;
}

describe("durations are Go's", () => {
  test.each([
    ["1m30s", 90_000, "1m30s"],
    ["1.5s", 1500, "1.5s"],
    ["500ms", 500, "500ms"],
    ["1h", 3_600_000, "1h0m0s"],
    ["0", 0, "0s"],
    ["-1s", -1000, "-1s"],
    ["1us", 0.001, "1µs"],
    [".5s", 500, "500ms"],
    ["26h3m0.25s", 93_780_250, "26h3m0.25s"],
  ])("%s", (text, ms, printed) => {
    expect(value(parseDurationMs(text))).toBe(ms);
    expect(formatDurationMs(ms)).toBe(printed);
  });

  test.each([
    ["10", 'time: missing unit in duration "10"'],
    ["10parsecs", 'time: unknown unit "parsecs" in duration "10parsecs"'],
    ["", 'time: invalid duration ""'],
    ["s", 'time: invalid duration "s"'],
    ["1s2", 'time: missing unit in duration "1s2"'],
    ["1constructor", 'time: unknown unit "constructor" in duration "1constructor"'],
    ["999999999h", 'time: invalid duration "999999999h"'],
    ["\u001b[2J", 'time: invalid duration "\\u001b[2J"'],
  ])("%j is refused", (text, problem) => {
    expect(value(parseDurationMs(text))).toBe(problem);
  });
});

describe("bytes are Docker's", () => {
  test.each([
    ["64M", 64 * 1024 ** 2],
    ["1.5GiB", 1.5 * 1024 ** 3],
    ["4 kb", 4096],
    ["1024", 1024],
    ["512b", 512],
    ["50XB", 'invalid suffix: "XB"'],
    ["abc", 'invalid size: "abc"'],
    ["-1", 'invalid size: "-1" is negative'],
    ["1e3", 'invalid suffix: "e3"'],
    ["99999999999P", 'invalid size: "99999999999P" is too large'],
  ])("%s", (text, expected) => {
    expect(value(parseBytes(text))).toBe(expected);
  });

  test("print", () => {
    expect([67_108_864, 1_610_612_736, 1000].map(formatBytes)).toEqual(["64MiB", "1.5GiB", "1000B"]);
    expect([4328, 142_000_000, 0].map(formatBytesDecimal)).toEqual(["4.33kB", "142MB", "0B"]);
  });
});

test("cpus, integers, ratios", () => {
  expect(value(parseNanoCpus("0.5"))).toBe(500_000_000);
  expect(value(parseNanoCpus("1.1234567891"))).toBe('value is too precise: "1.1234567891"');
  expect(value(parseNanoCpus("-1"))).toBe(-1_000_000_000);
  expect(value(parseNanoCpus("two"))).toBe('failed to parse "two" as a number');
  expect(formatNanoCpus(1_500_000_000)).toBe("1.5");
  expect(value(parseInteger("1e20", { min: 0, max: 10 }))).toBe('invalid value "1e20": must be an integer');
  expect(value(parseInteger("11", { min: 0, max: 10 }))).toBe('invalid value "11": must be from 0 to 10');
  expect(value(parseRatio("0.25"))).toBe(0.25);
  expect(value(parseRatio("1.5"))).toBe('invalid value "1.5": must be from 0 to 1');
  expect(value(parseRatio("NaN"))).toBe('invalid value "NaN": must be from 0 to 1');
});

test.each([
  [400, "Less than a second"],
  [1000, "1 second"],
  [59_000, "59 seconds"],
  [60_000, "About a minute"],
  [3_599_000, "59 minutes"],
  [3_600_000, "About an hour"],
  [47 * 3_600_000, "47 hours"],
  [48 * 3_600_000, "2 days"],
  [15 * 24 * 3_600_000, "2 weeks"],
  [90 * 24 * 3_600_000, "3 months"],
  [800 * 24 * 3_600_000, "2 years"],
])("%i ms is %s", (ms, words) => {
  expect(humanDuration(ms)).toBe(words);
});
