/**
 * Goal: wherever the shim is killed while it makes a container, the request fails, nothing runs on, nothing stays mounted,
 * and the next attempt succeeds (F22, F23). Method: strace kills whichever process makes the N-th call of a kind, for
 * growing N until all go through.
 */
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { eventually } from "../../test/eventually.ts";
import { isRoot } from "../../test/privileges.ts";
import { type CgroupManager, openCgroups } from "../cgroup/manager.ts";
import { Runner } from "./runner.ts";
import { buildShim, NEVER, TestContainers } from "./test-root.ts";

let containers: TestContainers;
let cgroups: CgroupManager;
beforeAll(async () => {
  if (!isRoot) return;
  containers = await TestContainers.create();
  cgroups = await openCgroups(systemClock, `/swarm-killed-${process.pid}`);
});
afterAll(async () => {
  await containers?.[Symbol.asyncDispose]();
  await cgroups?.removeParent();
});

/** Kinds of calls of the supervisor and of the container's first process, so that every step of create is hit. */
const CALLS = [
  "bind,listen,umask",
  "mkdir,write",
  "clone3,socketpair,sendto,recvfrom",
  "close",
  "unshare,setns,keyctl,sethostname",
  "mount,pivot_root,umount2",
  "fsopen,fsconfig,fsmount",
  "openat,openat2",
  "move_mount,open_tree,mount_setattr",
  "mknodat,symlinkat,mkdirat",
  "prctl,setresuid,setgroups,capset",
  "fcntl,writev",
];
/** A bound for each kind; a plan makes about 60 openat2 calls. */
const CALLS_MAX = 200;

/** A shim whose processes die at their N-th call of a kind. */
async function fragileShim(name: string, calls: string, count: number): Promise<string> {
  const path = join(containers.directory, name);
  const inject = calls.split(",").map((call) => `-e inject=${call}:signal=KILL:when=${count}`);
  const strace = `strace -f -qq -o /dev/null -e trace=${calls} ${inject.join(" ")}`;
  await writeFile(path, `#!/bin/sh\nexec env MARK=${containers.directory} ${strace} ${buildShim()} "$@"\n`);
  await chmod(path, 0o755);
  return path;
}

/** Processes of this test's shims, known by their environment; a container's program is not yet executed. */
async function strays(): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const marked = pids.map(async (pid) => {
    const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
    return environment.includes(`MARK=${containers.directory}`) ? [pid] : [];
  });
  return (await Promise.all(marked)).flat();
}

/** One attempt; whether it went through unharmed. */
async function attempt(calls: string, count: number): Promise<boolean> {
  const id = `k${count}`;
  const { hostOps, membership } = cgroups.plan(id, { pids: { limit: 64 } });
  const plan = await containers.plan(["sleep", "100"], { cgroup: { hostOps, membership } });
  const runner = new Runner(await fragileShim("fragile", calls, count));
  const refusal = await runner.create(plan, NEVER).then(
    () => undefined,
    (reason: unknown) => String(reason),
  );
  if (refusal !== undefined) expect(refusal, `${calls} ${count}`).toMatch(/ECHILD|is gone/);
  await runner[Symbol.asyncDispose]();
  await cgroups.remove(id, NEVER);
  await eventually(async () => expect(await strays(), `${calls} ${count}`).toEqual([]));
  expect(await readFile("/proc/self/mounts", "utf8")).not.toContain(containers.directory);
  expect(await cgroups.list()).toEqual([]);
  return refusal === undefined;
}

const hasStrace = existsSync("/usr/bin/strace");

test.runIf(isRoot && hasStrace).each(CALLS)("killed at each of %s", { timeout: 60_000 }, async (calls) => {
  // Denser at the beginning, where each call is another step; later ones repeat.
  let count = 1;
  while (count < CALLS_MAX && !(await attempt(calls, count))) count += 1 + Math.floor(count / 4);
  expect(count).toBeLessThan(CALLS_MAX);
  expect(count, "something was killed").toBeGreaterThan(1);
});
