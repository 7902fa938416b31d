/**
 * Goal: the README's first command does what it says, twice, and its undoing leaves nothing. Method: run it, look, run it
 * again, undo it, and compare the machine with what it was.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect } from "vitest";
import { isRoot, rootTest } from "../privileges.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const execute = promisify(execFile);

async function quickstart(...args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await execute(join(ROOT, "deploy/quickstart"), args, { maxBuffer: 16 * 1024 * 1024 });
  return stdout + stderr;
}

/** What the machine has that a cluster could leave behind. */
function traces(): Record<string, unknown> {
  const lines = (program: string, ...args: readonly string[]) =>
    execFileSync(program, args, { encoding: "utf8" }).split("\n");
  const ours = /swarm-(manager|agent|shim|quick)|etcd/;
  return {
    processes: lines("ps", "-eo", "args").filter((line) => ours.test(line) && !/vitest|defunct/.test(line)),
    mounts: lines("cat", "/proc/mounts").filter((line) => line.includes("swarm")),
    namespaces: lines("ip", "netns", "list").filter((line) => line.includes("swarm")),
    links: lines("ip", "-o", "link").map((line) => line.split(": ")[1]),
    tables: lines("nft", "list", "tables"),
    cgroups: readdirSync("/sys/fs/cgroup").flatMap((name) => {
      const path = join("/sys/fs/cgroup", name);
      return existsSync(path)
        ? readdirSync(path)
            .filter((each) => each.startsWith("swarm"))
            .map((each) => join(path, each))
        : [];
    }),
    files: ["/var/lib/swarm-quickstart", "/run/swarm"].filter((path) => existsSync(path)),
  };
}

afterAll(async () => {
  if (isRoot) await quickstart("--down");
});

rootTest(
  "quickstart brings up three nodes and the demo, again does nothing, and goes without a trace",
  { timeout: 300_000 },
  async () => {
    await quickstart("--down");
    const before = traces();
    const first = await quickstart();
    expect(first).toMatch(/Hello from web\.\d\S* on node-[123], version 1/);
    for (const node of ["node-1", "node-2", "node-3"]) expect(first).toMatch(new RegExp(`${node}\\s+Ready\\s+Active`));
    expect(first).toMatch(/web\s+replicated\s+3\/3\s+demo\/web:1\s+\*:8080->80\/tcp/);
    const [, seconds = ""] = /Up in ([\d.]+) s/.exec(first) ?? [];
    process.stdout.write(`quickstart, from the end of the installs: ${seconds} s\n`);
    const tasks = /NAME[\s\S]*/.exec(first)?.[0];
    const second = await quickstart();
    expect(second).toContain("Hello from web");
    expect(tasks).toBeDefined();
    await quickstart("--down");
    expect(traces()).toEqual(before);
  },
);
