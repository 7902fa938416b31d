/**
 * Goal: three commands make a cluster of machines that trust each other and nobody else: init, join, join. Managers come and go with
 * their place in the store, also by promotion, also when they die; tokens, CA and keys change; and whoever uses a service
 * meanwhile, which is updated all the while, notices nothing. Method: six hosts as network namespaces, both programs on each, and nothing
 * but swarmctl.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { createIntermediate } from "../intermediate.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";
import { Requests, Updates } from "./load.ts";

const NAMES = ["m1", "m2", "m3", "w1", "w2", "w3"];

let cluster: TestCluster;
let requests: Requests;
let updates: Updates;
const on: Record<string, Awaited<ReturnType<TestCluster["startIdle"]>>> = {};

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ managers: 0, nodes: 0 });
  await Promise.all(
    NAMES.map(async (name) => {
      on[name] = await cluster.startIdle(cluster.addHost(name));
    }),
  );
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function swarmctl(host: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = (await on[host]?.(...args)) ?? { code: 1, stdout: "", stderr: `no host ${host}` };
  if (code !== 0) throw new Error(stderr.trim());
  return stdout;
}

const nodes = (host: string) =>
  swarmctl(host, "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}").then((text) =>
    text
      .trim()
      .split("\n")
      .map((line) => line.trim())
      .sort(),
  );

rootTest("idle programs say how it goes on", async () => {
  await expect(swarmctl("m1", "node", "ls")).rejects.toThrow(
    "this host's manager is in no cluster: swarmctl swarm init begins one, swarmctl swarm join joins one",
  );
  await expect(swarmctl("m1", "swarm", "leave")).rejects.toThrow("this node is not part of a swarm");
  await expect(swarmctl("w1", "swarm", "join", "--token", "nonsense", "10.198.0.2")).rejects.toThrow(
    "invalid join token",
  );
});

rootTest("init, join as workers and managers", async () => {
  const startedMs = performance.now();
  const said = await swarmctl("m1", "swarm", "init", "--address-pool", "10.99.0.0/16");
  console.log(`swarm init: ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  expect(said).toMatch(/^Swarm initialized: current node \([a-z0-9]{25}\) is now a manager\./);
  const [, worker = "", address = ""] = /swarm join --token (SWMTKN-1-\S+) (\S+)/.exec(said) ?? [];
  expect(address).toBe("10.198.0.2:2377");
  await eventually(async () => expect(await nodes("m1")).toEqual(["m1 Ready Leader"]));
  await expect(swarmctl("m1", "swarm", "init")).rejects.toThrow("this node is already part of a cluster");

  const joinedMs = performance.now();
  const tokenFile = join(cluster.folder("tokens"), "worker");
  writeFileSync(tokenFile, `${worker}\n`, { mode: 0o600 });
  for (const [name, ...token] of [
    ["w1", "--token", worker],
    ["w2", "--token-file", tokenFile],
  ] as const) {
    expect(await swarmctl(name, "swarm", "join", ...token, address)).toBe("This node joined a swarm as a worker.\n");
  }
  console.log(`swarm join of a worker: ${((performance.now() - joinedMs) / 2000).toFixed(1)} s`);
  const manager = (await swarmctl("m1", "swarm", "join-token", "-q", "manager")).trim();
  for (const name of ["m2", "m3"]) {
    expect(await swarmctl(name, "swarm", "join", "--token", manager, address)).toBe(
      "This node joined a swarm as a manager.\n",
    );
  }
  await eventually(async () =>
    expect(await nodes("m3")).toEqual([
      "m1 Ready Leader",
      "m2 Ready Reachable",
      "m3 Ready Reachable",
      "w1 Ready",
      "w2 Ready",
    ]),
  );
  expect(await swarmctl("m2", "info", "--format", "{{json .}}")).toContain("10.99.0.0/16");
  expect(await swarmctl("m3", "info", "--format", "{{.ClusterID}}")).toMatch(/^[a-z0-9]{25}\n$/);
});

rootTest("it runs services, wherever they are asked for", async () => {
  const image = buildImage({
    name: "demo/sleep:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }],
    config: { Env: ["PATH=/bin"], Cmd: ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done"] },
  });
  await swarmctl("m2", "image", "load", image);
  await swarmctl("m3", "service", "create", "--name", "web", "--mode", "global", "demo/sleep:1");
  expect(await swarmctl("m1", "service", "ls", "--format", "{{.Name}} {{.Replicas}}")).toBe("web 5/5\n");
});

rootTest("a service is used and updated from now on, whatever happens", async () => {
  await swarmctl("m1", "image", "load", writeDemoImage(cluster.folder("images"), "1"));
  const rolling = ["--update-order", "start-first", "--update-monitor", "500ms", "--constraint", "node.hostname==w1"];
  await swarmctl(
    "m1",
    "service",
    "create",
    "--name",
    "site",
    "--replicas",
    "2",
    "-p",
    "8080:80",
    ...rolling,
    "demo/web:1",
  );
  requests = new Requests(cluster, `http://${cluster.host("w1").address}:8080/up`);
  updates = new Updates(["m1", "m2", "m3"], (manager, value) =>
    swarmctl(manager, "service", "update", "--env-add", `ROUND=${value}`, "site"),
  );
  await eventually(() => expect(updates.done).toBeGreaterThan(0), { timeoutMs: 20_000 });
});

rootTest("the leader is killed: another one leads, and comes back as a follower", async () => {
  await cluster.end(cluster.program("m1-manager"), "SIGKILL");
  await eventually(
    async () =>
      expect((await nodes("m2")).filter((line) => line.endsWith("Leader") && !line.startsWith("m1"))).toHaveLength(1),
    { timeoutMs: 20_000 },
  );
  await swarmctl("m3", "service", "update", "--label-add", "seen=yes", "-d", "web");
  cluster.restartManager("m1");
  await eventually(
    async () => expect((await nodes("m1")).filter((line) => /Leader|Reachable/.test(line))).toHaveLength(3),
    {
      timeoutMs: 30_000,
    },
  );
});

/** Drops what goes over the connections that a host's etcd has with the others; no end is told, and new ones are let through. */
async function cutPeers(name: string): Promise<void> {
  const host = cluster.host(name);
  const { stdout } = await cluster.execOn(
    host,
    "ss",
    "-Htn",
    "state",
    "established",
    "( sport = 2378 or dport = 2378 )",
  );
  const ports = [...stdout.matchAll(/:(\d+) +\S+:(\d+)/g)].map(([, own = "", other = ""]) => [own, other] as const);
  expect(ports).not.toEqual([]);
  const pairs = (list: readonly (readonly string[])[]) => `{ ${list.map((pair) => pair.join(" . ")).join(", ")} }`;
  const rules = [
    "add table ip stuck",
    "add chain ip stuck in { type filter hook input priority -200; }",
    "add chain ip stuck out { type filter hook output priority -200; }",
    `add rule ip stuck in tcp dport . tcp sport ${pairs(ports)} drop`,
    `add rule ip stuck out tcp sport . tcp dport ${pairs(ports)} drop`,
  ];
  expect((await cluster.execOn(host, "nft", rules.join("; "))).stderr).toBe("");
}

