/** Goal: Docker's driver names and options mean what they say, or are refused by name. Method: a table. */
import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { LogDriverSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { readLogDriver } from "./log-driver.ts";

function of(name: string, options: Record<string, string> = {}) {
  const read = readLogDriver(create(LogDriverSchema, { name, options }));
  return read.ok ? read.retention : read.problems.map(({ field, problem }) => `${field}: ${problem}`);
}

const STANDARD = { kind: "files", maxBytes: 20 * 1024 * 1024, maxFiles: 5 };

describe("what is kept", () => {
  test("nothing said", () => expect(readLogDriver(undefined)).toEqual({ ok: true, retention: STANDARD }));
  test.each([
    ["json-file", {}, STANDARD],
    ["local", {}, STANDARD],
    ["", { "max-size": "1m" }, { ...STANDARD, maxBytes: 1024 * 1024 }],
    ["json-file", { "max-size": "10k", "max-file": "3" }, { kind: "files", maxBytes: 10240, maxFiles: 3 }],
    ["local", { "max-size": "-1" }, { ...STANDARD, maxBytes: 0 }],
    ["none", {}, { kind: "none" }],
    ["none", { "max-size": "1m" }, { kind: "none" }],
  ])("%s %j", (name, options, expected) => expect(of(name, options)).toEqual(expected));
});

test.each([
  ["syslog", {}, ['logging.driver: log driver "syslog" is not supported: json-file, local or none']],
  ["json-file", { labels: "x" }, ['logging.options."labels": is not supported: only max-size and max-file are']],
  ["none", { labels: "x" }, ['logging.options."labels": is not supported: only max-size and max-file are']],
  [
    "json-file",
    { "max-size": "0", "max-file": "0" },
    [
      'logging.options."max-size": must be a positive number of bytes, or -1',
      'logging.options."max-file": invalid value "0": must be from 1 to 99',
    ],
  ],
])("%s %j is refused", (name, options, problems) => expect(of(name, options)).toEqual(problems));
