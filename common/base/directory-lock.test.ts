// Goal: a directory has one holder, and a lock that a dead one left behind holds nobody up. Method: real files.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockDirectory } from "./directory-lock.ts";

let directory = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "lock-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

test("one at a time; free again after disposal", () => {
  {
    using _held = lockDirectory(directory);
    expect(() => lockDirectory(directory)).toThrow(`in use by the process with pid ${process.pid}`);
  }
  using _again = lockDirectory(directory);
});

test.each([
  ["a recycled pid", (own: string) => own.replace(/^(\d+) \d+/, "$1 1")],
  ["another boot", (own: string) => own.replace(/\S+\n$/, "00000000-0000-0000-0000-000000000000\n")],
  ["a dead process", (own: string) => own.replace(/^\d+/, "4194304")],
  ["garbage", () => "?"],
])("a lock of %s is taken over", (_, forge) => {
  const held = lockDirectory(directory);
  const own = readFileSync(join(directory, "lock"), "utf8");
  held[Symbol.dispose]();
  writeFileSync(join(directory, "lock"), forge(own));
  using _held = lockDirectory(directory);
  expect(readFileSync(join(directory, "lock"), "utf8")).toBe(own);
});