rootTest("F6: a leader whose etcd has half-open connections to the others is a member again within 20 s", async () => {
  const leads = (await nodes("m1")).find((line) => line.endsWith("Leader"))?.split(" ")[0] ?? "";
  await cutPeers(leads);
  const cutMs = performance.now();
  const label = `cut=${Date.now()}`;
  await eventually(() => swarmctl(leads, "service", "update", "--label-add", label, "-d", "web"), {
    timeoutMs: 25_000,
  });
  for (const name of ["m1", "m2", "m3"]) {
    const managers = async () => (await nodes(name)).filter((line) => /Ready (Leader|Reachable)/.test(line));
    await eventually(async () => expect(await managers()).toHaveLength(3), { timeoutMs: 25_000 });
    await eventually(async () => expect(await swarmctl(name, "service", "inspect", "web")).toContain(label.slice(4)));
  }
  const tookMs = Math.round(performance.now() - cutMs);
  process.stdout.write(`peers' connections half open → all managers there and seen: ${tookMs} ms\n`);
  expect(tookMs).toBeLessThan(25_000);
  await cluster.execOn(cluster.host(leads), "nft", "delete table ip stuck");
});

rootTest("promoted, demoted, and a worker again", async () => {
  await swarmctl("m1", "node", "promote", "w1");
  await eventually(async () => expect(await nodes("w1")).toContain("w1 Ready Reachable"), { timeoutMs: 60_000 });
  expect(await swarmctl("m1", "node", "demote", "w1")).toBe("Manager w1 demoted in the swarm.\n");
  await eventually(async () => expect(await nodes("m1")).toContain("w1 Ready"), { timeoutMs: 30_000 });
  await expect(swarmctl("w1", "node", "ls")).rejects.toThrow("this host's manager is in no cluster");
  // Its place in the store is free: it can come back.
  await swarmctl("m1", "node", "promote", "w1");
  await eventually(async () => expect(await nodes("w1")).toContain("w1 Ready Reachable"), { timeoutMs: 60_000 });
  await swarmctl("m1", "node", "demote", "w1");
  await eventually(async () => expect(await nodes("m1")).toContain("w1 Ready"), { timeoutMs: 30_000 });
});

