/**
 * Goal: one service lives its whole life on three hosts as a user would lead it. Method: a real manager with its own
 * etcd, three agents on hosts that are network namespaces, swarmctl as a process, and curl as the client.
 */
import { afterAll, beforeAll, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (process.getuid?.() !== 0) return;
  cluster = await TestCluster.start();
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "2"));
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

rootTest("is created, spread over the nodes, and answers on each node's published port", async () => {
  await cluster.swarmctl("service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "demo/web:1");
  const tasks = await cluster.tasks("web");
  expect(tasks.map((task) => task.split(" ")[2])).toEqual(["Running", "Running", "Running"]);
  expect(tasks.map((task) => task.split(" ")[1]).toSorted()).toEqual(["node-1", "node-2", "node-3"]);
  // Every node deals to the tasks of all nodes.
  for (const { address } of cluster.hosts) {
    const answers = new Set<string>();
    for (const _ of cluster.hosts) {
      const answer = await cluster.fetch(`http://${address}:8080/`);
      answers.add(/^Hello from web\.\d\S* on (\S+), version 1$/m.exec(answer)?.[1] ?? answer);
    }
    expect([...answers].toSorted()).toEqual(cluster.hosts.map(({ name }) => name).toSorted());
  }
  const [first] = cluster.hosts;
  if (!first) throw new Error("no host");
  const local = await cluster.execOn(first, "curl", "-sf", "--max-time", "3", "http://localhost:8080/");
  expect(local.stdout).toMatch(/^Hello from web\.\d\S* on node-[123], version 1$/m);
});

rootTest("keeps its logs where swarmctl finds them", async () => {
  await cluster.fetch(`http://${cluster.host("node-1").address}:8080/`);
  await eventually(async () => {
    const logs = await cluster.swarmctl("service", "logs", "web");
    expect(logs).toMatch(/^web\.\d\.\S+@node-\d\s+\| GET \/ from \S*10\.198\.0\.1/m);
  });
});

rootTest("is scaled up and down", async () => {
  await cluster.swarmctl("service", "scale", "web=7");
  expect(await cluster.tasks("web")).toHaveLength(7);
  await cluster.swarmctl("service", "scale", "web=3");
  expect(await cluster.tasks("web")).toHaveLength(3);
});

rootTest("is updated to a new version, one slot after the other", async () => {
  await cluster.swarmctl(
    "service",
    "update",
    "--image",
    "demo/web:2",
    "--update-monitor",
    "1s",
    "--update-delay",
    "0s",
    "web",
  );
  for (const { address } of cluster.hosts) {
    expect(await cluster.fetch(`http://${address}:8080/`)).toContain("version 2");
  }
  expect(await cluster.swarmctl("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")).toBe(
    "completed\n",
  );
});

rootTest("goes back to its previous spec", async () => {
  await cluster.swarmctl("service", "rollback", "web");
  for (const { address } of cluster.hosts) {
    expect(await cluster.fetch(`http://${address}:8080/`)).toContain("version 1");
  }
});

rootTest("moves off a drained node and comes back to an active one when scaled", async () => {
  await cluster.swarmctl("node", "update", "--availability", "drain", "node-2");
  await eventually(async () => {
    const nodes = (await cluster.tasks("web")).map((task) => task.split(" ").slice(1).join(" "));
    expect(nodes.filter((node) => node === "node-2 Running")).toEqual([]);
    expect(nodes).toHaveLength(3);
  });
  await cluster.swarmctl("node", "update", "--availability", "active", "node-2");
  await cluster.swarmctl("service", "scale", "web=4");
  expect((await cluster.tasks("web")).some((task) => task.includes("node-2"))).toBe(true);
});

rootTest("a killed container is replaced in its slot", async () => {
  await cluster.swarmctl(
    "service",
    "update",
    "--restart-delay",
    "100ms",
    "--update-parallelism",
    "0",
    "--update-monitor",
    "1s",
    "web",
  );
  const before = await cluster.swarmctl("service", "ps", "web", "-q");
  const [victim = ""] = await cluster.containers("node-1");
  process.kill(Number(victim.split(" ")[0]), "SIGKILL");
  await eventually(async () => {
    const after = await cluster.swarmctl("service", "ps", "web", "-q");
    expect(after).not.toBe(before);
    const states = (await cluster.tasks("web")).map((task) => task.split(" ")[2]);
    expect(states).toEqual(["Running", "Running", "Running", "Running"]);
  });
  expect(await cluster.swarmctl("service", "ps", "web", "--no-trunc")).toContain("non-zero exit (137)");
});

rootTest("a cut-off node's tasks run elsewhere, and are not doubled when it returns", async () => {
  const host = cluster.host("node-3");
  cluster.setLink(host, "down");
  const beganMs = performance.now();
  await eventually(
    async () => {
      const tasks = await cluster.tasks("web");
      expect(tasks.filter((task) => /node-[12] Running/.test(task))).toHaveLength(4);
    },
    { timeoutMs: 30_000 },
  );
  process.stdout.write(`node cut off → tasks elsewhere: ${Math.round(performance.now() - beganMs)} ms\n`);
  cluster.setLink(host, "up");
  await cluster.nodesReady(3);
  await eventually(async () => expect(await cluster.containers("node-3")).toEqual([]));
  expect(await cluster.tasks("web")).toHaveLength(4);
});

rootTest("is removed without a trace", async () => {
  await cluster.swarmctl("service", "rm", "web");
  await eventually(async () => {
    for (const host of cluster.hosts) {
      const left = await cluster.execOn(
        host,
        "sh",
        "-c",
        `ls ${cluster.directory}/${host.name}/containers; ip -o link show type veth | grep -v eth0; exit 0`,
      );
      expect(left.stdout).toBe("");
      const answer = await cluster.exec("curl", "-s", "--max-time", "1", `http://${host.address}:8080/`);
      expect(answer.code).not.toBe(0);
    }
  });
  expect(await cluster.swarmctl("service", "ls", "-q")).toBe("");
});
