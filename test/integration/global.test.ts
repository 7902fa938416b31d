/**
 * Goal: a global service has one task on each node that may run it, whatever comes and goes. Method: a manager, two agents
 * and a third that joins; swarmctl as a user would use it.
 */
import { afterAll, beforeAll, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  for (const version of ["1", "2"] as const) {
    await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), version));
  }
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** "node-1 Running" for each task that should run. */
async function places(): Promise<string[]> {
  return (await cluster.tasks("web")).map((task) => task.split(" ").slice(1).join(" ")).sort();
}

rootTest("is created on every node", async () => {
  await cluster.swarmctl("service", "create", "--name", "web", "--mode", "global", "-p", "8080:80", "demo/web:1");
  expect(await places()).toEqual(["node-1 Running", "node-2 Running"]);
  expect(await cluster.swarmctl("service", "ls", "--format", "{{.Mode}} {{.Replicas}}")).toBe("global 2/2\n");
  expect(await cluster.swarmctl("service", "logs", "web")).not.toContain("undefined");
});

rootTest("comes to a node that joins", async () => {
  cluster.startAgent(cluster.addHost("node-3"));
  await eventually(async () => expect(await places()).toEqual(["node-1 Running", "node-2 Running", "node-3 Running"]));
  expect(await cluster.fetch(`http://${cluster.host("node-3").address}:8080/`)).toContain("version 1");
});

rootTest("leaves a drained node, and comes back with it", async () => {
  await cluster.swarmctl("node", "update", "--availability", "drain", "node-2");
  await eventually(async () => expect(await places()).toEqual(["node-1 Running", "node-3 Running"]));
  expect(await cluster.swarmctl("service", "ls", "--format", "{{.Replicas}}")).toBe("2/2\n");
  await cluster.swarmctl("node", "update", "--availability", "active", "node-2");
  await eventually(async () => expect(await places()).toEqual(["node-1 Running", "node-2 Running", "node-3 Running"]));
});

rootTest("is updated on every node, follows its constraints, and is rolled back", async () => {
  await cluster.swarmctl("service", "update", "--image", "demo/web:2", "--update-monitor", "500ms", "web");
  for (const { address } of cluster.hosts)
    expect(await cluster.fetch(`http://${address}:8080/`)).toContain("version 2");
  await cluster.swarmctl("service", "update", "--constraint-add", "node.hostname != node-1", "-d", "web");
  await eventually(async () => expect(await places()).toEqual(["node-2 Running", "node-3 Running"]));
  await cluster.swarmctl("service", "rollback", "-d", "web");
  await eventually(async () => expect(await places()).toEqual(["node-1 Running", "node-2 Running", "node-3 Running"]));
});

rootTest("is not scaled, and is removed without a trace", async () => {
  const answer = await cluster.swarmctlAt(0, "service", "scale", "web=2");
  expect(answer.code).toBe(1);
  expect(answer.stderr).toMatch(/web: scale can only be used with replicated/);
  await cluster.swarmctl("service", "rm", "web");
  await eventually(async () => {
    for (const { name } of cluster.hosts) expect(await cluster.containers(name)).toEqual([]);
  });
});
