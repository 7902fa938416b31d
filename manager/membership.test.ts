import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { forgetMembership, type Membership, readMembership, writeMembership } from "./membership.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "membership-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const MEMBERSHIP: Membership = {
  listen: "0.0.0.0:2377",
  advertise: "10.0.0.1:2377",
  etcd: {
    kind: "shared",
    listen: "0.0.0.0:2378",
    advertise: "10.0.0.1:2378",
    initialCluster: "a=https://x",
    joins: true,
  },
};

test("what was written is read, what was forgotten is gone with all that was the cluster's", async () => {
  expect(await readMembership(folder)).toBeUndefined();
  await writeMembership(folder, MEMBERSHIP);
  expect(await readMembership(folder)).toMatchObject(MEMBERSHIP);
  for (const part of ["etcd", "identity", "content"]) mkdirSync(join(folder, part));
  writeFileSync(join(folder, "cluster.key"), "k");
  await forgetMembership(folder);
  for (const part of ["etcd", "identity", "content", "cluster.key"]) expect(existsSync(join(folder, part))).toBe(false);
  expect(await readMembership(folder)).toBeUndefined();
});

test.each([
  "",
  "{",
  "[]",
  '{"version":1}',
  '{"version":2,"listen":"a:1","advertise":"a:1","etcd":{}}',
  '{"version":1,"listen":"a","advertise":"a:1","etcd":{}}',
])("a damaged record is no reason to begin anew: %s", async (text) => {
  writeFileSync(join(folder, "membership.json"), text);
  await expect(readMembership(folder)).rejects.toThrow("membership.json is damaged");
});