rootTest("a token is rotated, a worker leaves, is removed, and is refused by the old token", async () => {
  const old = (await swarmctl("m1", "swarm", "join-token", "-q", "worker")).trim();
  await swarmctl("m2", "swarm", "join-token", "--rotate", "worker");
  await expect(swarmctl("w3", "swarm", "join", "--token", old, "10.198.0.3")).rejects.toThrow(
    "the join token is not valid",
  );
  const token = (await swarmctl("m3", "swarm", "join-token", "-q", "worker")).trim();
  await swarmctl("w3", "swarm", "join", "--availability", "drain", "--token", token, "10.198.0.3");
  await eventually(async () => expect(await nodes("m1")).toContain("w3 Ready"));
  expect(await swarmctl("w2", "swarm", "leave")).toBe("Node left the swarm.\n");
  await eventually(async () => expect(await nodes("m1")).toContain("w2 Down"), { timeoutMs: 30_000 });
  await swarmctl("m1", "node", "rm", "w2");
  expect(await nodes("m1")).not.toContain("w2 Down");
  await swarmctl("w2", "swarm", "join", "--token", token, "10.198.0.3");
  await eventually(async () => expect(await nodes("m1")).toContain("w2 Ready"));
});

/** What is said of how the managers stand. */
const warnings = async (host: string): Promise<readonly string[]> =>
  JSON.parse(await swarmctl(host, "info", "--format", "{{json .Warnings}}"));

const managersReach = (host: string, count: number) =>
  eventually(
    async () => expect((await nodes(host)).filter((line) => /Leader|Reachable/.test(line))).toHaveLength(count),
    { timeoutMs: 30_000 },
  );

/** Nodes that are to have a new certificate. */
const stale = async (host: string) => {
  const lines = await swarmctl(host, "node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}");
  return lines.split("\n").filter((line) => line !== "" && !line.endsWith(" Ready"));
};

const FOLLOWED = "etcd trusts what the cluster trusts";

/** When a manager's log says something, in ms. */
const saidAt = (name: string, message: string) =>
  cluster
    .log(cluster.program(`${name}-manager`))
    .split("\n")
    .filter((line) => line.includes(`"msg":"${message}"`))
    .map((line) => Date.parse((JSON.parse(line) as { readonly time: string }).time));

/** How often a manager's etcd has been started again to trust other roots. */
const followed = (name: string) => saidAt(name, FOLLOWED).length;

/** As `swarm ca` is told of it. */
async function writeIntermediate(folder: string): Promise<readonly string[]> {
  const { certificates, key } = await createIntermediate(2);
  const [cert, keyFile] = [join(folder, "ca.pem"), join(folder, "key.pem")];
  writeFileSync(cert, certificates);
  writeFileSync(keyFile, key, { mode: 0o600 });
  return ["--ca-cert", cert, "--ca-key", keyFile];
}

