/**
 * Goal: what tasks use is seen from any manager, all nodes in one table; nodes that cannot be asked are named and hold nobody
 * up. Method: real programs, two managers, two nodes; containers that use what they were told to.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2, managers: 2 });
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }],
    config: { Env: ["PATH=/bin"], Cmd: ["sleep", "100000"] },
  });
  await cluster.swarmctl("image", "load", image);
  const create = (...words: readonly string[]) =>
    cluster.swarmctl("service", "create", "--update-monitor", "200ms", "--stop-grace-period", "100ms", ...words);
  await create("--name", "idle", "--replicas", "4", "--limit-memory", "64M", "demo/box:1");
  await create("--name", "busy", "--limit-cpu", "0.5", "demo/box:1", "sh", "-c", "while true; do :; done");
  await create("--name", "bare", "--network", "host", "demo/box:1");
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** Rows of one look, as objects. */
async function look(manager: number, ...words: readonly string[]) {
  const answer = await cluster.swarmctlAt(manager, ...words, "--no-stream", "--format", "json");
  const rows = answer.stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, string>);
  return { ...answer, rows };
}

rootTest("all nodes' tasks in one table, from either manager, with what they use", async () => {
  for (const manager of [0, 1]) {
    const { code, stderr, rows } = await look(manager, "service", "stats", "idle", "busy", "bare");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(rows.map(({ Name }) => Name)).toEqual(["bare.1", "busy.1", "idle.1", "idle.2", "idle.3", "idle.4"]);
    expect(new Set(rows.map(({ Node }) => Node))).toEqual(new Set(["node-1", "node-2"]));
    const [bare, busy, idle] = rows;
    // Half a processor: its limit.
    expect(Number.parseFloat(busy?.CPUPerc ?? "")).toBeGreaterThan(30);
    expect(Number.parseFloat(busy?.CPUPerc ?? "")).toBeLessThan(75);
    expect(Number.parseFloat(idle?.CPUPerc ?? "")).toBeLessThan(5);
    expect(idle?.MemUsage).toMatch(/(KiB|MiB) \/ 64MiB$/);
    expect(idle?.PIDs).toBe("1");
    expect([bare?.NetIO, idle?.NetIO]).toEqual(["--", expect.stringMatching(/B \/ .*B$/)]);
  }
  const ofNode = await look(0, "node", "stats", "node-2");
  expect(new Set(ofNode.rows.map(({ Node }) => Node))).toEqual(new Set(["node-2"]));
  expect((await look(0, "node", "stats")).rows).toHaveLength(6);
  expect((await look(0, "task", "stats", "idle.3")).rows.map(({ Name }) => Name)).toEqual(["idle.3"]);
});

rootTest("a look that is left open sees tasks come and goes on with another manager", async () => {
  const child: ChildProcess = spawn(
    SWARMCTL,
    [0, 1]
      .flatMap((manager) => ["--host", `unix://${cluster.socket(manager)}`])
      .concat([...["service", "stats", "--period", "200ms", "--format", "{{.Name}} {{.CPUPerc}}", "idle"]]),
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let [out, err] = ["", ""];
  child.stdout?.on("data", (part: Buffer) => {
    out += part.toString();
  });
  child.stderr?.on("data", (part: Buffer) => {
    err += part.toString();
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  await eventually(() => expect(out).toMatch(/idle\.4 \d+\.\d\d%/));
  await cluster.swarmctl("service", "scale", "idle=5");
  await eventually(() => expect(out).toMatch(/idle\.5 \d+\.\d\d%/));
  const [first] = cluster.managers;
  if (!first) throw new Error("no manager");
  await cluster.end(first, "SIGKILL");
  await eventually(() => expect(err).toContain("looking for another manager"));
  out = "";
  await eventually(() => expect(out).toMatch(/idle\.5 \d+\.\d\d%/), { timeoutMs: 20_000 });
  child.kill("SIGINT");
  expect(await ended).toBe(0);
  await cluster.startManager(0);
});

rootTest(
  "a node whose agent is gone is named; the others are shown, and the exit code says that some are missing",
  async () => {
    await cluster.nodesReady(2);
    const before = await look(0, "service", "stats", "idle");
    const there = before.rows.filter(({ Node }) => Node === "node-2").map(({ Name }) => Name);
    expect(there.length).toBeGreaterThan(0);
    await cluster.end(cluster.agent("node-2"), "SIGKILL");
    const { code, stderr, rows } = await look(0, "node", "stats", "node-1", "node-2");
    expect(code).toBe(1);
    // By then its tasks may have been replaced on the other one.
    expect(stderr).toMatch(/^swarmctl: node-2 cannot be asked \(.+\)/);
    expect(rows.length).toBeGreaterThan(0);
    expect(new Set(rows.map(({ Node }) => Node))).toEqual(new Set(["node-1"]));
    cluster.startAgent(cluster.host("node-2"));
    await cluster.nodesReady(2);
    await eventually(
      async () => expect(await look(1, "node", "stats", "node-2")).toMatchObject({ code: 0, stderr: "" }),
      { timeoutMs: 20_000 },
    );
  },
);
