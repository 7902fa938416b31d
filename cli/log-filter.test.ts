// Goal: --grep shows what matches and nothing makes it hang. Method: patterns over messages.
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { LogMessageSchema } from "../proto/gen/swarm/v1/control_pb.js";
import { LogFilter } from "./log-filter.ts";

const message = (data: string, partial = false) =>
  create(LogMessageSchema, { taskId: "a", data: Buffer.from(data), partial });
const shown = (pattern: string, ...lines: ReturnType<typeof message>[]) =>
  new LogFilter(pattern).select(lines).map(({ data }) => Buffer.from(data).toString());

test.each([
  ["err", ["no", "error 5", "ERROR"], ["error 5"]],
  ["(?i:err)", ["no", "error 5", "ERROR"], ["error 5", "ERROR"]],
  ["^\\p{Lu}+$", ["ÄÖ", "äö"], ["ÄÖ"]],
  ["", ["a", ""], ["a", ""]],
])("%s", (pattern, lines, expected) => {
  expect(shown(pattern, ...lines.map((each) => message(each)))).toEqual(expected);
});

test("a line's end is before the carriage return of a terminal", () => {
  expect(shown("^ready$", message("ready\r"), message("not ready\r"))).toEqual(["ready\r"]);
});

test("a long line's first part decides for the rest of it", () => {
  expect(
    shown("^GET", message("GET /", true), message("a/b"), message("a"), message("POST", true), message("GET")),
  ).toEqual(["GET /", "a/b"]);
});

test("a bad pattern is refused, and one that backtracks for ever is stopped", () => {
  expect(() => new LogFilter("(")).toThrow('invalid argument "(" for --grep: Unterminated group');
  expect(() => shown("(a+)+$", message(`${"a".repeat(60)}b`))).toThrow(/--grep "\(a\+\)\+\$": takes more than 1000 ms/);
});
