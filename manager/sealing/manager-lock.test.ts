/** Goal: with a lock, nothing on the disk lets anybody into the secrets, and the right key alone opens it. Method: real files. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { systemEntropy } from "../../common/base/random.ts";
import type { Credentials } from "../../common/pki/credential-files.ts";
import { newUnlockKey } from "../../common/pki/unlock-key.ts";
import { ClusterPki } from "../../test/cluster-pki.ts";
import { ManagerLock } from "./manager-lock.ts";

let folder = "";
let credentials: Credentials;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "lock-"));
  const pki = await ClusterPki.open(systemClock.nowMs());
  const { key, chain, trust } = await pki.join(pki.node("swarm-manager"));
  credentials = { key, chain, trust };
});
afterEach(() => rmSync(folder, { recursive: true }));

const lockOf = () =>
  new ManagerLock({
    clusterKeyFile: join(folder, "cluster.key"),
    identity: join(folder, "identity"),
    runtime: join(folder, "runtime"),
    entropy: systemEntropy,
  });

/** Every byte below the folder, but what is in clear while a manager runs. */
function onDisk(): string {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
    (name) => !name.startsWith("runtime"),
  );
  return files
    .map((name) => (statSync(join(folder, name)).isFile() ? readFileSync(join(folder, name), "latin1") : ""))
    .join("\n");
}

test("locked, opened, locked anew, and not any more", async () => {
  const first = lockOf();
  const clusterKey = first.clusterKeys.create();
  await first.keep(credentials);
  expect(first.isLocked).toBe(false);
  const [one, two] = [newUnlockKey(systemEntropy), newUnlockKey(systemEntropy)];
  await first.relock(one, credentials);
  const hex = Buffer.from(clusterKey).toString("hex");
  expect(onDisk()).not.toContain(hex);
  expect(onDisk()).not.toContain("BEGIN PRIVATE KEY");
  // The manager that runs is none the worse for it.
  expect(Buffer.from(first.clusterKeys.read() ?? []).toString("hex")).toBe(hex);

  const second = lockOf();
  expect(second.isLocked).toBe(true);
  expect(second.clusterKeys.read()).toBeUndefined();
  await expect(second.unlock(two)).rejects.toThrow("invalid key");
  expect(second.isLocked).toBe(true);
  await second.unlock(one);
  await second.open();
  expect(readFileSync(join(folder, "runtime/current/key.pem"), "utf8")).toBe(credentials.key);
  await second.relock(two, credentials);
  await second.close();
  expect(existsSync(join(folder, "runtime"))).toBe(false);

  const third = lockOf();
  await expect(third.unlock(one)).rejects.toThrow("invalid key");
  await third.unlock(two);
  await third.relock(undefined, credentials);
  expect(lockOf().isLocked).toBe(false);
  expect(onDisk()).toContain(hex);
});

test("what is not locked cannot be unlocked", async () => {
  const lock = lockOf();
  await expect(lock.unlock(newUnlockKey(systemEntropy))).rejects.toThrow("is not locked");
  lock.clusterKeys.create();
  await expect(lock.unlock(newUnlockKey(systemEntropy))).rejects.toThrow("is not locked");
});