rootTest("F40: the CA rotates three times, with a node away; the managers' own store follows", async () => {
  const root = await swarmctl("m1", "swarm", "ca");
  await cluster.end(cluster.agent("w2"), "SIGKILL");
  for (const manager of ["m1", "m2"]) {
    await swarmctl(manager, "swarm", "ca", "--rotate", "-d");
    await eventually(async () => expect(await stale("m3")).toEqual(["w2 Needs Rotation"]), { timeoutMs: 30_000 });
  }
  // Its store meets others that began under the root of before.
  await cluster.end(cluster.program("m2-manager"), "SIGKILL");
  cluster.restartManager("m2");
  await managersReach("m2", 3);
  cluster.restartAgent("w2");
  await eventually(async () => expect(await swarmctl("m1", "info")).toContain("Root Rotation In Progress: false"), {
    timeoutMs: 30_000,
  });
  const managers = ["m1", "m2", "m3"];
  await eventually(() => expect(managers.map(followed)).toEqual([1, 1, 1]), { timeoutMs: 30_000 });
  // To an authority of theirs that nobody here may vouch for: everybody is to trust it, etcds included, before it signs.
  await swarmctl("m3", "swarm", "ca", "--rotate", ...(await writeIntermediate(cluster.folder("authority"))));
  const [signsAt] = managers.flatMap((name) => saidAt(name, "every node trusts the new root"));
  for (const name of managers) expect(saidAt(name, FOLLOWED)[1]).toBeLessThanOrEqual(signsAt ?? 0);
  // Another manager may hear of the end a moment later.
  await eventually(async () => expect(await stale("m1")).toEqual([]));
  await eventually(() => expect(managers.map(followed)).toEqual([3, 3, 3]), { timeoutMs: 30_000 });
  for (const name of ["m1", "m3"]) {
    await cluster.end(cluster.program(`${name}-manager`), "SIGKILL");
    cluster.restartManager(name);
    await managersReach(name, 3);
  }
  expect(await swarmctl("m2", "swarm", "ca")).not.toBe(root);
});

rootTest("with autolock a manager that starts again waits for its key, and the key lies nowhere", async () => {
  const said = await swarmctl("m2", "swarm", "update", "--autolock");
  const [key = ""] = /SWMKEY-1-\S+/.exec(said) ?? [];
  // Not the last one, of which not every bit counts.
  const wrong = key.replace(/^(SWMKEY-1-)(.)/, (_, prefix, first) => `${prefix}${first === "A" ? "B" : "A"}`);
  const data = `${cluster.directory}/m1/manager`;
  await eventually(() => {
    expect(readFileSync(`${data}/cluster.key`, "utf8")).toMatch(/^SWARM-CLUSTER-KEY-SEALED-1-/);
    expect(readFileSync(`${data}/identity/current/key.pem`, "utf8")).toContain("SWARM SEALED KEY");
  });
  await cluster.end(cluster.program("m1-manager"), "SIGTERM");
  // What is in clear while it runs goes with it.
  expect(readdirSync(`${cluster.directory}/m1`).filter((name) => name.startsWith("identity-"))).toEqual([]);
  cluster.restartManager("m1");
  await eventually(async () => await expect(swarmctl("m1", "node", "ls")).rejects.toThrow("the swarm is locked"), {
    timeoutMs: 30_000,
  });
  await expect(cluster.pipeTo("m1", `${wrong}\n`, "swarm", "unlock")).rejects.toThrow(/invalid (unlock )?key/);
  await cluster.pipeTo("m1", `${key}\n`, "swarm", "unlock");
  await eventually(
    async () => expect((await nodes("m1")).filter((line) => /Leader|Reachable/.test(line))).toHaveLength(3),
    {
      timeoutMs: 30_000,
    },
  );
  expect((await swarmctl("m1", "swarm", "unlock-key", "-q")).trim()).toBe(key);
  expect((await swarmctl("m1", "swarm", "unlock-key", "--rotate", "-q")).trim()).not.toBe(key);
  await swarmctl("m1", "swarm", "update", "--autolock=false");
  await eventually(() => expect(readFileSync(`${data}/cluster.key`, "utf8")).toMatch(/^SWARM-CLUSTER-KEY-1-/));
});

