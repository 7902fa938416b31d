/**
 * What swarmctl adds to Docker's words, on real parts: services that stop and start, logs that outlive a manager. Goal: a
 * stopped service leaves no container and comes back whole; a follower that loses its manager goes on with the other one, no
 * line missing and none twice; a dead node is skipped and named. Method: two managers on one etcd, real agents and containers
 * that count; the manager that serves the follower is killed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
/** Fast enough that lines come while nobody listens, with many of one moment. */
const COUNT =
  'i=0; while true; do i=$((i+1)); echo "line $i"; echo "line $i err" >&2; [ $((i%5)) = 0 ] && sleep 0.05; done';
let cluster: TestCluster;
const children: ChildProcess[] = [];

beforeAll(async () => {
  if (process.getuid?.() !== 0) return;
  cluster = await TestCluster.start({ nodes: 2, managers: 2 });
  const image = buildImage({
    name: "demo/count:1",
    layers: [{ files: busyboxFiles() }],
    config: { Cmd: ["sh", "-c", COUNT] },
    directory: cluster.folder("images"),
  });
  await cluster.swarmctl("image", "load", image);
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "count",
    "--replicas",
    "2",
    "--stop-grace-period",
    "1s",
    "-q",
    "demo/count:1",
  );
});

afterAll(async () => {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  await cluster?.[Symbol.asyncDispose]();
});

/** Follows the logs through both managers, the first one first; lines are kept by task. */
function follow(...flags: readonly string[]) {
  const hosts = [0, 1].map((number) => `unix://${cluster.socket(number)}`).join(",");
  const argv = ["--host", hosts, "service", "logs", "-f", "--no-trunc", ...flags, "count"];
  const child = spawn(join(ROOT, "cli/swarmctl"), argv, { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  const byTask = new Map<string, { out: number[]; err: number[] }>();
  const complaints: string[] = [];
  for (const [stream, name] of [
    [child.stdout, "out"],
    [child.stderr, "err"],
  ] as const) {
    createInterface({ input: stream }).on("line", (text) => {
      const [, task, number] = /^(\S+) +\| line (\d+)(?: err)?$/.exec(text) ?? [];
      if (task === undefined) complaints.push(text);
      else {
        const kept = byTask.get(task) ?? { out: [], err: [] };
        kept[name].push(Number(number));
        byTask.set(task, kept);
      }
    });
  }
  const lines = () => [...byTask.values()].flatMap(({ out, err }) => [out, err]);
  return { child, lines, complaints };
}

rootTest(
  "a stopped service has no container, keeps its logs, and starts whole; a restart replaces every task",
  async () => {
    const containers = async () =>
      (await Promise.all(["node-1", "node-2"].map((node) => cluster.containers(node)))).flat();
    const before = await containers();
    expect(before).toHaveLength(2);
    await cluster.swarmctl("service", "stop", "--timeout", "20s", "count");
    expect(await containers()).toEqual([]);
    expect(await cluster.swarmctl("service", "ls", "--format", "{{.Replicas}}")).toBe("0/0 (stopped)\n");
    expect(await cluster.swarmctl("service", "logs", "--raw", "--grep", "^line 1$", "count")).toBe("line 1\nline 1\n");
    await cluster.swarmctl("service", "start", "-d", "count");
    await cluster.swarmctl("wait", "service", "count", "--timeout", "20s");
    const started = await containers();
    expect(started).toHaveLength(2);
    await cluster.swarmctl(
      "service",
      "update",
      "-d",
      "--update-parallelism",
      "0",
      "--update-monitor",
      "100ms",
      "count",
    );
    await cluster.swarmctl("service", "restart", "-q", "--timeout", "30s", "count");
    const restarted = await containers();
    expect(restarted).toHaveLength(2);
    expect(restarted.filter((each) => started.includes(each))).toEqual([]);
    // The followers below count from each task's first line.
    await cluster.swarmctl("service", "rm", "count");
    await cluster.swarmctl("service", "create", "--name", "count", "--replicas", "2", "-d", "demo/count:1");
    await cluster.swarmctl("wait", "service", "count", "--timeout", "20s");
  },
);

rootTest("a follower goes on with the other manager, no line missing and none twice", async () => {
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "once",
    "-d",
    "--constraint",
    "node.labels.no==where",
    "demo/count:1",
  );
  // Who waits goes on with the other manager, too.
  const hosts = [0, 1].map((number) => `unix://${cluster.socket(number)}`).join(",");
  const removed = cluster.exec(
    join(ROOT, "cli/swarmctl"),
    "-H",
    hosts,
    "wait",
    "service",
    "once",
    "--for",
    "removed",
    "--timeout",
    "60s",
  );
  const follower = follow();
  await eventually(() => {
    expect(follower.lines()).toHaveLength(4);
    for (const numbers of follower.lines()) expect(numbers.length).toBeGreaterThan(50);
  });
  const [first] = cluster.managers;
  if (!first) throw new Error("no manager");
  await cluster.end(first, "SIGKILL");
  const reached = follower.lines().map((numbers) => numbers.at(-1) ?? 0);
  await eventually(
    () => {
      for (const [index, numbers] of follower.lines().entries()) {
        expect(numbers.at(-1) ?? 0).toBeGreaterThan((reached[index] ?? 0) + 500);
      }
    },
    { timeoutMs: 40_000 },
  );
  await cluster.swarmctlAt(1, "service", "rm", "once");
  const { code: waited, stderr } = await removed;
  expect([waited, stderr]).toEqual([0, expect.stringContaining("looking for another manager")]);
  follower.child.kill("SIGINT");
  const [code] = await once(follower.child, "close");
  expect(follower.complaints.join("\n")).toMatch(/looking for another manager/);
  expect([0, 1]).toContain(code);
  for (const numbers of follower.lines()) {
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => index + 1));
  }
});

rootTest("--tail, --until, --grep and task logs; a dead node is skipped and named", async () => {
  const [task = ""] = (await cluster.swarmctl("service", "ps", "-q", "--no-trunc", "count")).split("\n");
  const tail = await cluster.swarmctl("task", "logs", "--raw", "-n", "200", "--grep", "line \\d+$", task);
  expect(tail).toMatch(/^(line \d+\n){1,199}$/);
  const until = await cluster.swarmctl("task", "logs", "--raw", "--until", "1s", "-n", "2", task);
  expect(until.length).toBeLessThan(60);

  await cluster.end(cluster.agent("node-2"), "SIGKILL");
  await eventually(
    async () => {
      const { stdout, stderr, code } = await cluster.swarmctlAt(1, "service", "logs", "-n", "1", "count");
      expect(stderr).toContain("swarmctl: incomplete logs: node-2: down");
      expect([code, stdout]).toEqual([1, expect.stringContaining("@node-1")]);
    },
    { timeoutMs: 30_000 },
  );
});
