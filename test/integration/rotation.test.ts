/**
 * Goal: the root changes under running services, twice, with a node away and the leader killed in between: no container, session or
 * stream notices, and nobody is DOWN who is there (F40). Method: real managers and agents, under a client that asks all the while.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { rootTest } from "../privileges.ts";
import { type Program, TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
const TLS = ["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.TLSStatus}}"];

async function startService(cluster: TestCluster, replicas: number): Promise<void> {
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
  const monitor = ["--update-monitor", "500ms"];
  await cluster.swarmctl(
    "service",
    "create",
    "--name",
    "web",
    "--replicas",
    `${replicas}`,
    "-p",
    "8080:80",
    ...monitor,
    "demo/web:1",
  );
}

function identityFile(cluster: TestCluster, node: string, file: "certificate" | "trust"): string {
  return readFileSync(join(cluster.directory, node, `identity/current/${file}.pem`), "utf8");
}

/** The lines of a program's log that say `message`. */
function said(cluster: TestCluster, program: Program, message: string): readonly string[] {
  return cluster
    .log(program)
    .split("\n")
    .filter((line) => line.includes(`"msg":"${message}"`));
}

/** Nodes that a manager took for dead. */
function downs(cluster: TestCluster): readonly string[] {
  const lines = cluster.managers.flatMap((manager) => said(cluster, manager, "node is down"));
  return [...new Set(lines.map((line) => String((JSON.parse(line) as { readonly hostname: string }).hostname)))];
}

async function containers(cluster: TestCluster): Promise<readonly string[]> {
  const all = await Promise.all([...cluster.agents.keys()].map((node) => cluster.containers(node)));
  return all.flat();
}

rootTest(
  "the root rotates under running services: containers, sessions and streams go on",
  { timeout: 120_000 },
  async () => {
    await using cluster = await TestCluster.start({ nodes: 2 });
    await startService(cluster, 4);
    const running = await containers(cluster);
    const root = (await cluster.swarmctl("swarm", "ca")).trim();
    const token = await cluster.swarmctl("swarm", "join-token", "-q", "worker");
    const leaf = identityFile(cluster, "node-1", "certificate");
    const socket = `unix://${cluster.socket()}`;
    const logs = cluster.startProgram(
      "logs",
      cluster.fabric,
      SWARMCTL,
      "--host",
      socket,
      "service",
      "logs",
      "-f",
      "web",
    );

    const out = await cluster.swarmctl("swarm", "ca", "--rotate");
    const newRoot = (await cluster.swarmctl("swarm", "ca")).trim();
    expect(newRoot).not.toBe(root);
    expect(out).toContain("rotated TLS certificates: 3/3 nodes\n");
    expect(out).toContain("rotated CA certificates: 3/3 nodes\n");
    expect(out.trim().endsWith(newRoot)).toBe(true);
    expect(await cluster.swarmctl(...TLS)).toBe("node-1 Ready Ready\nnode-2 Ready Ready\n");
    for (const node of ["node-1", "node-2"]) {
      expect(identityFile(cluster, node, "trust").trim()).toBe(newRoot);
      expect(
        new X509Certificate(identityFile(cluster, node, "certificate")).verify(new X509Certificate(newRoot).publicKey),
      ).toBe(true);
    }
    expect(identityFile(cluster, "node-1", "certificate")).not.toBe(leaf);
    // The token names the root.
    expect(await cluster.swarmctl("swarm", "join-token", "-q", "worker")).not.toBe(token);

    expect(await containers(cluster)).toEqual(running);
    for (const agent of cluster.agents.values()) expect(said(cluster, agent, "session opened")).toHaveLength(1);
    expect(downs(cluster)).toEqual([]);
    await cluster.fetch(`http://${cluster.host("node-1").address}:8080/`);
    await eventually(() => expect(cluster.log(logs)).toContain("web."));
    expect(logs.process.exitCode).toBeNull();
    expect(cluster.log(logs)).not.toContain("looking for another manager");
  },
);

rootTest(
  "F40: twice, with a node away and the leader killed: all follow in the end, and what was issued before is worth nothing",
  { timeout: 240_000 },
  async () => {
    await using cluster = await TestCluster.start({ nodes: 3, managers: 2 });
    await startService(cluster, 6);
    const running = await containers(cluster);
    const root = (await cluster.swarmctl("swarm", "ca")).trim();
    await cluster.end(cluster.agent("node-3"), "SIGKILL");
    await eventually(() => expect(downs(cluster)).toEqual(["node-3"]), { timeoutMs: 20_000 });

    await cluster.swarmctl("swarm", "ca", "--rotate", "-d");
    const leader = JSON.parse(await cluster.swarmctl("info", "--format", "json")) as { LeaderID: string };
    const number = cluster.managers.findIndex((manager) =>
      cluster.log(manager).includes(`"managerId":"${leader.LeaderID}"`),
    );
    await cluster.end(cluster.managers[number] as Program, "SIGKILL");
    await eventually(
      async () =>
        expect(await cluster.swarmctl(...TLS)).toBe(
          "node-1 Ready Ready\nnode-2 Ready Ready\nnode-3 Down Needs Rotation\n",
        ),
      { timeoutMs: 30_000 },
    );
    expect(await cluster.swarmctl("info")).toContain("Root Rotation In Progress: true");
    await cluster.startManager(number);
    await cluster.swarmctl("swarm", "ca", "--rotate", "-d");
    await eventually(
      async () =>
        expect(await cluster.swarmctl(...TLS)).toBe(
          "node-1 Ready Ready\nnode-2 Ready Ready\nnode-3 Down Needs Rotation\n",
        ),
      { timeoutMs: 30_000 },
    );
    expect(identityFile(cluster, "node-3", "trust").trim()).toBe(root);

    cluster.startAgent(cluster.host("node-3"));
    await cluster.nodesReady(3);
    await eventually(async () => expect(await cluster.swarmctl("info")).toContain("In Progress: false"), {
      timeoutMs: 20_000,
    });
    await eventually(async () => expect((await cluster.swarmctl(...TLS)).match(/Ready Ready/g)).toHaveLength(3));
    const newRoot = (await cluster.swarmctl("swarm", "ca")).trim();
    for (const node of cluster.agents.keys()) expect(identityFile(cluster, node, "trust").trim()).toBe(newRoot);
    const kept = await containers(cluster);
    expect(running.filter((line) => !kept.includes(line)).length).toBeLessThanOrEqual(2);
    expect(downs(cluster)).toEqual(["node-3"]);
  },
);