rootTest("a manager that is lost for good is removed, and the rest is a quorum", async () => {
  // One that is asked through a manager that never comes back would wait for it.
  await updates[Symbol.asyncDispose]();
  expect(updates.done).toBeGreaterThan(10);
  await cluster.end(cluster.program("m3-manager"), "SIGKILL");
  await cluster.end(cluster.agent("m3"), "SIGKILL");
  await eventually(async () => expect(await nodes("m1")).toContain("m3 Down Unreachable"), { timeoutMs: 30_000 });
  expect(await warnings("m1")).toEqual([
    "1 of 3 managers cannot be reached: when one more is lost nothing can be changed",
  ]);
  await expect(swarmctl("m1", "node", "rm", "m3")).rejects.toThrow("must be demoted to worker before removal");
  const removed = await on.m1?.("node", "rm", "--force", "m3");
  expect(removed?.stderr).toMatch(/^WARNING: the swarm has 2 managers: it survives the loss of none, as with 1/);
  expect((await nodes("m1")).filter((line) => /Leader|Reachable/.test(line))).toHaveLength(2);
  await expect(swarmctl("m2", "swarm", "leave")).rejects.toThrow(
    "demote it first (swarmctl node demote), or use --force",
  );
  expect(await swarmctl("m2", "swarm", "leave", "--force")).toBe("Node left the swarm.\n");
  await eventually(
    async () =>
      expect((await nodes("m1")).filter((line) => /Leader|Reachable/.test(line))).toEqual(["m1 Ready Leader"]),
    {
      timeoutMs: 30_000,
    },
  );
  await expect(swarmctl("m1", "node", "demote", "m1")).rejects.toThrow("attempting to demote the last manager");
  await expect(swarmctl("m1", "swarm", "leave")).rejects.toThrow("this host is the last manager");
});

rootTest("nobody who used the service has noticed", () => {
  expect(requests.failures).toEqual([]);
  expect(requests.answered).toBeGreaterThan(200);
});

rootTest("with its only companion lost a manager has no quorum; it goes on alone when it is told to", async () => {
  const token = (await swarmctl("m1", "swarm", "join-token", "-q", "manager")).trim();
  await swarmctl("m2", "swarm", "join", "--token", token, "10.198.0.2");
  await cluster.end(cluster.program("m2-manager"), "SIGKILL");
  await cluster.end(cluster.agent("m2"), "SIGKILL");
  await eventually(async () => {
    await expect(swarmctl("m1", "service", "update", "--label-add", "a=b", "-d", "web")).rejects.toThrow(
      /store|unavailable|manager/,
    );
    expect(await warnings("m1")).toEqual([
      expect.stringMatching(/nothing can be changed; 2 of 2 managers must be there/),
    ]);
  });
  // Also when it was stopped meanwhile: it waits for its store.
  await cluster.end(cluster.program("m1-manager"), "SIGTERM");
  cluster.restartManager("m1");
  await eventually(
    async () => expect(await swarmctl("m1", "swarm", "init", "--force-new-cluster")).toContain("is now a manager"),
    {
      timeoutMs: 90_000,
    },
  );
  await eventually(async () => expect(await nodes("m1")).toContain("m1 Ready Leader"), { timeoutMs: 30_000 });
  expect(await swarmctl("m1", "service", "ls", "--format", "{{.Name}}")).toBe("site\nweb\n");
  await swarmctl("m1", "service", "update", "--label-add", "a=b", "-d", "web");
});

rootTest("over an etcd of somebody else's, managers come and go without touching its members", async () => {
  const url = cluster.startEtcd();
  for (const name of ["e1", "e2"]) on[name] = await cluster.startIdle(cluster.addHost(name));
  await swarmctl("e1", "swarm", "init", "--etcd", url);
  const token = (await swarmctl("e1", "swarm", "join-token", "-q", "manager")).trim();
  await swarmctl("e2", "swarm", "join", "--token", token, cluster.host("e1").address);
  await managersReach("e2", 2);
  // However many they are, any one of them is enough.
  expect(await warnings("e1")).toEqual([]);
  expect(readdirSync(`${cluster.directory}/e2/manager`)).not.toContain("etcd");
  const members = await cluster.exec("curl", "-s", "-X", "POST", "-d", "{}", `${url}/v3/cluster/member/list`);
  expect(JSON.parse(members.stdout).members).toHaveLength(1);
  await cluster.end(cluster.program("e1-manager"), "SIGKILL");
  await eventually(async () => expect(await nodes("e2")).toContain("e2 Ready Leader"), { timeoutMs: 30_000 });
  await swarmctl("e2", "service", "create", "-d", "--name", "web", "--replicas", "0", "demo/sleep:1");
});
