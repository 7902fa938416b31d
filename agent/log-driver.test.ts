/** Goal: Docker's driver names and options mean what they say, or are refused by name. Method: a table. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { LogDriverSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { logRetention } from "./log-driver.ts";

function of(name: string, options: Record<string, string> = {}) {
  return logRetention(create(LogDriverSchema, { name, options }));
}

test("drivers and options", () => {
  const standard = { kind: "files", maxBytes: 20 * 1024 * 1024, maxFiles: 5 };
  expect(logRetention(undefined)).toEqual(standard);
  expect(of("json-file")).toEqual(standard);
  expect(of("json-file", { "max-size": "10k", "max-file": "3" })).toEqual({
    kind: "files",
    maxBytes: 10240,
    maxFiles: 3,
  });
  expect(of("local", { "max-size": "-1" })).toMatchObject({ maxBytes: 0 });
  expect(of("none")).toEqual({ kind: "none" });
  expect(() => of("syslog")).toThrow('log driver "syslog" is not supported');
  expect(() => of("json-file", { labels: "x" })).toThrow('log option "labels" is not supported by json-file');
  expect(() => of("json-file", { "max-file": "0" })).toThrow("max-file");
});
