/**
 * Goal: programs that are killed lose nothing. Method: kill -9 of the leading manager, of agents and of shims while a
 * service runs and a client asks it without pause.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2, managers: 2 });
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
  const policy = ["--restart-delay", "100ms", "--update-monitor", "500ms"];
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "web",
    "--replicas",
    "4",
    "-p",
    "8080:80",
    ...policy,
    "demo/web:1",
  );
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** Asks a URL again and again until `stop`; returns how many answers failed of how many. */
async function askUntil(url: string, stop: AbortSignal): Promise<{ readonly asked: number; readonly failed: number }> {
  let asked = 0;
  let failed = 0;
  while (!stop.aborted) {
    asked++;
    await cluster.fetch(url).catch(() => failed++);
  }
  return { asked, failed };
}

rootTest(
  "F21: containers run on while their agent is killed and started again, and no request fails",
  { timeout: 120_000 },
  async () => {
    const host = cluster.host("node-1");
    const before = await cluster.containers("node-1");
    expect(before).toHaveLength(2);
    const stop = new AbortController();
    const asking = askUntil(`http://${host.address}:8080/`, stop.signal);
    for (let round = 0; round < (process.env.SWARM_TEST_LONG ? 20 : 3); round++) {
      await cluster.end(cluster.agent("node-1"), "SIGKILL");
      cluster.startAgent(host);
      await cluster.nodesReady(2);
      expect(await cluster.containers("node-1")).toEqual(before);
    }
    stop.abort();
    const { asked, failed } = await asking;
    expect(failed).toBe(0);
    expect(asked).toBeGreaterThan(20);
  },
);

rootTest("F21: an exit that happened while the agent was away is reported with its code", async () => {
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "brief",
    "--restart-condition",
    "none",
    "--no-healthcheck",
    "--constraint",
    "node.hostname==node-1",
    "demo/web:1",
    "sleep",
    "1d",
  );
  await cluster.end(cluster.agent("node-1"), "SIGKILL");
  const sleeper = (await cluster.containers("node-1")).find((line) => line.endsWith("sleep 1d")) ?? "";
  process.kill(Number(sleeper.split(" ")[0]), "SIGKILL");
  cluster.startAgent(cluster.host("node-1"));
  await eventually(async () => {
    const states = await cluster.swarmctl(
      "service",
      "ps",
      "brief",
      "--no-trunc",
      "--format",
      "{{.CurrentState}} {{.Error}}",
    );
    expect(states).toMatch(/^(Failed|Complete) .*137/);
  });
  await cluster.swarmctl("service", "rm", "brief");
});

rootTest("F23: a task whose shim is killed fails with the reason and is replaced", async () => {
  const before = await cluster.swarmctl("service", "ps", "web", "-q", "--filter", "desired-state=running");
  const [container = ""] = await cluster.containers("node-2");
  const shim = readFileSync(`/proc/${container.split(" ")[0]}/stat`, "utf8")
    .split(") ")
    .at(-1)
    ?.split(" ")[1];
  process.kill(Number(shim), "SIGKILL");
  await eventually(
    async () => {
      expect(await cluster.swarmctl("service", "ps", "web", "--no-trunc")).toContain("shim lost");
      const after = await cluster.swarmctl("service", "ps", "web", "-q", "--filter", "desired-state=running");
      expect(after).not.toBe(before);
      expect((await cluster.tasks("web")).filter((task) => task.endsWith("Running"))).toHaveLength(4);
    },
    { timeoutMs: 30_000 },
  );
  expect(await cluster.containers("node-2")).not.toContain(container);
});

rootTest(
  "F1: the other manager leads after the leader is killed, and no container is touched",
  { timeout: 120_000 },
  async () => {
    const before = [...(await cluster.containers("node-1")), ...(await cluster.containers("node-2"))];
    const leaderId = (await cluster.swarmctl("info", "--format", "{{.LeaderID}}")).trim();
    const idOf = async (number: number) =>
      (await cluster.swarmctlAt(number, "info", "--format", "{{.ManagerID}}")).stdout.trim();
    const leader = (await idOf(0)) === leaderId ? 0 : 1;
    const other = 1 - leader;
    const [victim] = cluster.managers.slice(leader, leader + 1);
    if (!victim) throw new Error("no leader");
    await cluster.end(victim, "SIGKILL");
    const beganMs = performance.now();
    const scaled = await cluster.swarmctlAt(other, "service", "scale", "web=5");
    expect(scaled.code, scaled.stderr).toBe(0);
    process.stdout.write(
      `leader killed → a service scaled by the other manager: ${Math.round(performance.now() - beganMs)} ms\n`,
    );
    const after = [...(await cluster.containers("node-1")), ...(await cluster.containers("node-2"))];
    for (const container of before) expect(after).toContain(container);
    await cluster.startManager(leader);
    await cluster.nodesReady(2);
    expect((await cluster.tasks("web")).filter((task) => task.endsWith("Running"))).toHaveLength(5);
  },
);

rootTest(
  "F10: with all managers gone containers serve on, and nothing restarts when they return",
  { timeout: 120_000 },
  async () => {
    const before = [...(await cluster.containers("node-1")), ...(await cluster.containers("node-2"))];
    for (const manager of cluster.managers) await cluster.end(manager, "SIGKILL");
    for (const { address } of cluster.hosts) expect(await cluster.fetch(`http://${address}:8080/`)).toContain("Hello");
    for (const number of [0, 1]) await cluster.startManager(number);
    await cluster.nodesReady(2);
    expect([...(await cluster.containers("node-1")), ...(await cluster.containers("node-2"))]).toEqual(before);
  },
);

rootTest("an agent's directory holds nothing of what is gone", async () => {
  await cluster.swarmctl("service", "rm", "web");
  await eventually(() => {
    for (const { name } of cluster.hosts) {
      expect(readdirSync(join(cluster.directory, name, "containers"))).toEqual([]);
      expect(readdirSync(join(cluster.directory, name, "tasks"))).toEqual([]);
    }
  });
});
