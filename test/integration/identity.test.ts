/**
 * Goal: what becomes of nodes when identities go wrong: two agents with one, certificates that have expired, clocks that are wrong
 * (F38, F39, F42). Method: real managers and agents; clocks are shifted for the programs alone.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { rootTest } from "../privileges.ts";
import { type Program, TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
const NODES = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];

async function startService(cluster: TestCluster, ...options: readonly string[]): Promise<void> {
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
  const monitor = ["--update-monitor", "500ms"];
  await cluster.swarmctl("service", "create", "--name", "web", ...monitor, ...options, "demo/web:1");
}

interface Line {
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** The lines of a program's log that say `message`. */
function said(cluster: TestCluster, program: Program, message: string): readonly Line[] {
  const lines = cluster.log(program).split("\n");
  return lines.filter((line) => line.includes(message)).map((line) => JSON.parse(line) as Line);
}

/** What no manager may ever have said. */
function expectNoTrouble(cluster: TestCluster): void {
  for (const manager of cluster.managers) {
    for (const trouble of ["node is down", "lost touch with the store"])
      expect(said(cluster, manager, trouble)).toEqual([]);
  }
}

rootTest(
  "F38: of two agents with one identity the newer one has the node; the other stands by until it has gone",
  { timeout: 120_000 },
  async () => {
    await using cluster = await TestCluster.start({ nodes: 2 });
    await startService(cluster, "--replicas", "2", "--constraint", "node.hostname==node-2");
    const original = cluster.agent("node-1");
    const copyHost = cluster.addHost("copy");
    mkdirSync(join(cluster.directory, "copy"), { mode: 0o700 });
    for (const part of ["identity", "node-id"])
      execFileSync("cp", ["-a", join(cluster.directory, "node-1", part), join(cluster.directory, "copy")]);
    const copy = cluster.startAgent(copyHost);
    const opened = (agent: Program) => said(cluster, agent, "session opened").length;
    await eventually(() => expect(said(cluster, original, "another agent has this node's identity")).toHaveLength(1), {
      timeoutMs: 20_000,
    });
    expect(said(cluster, original, "another agent has this node's identity")[0]?.reason).toContain(
      `at ${copyHost.address}`,
    );
    await cluster.swarmctl(
      "service",
      "update",
      "--constraint-rm",
      "node.hostname==node-2",
      "--constraint-add",
      "node.hostname==copy",
      "web",
    );
    const tasks = await cluster.swarmctl("service", "ps", "web", "--format", "{{.ID}} {{.Node}} {{.DesiredState}}");
    // It asks again all the while, and costs the other one nothing.
    await eventually(
      () =>
        expect(
          said(cluster, original, "no session with a manager, trying again").filter(
            ({ code }) => code === "already_exists",
          ).length,
        ).toBeGreaterThan(3),
      { timeoutMs: 40_000 },
    );
    expect([opened(original), opened(copy)]).toEqual([1, 1]);
    expect(await cluster.swarmctl("service", "ps", "web", "--format", "{{.ID}} {{.Node}} {{.DesiredState}}")).toBe(
      tasks,
    );
    expect(await cluster.swarmctl(...NODES)).toBe("copy Ready\nnode-2 Ready\n");
    expectNoTrouble(cluster);

    await cluster.end(copy, "SIGKILL");
    await eventually(async () => expect(await cluster.swarmctl(...NODES)).toBe("node-1 Ready\nnode-2 Ready\n"), {
      timeoutMs: 30_000,
    });
    expect(opened(original)).toBe(2);
  },
);

