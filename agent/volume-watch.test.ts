import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { diskUsage } from "./volume-watch.ts";

let folder: string;
const { signal } = new AbortController();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "volume-watch-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

test("hard links count once, what a symlink names not at all", async () => {
  mkdirSync(join(folder, "data/sub"), { recursive: true });
  writeFileSync(join(folder, "outside"), Buffer.alloc(4_000_000, 1));
  writeFileSync(join(folder, "data/sub/file"), Buffer.alloc(1_000_000, 1));
  linkSync(join(folder, "data/sub/file"), join(folder, "data/again"));
  symlinkSync(join(folder, "outside"), join(folder, "data/out"));
  symlinkSync(folder, join(folder, "data/up"));
  const size = Number(await diskUsage(join(folder, "data"), signal));
  expect(size).toBeGreaterThanOrEqual(1_000_000);
  expect(size).toBeLessThan(1_200_000);
});

test("a volume with too many files has no size", async () => {
  for (const name of ["a", "b", "c"]) writeFileSync(join(folder, name), "");
  expect(await diskUsage(folder, signal, 2)).toBeUndefined();
  expect(await diskUsage(folder, signal, 3)).toBeDefined();
});

test("a volume that is gone has no size", async () => {
  expect(await diskUsage(join(folder, "gone"), signal)).toBeUndefined();
});