rootTest(
  "F39: a node whose certificate has expired keeps its containers, says so, and joins again by a token",
  { timeout: 120_000 },
  async () => {
    await using cluster = await TestCluster.start({ nodes: 2, clock: "-91d" });
    await startService(cluster, "--mode", "global");
    const running = await cluster.containers("node-1");
    const [manager] = cluster.managers as [Program];
    for (const program of [...cluster.agents.values(), manager]) await cluster.end(program, "SIGTERM");

    await cluster.startManager(0);
    const agent = cluster.startAgent(cluster.host("node-1"));
    await eventually(() => expect(said(cluster, agent, "the node's certificate has expired")).toHaveLength(1));
    await eventually(() =>
      expect(said(cluster, agent, "managers do not take this node's certificate")).toMatchObject([
        { code: "unauthenticated" },
      ]),
    );
    expect(await cluster.containers("node-1")).toEqual(running);
    const token = await cluster.swarmctl("swarm", "join-token", "-q", "worker");
    const sockets = [
      "--agent-socket",
      join(cluster.directory, "node-1.sock"),
      "--manager-socket",
      join(cluster.directory, "none.sock"),
    ];
    const rejoin = (secret: string) =>
      cluster.execOn(
        cluster.host("node-1"),
        SWARMCTL,
        "swarm",
        "join",
        ...sockets,
        "--token",
        secret,
        cluster.managerAddress(),
      );
    expect(await rejoin(token.trim().replace(/.$/, (last) => (last === "0" ? "1" : "0")))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("not valid"),
    });
    expect(await cluster.containers("node-1")).toEqual(running);
    expect(await rejoin(token.trim())).toMatchObject({ code: 0, stdout: "This node joined a swarm as a worker.\n" });
    // Another one for the cluster; the former stays until it is removed.
    const nodes = (await cluster.swarmctl(...NODES)).split("\n").filter((line) => line.startsWith("node-1"));
    expect(nodes).toHaveLength(2);
    await eventually(async () => expect((await cluster.tasks("web")).join("\n")).toMatch(/node-1 Running/), {
      timeoutMs: 20_000,
    });
    expect(await rejoin(token.trim())).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("already part of a cluster"),
    });
  },
);

rootTest("F42: agents whose clocks are an hour off are nodes like others", { timeout: 120_000 }, async () => {
  await using cluster = await TestCluster.start({ nodes: 1 });
  cluster.startAgent(cluster.addHost("ahead"), "+1h");
  cluster.startAgent(cluster.addHost("behind"), "-1h");
  await cluster.nodesReady(3);
  await startService(cluster, "--replicas", "6", "-p", "8080:80");
  await cluster.swarmctl("service", "update", "--env-add", "A=b", "--update-parallelism", "6", "web");
  const nodes = (await cluster.tasks("web")).map((line) => line.split(" ")[1]);
  expect(new Set(nodes)).toEqual(new Set(["ahead", "behind", "node-1"]));
  for (const name of ["ahead", "behind"]) {
    await cluster.fetch(`http://${cluster.host(name).address}:8080/`);
    expect(said(cluster, cluster.agent(name), "session opened")).toHaveLength(1);
  }
  expectNoTrouble(cluster);
});

rootTest("F42: managers whose clocks are an hour off lead like others", { timeout: 180_000 }, async () => {
  await using cluster = await TestCluster.start({ nodes: 2, managers: 2 });
  // The others join while the manager that has the image is away.
  const placed = ["late-1", "late-2"].flatMap((name) => ["--constraint", `node.hostname!=${name}`]);
  await startService(cluster, "--replicas", "2", ...placed);
  const leader = async () =>
    String((JSON.parse(await cluster.swarmctl("info", "--format", "json")) as { readonly LeaderID: string }).LeaderID);
  let round = 0;
  // The one behind first: what the one ahead signs is not valid yet for it, two hours away.
  for (const clock of ["-1h", "+1h"]) {
    await cluster.end(cluster.managers[1] as Program, "SIGTERM");
    await cluster.startManager(1, clock);
    const before = await leader();
    await cluster.end(cluster.managers[0] as Program, "SIGTERM");
    await eventually(async () => expect(await leader()).not.toBe(before), { timeoutMs: 20_000 });
    await cluster.nodesReady(2 + round);
    round += 1;
    await cluster.swarmctl("service", "update", "--env-add", `ROUND=${round}`, "--update-parallelism", "2", "web");
    const added = cluster.startAgent(cluster.addHost(`late-${round}`));
    await cluster.nodesReady(2 + round);
    await eventually(() => expect(said(cluster, added, "session opened")).toHaveLength(1));
    await cluster.startManager(0);
  }
  expectNoTrouble(cluster);
});
