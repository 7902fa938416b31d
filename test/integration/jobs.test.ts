/** Goal: jobs end, and services wait for what they depend on. Method: real programs on two hosts; each command's exit code is its word. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2 });
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }],
    config: { Env: ["PATH=/bin"], Cmd: ["sleep", "3600"] },
  });
  await cluster.swarmctl("image", "load", image);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const create = (...args: readonly string[]) => cluster.swarmctlAt(0, "service", "create", ...args);
const replicas = (name: string) =>
  cluster.swarmctl("service", "ls", "-f", `name=${name}`, "--format", "{{.Mode}} {{.Replicas}}");

rootTest("create waits until the job is done, a few at a time", async () => {
  const made = await create(
    ...["--name", "batch", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2"],
    ...["demo/box:1", "sh", "-c", "echo task $SWARM_TASK_SLOT"],
  );
  expect(made, made.stderr).toMatchObject({ code: 0 });
  expect(await replicas("batch")).toBe("replicated job 0/0 (5/5 completed)\n");
  const logs = await cluster.swarmctl("service", "logs", "--raw", "batch");
  expect(logs.trim().split("\n").toSorted()).toEqual([1, 2, 3, 4, 5].map((slot) => `task ${slot}`));
  const rows = await cluster.swarmctl("service", "ps", "batch", "--format", "{{.DesiredState}} {{.CurrentState}}");
  expect(rows.trim().split("\n")).toHaveLength(5);
  for (const row of rows.trim().split("\n")) expect(row).toMatch(/^Complete Complete /);
});

rootTest("an update runs it anew, more completions only what is missing", async () => {
  const count = async () => (await cluster.swarmctl("service", "logs", "--raw", "batch")).trim().split("\n").length;
  await cluster.swarmctl("service", "scale", "batch=6");
  expect(await count()).toBe(6);
  await cluster.swarmctl("service", "update", "--force", "batch");
  expect(await count()).toBe(12);
  await cluster.swarmctl("service", "rm", "batch");
});

rootTest("a job that fails for good says so", async () => {
  const failed = await create(
    ...["--name", "bad", "--mode", "replicated-job", "--restart-max-attempts", "1", "--restart-delay", "10ms"],
    ...["demo/box:1", "sh", "-c", "exit 7"],
  );
  expect(failed.code).toBe(1);
  expect(failed.stderr).toMatch(/service bad: task bad\.1 ended and is not restarted: .*\(7\)/);
  const refused = await create("--name", "x", "--mode", "global-job", "--replicas", "2", "demo/box:1");
  expect(refused).toMatchObject({ code: 2 });
  const update = await create("--name", "x", "--mode", "replicated-job", "--update-delay", "1s", "demo/box:1");
  expect(update.stderr).toContain("jobs may not have an update config");
  await cluster.swarmctl("service", "rm", "bad");
});

rootTest("a global job runs once on each node, also on one that joins", async () => {
  const made = await create("--name", "each", "--mode", "global-job", "demo/box:1", "hostname");
  expect(made, made.stderr).toMatchObject({ code: 0 });
  expect(await replicas("each")).toBe("global job 0/0 (2/2 completed)\n");
  cluster.startAgent(cluster.addHost("node-3"));
  await eventually(async () => expect(await replicas("each")).toBe("global job 0/0 (3/3 completed)\n"));
  await cluster.swarmctl("service", "rm", "each");
});

rootTest("a service waits for the ones that it depends on, and says for what", async () => {
  const ready = cluster.folder("ready");
  await cluster.swarmctl(
    ...["service", "create", "-d", "--name", "web", "--depends-on", "db:healthy", "--depends-on", "migrate:completed"],
    "demo/box:1",
  );
  const waiting = () => cluster.swarmctl("service", "inspect", "-f", "{{.WaitingFor}}", "web");
  expect(await waiting()).toBe("db to be created, migrate to be created\n");
  const timedOut = await cluster.swarmctlAt(0, "service", "update", "--label-add", "a=b", "--timeout", "1s", "web");
  expect(timedOut.stderr).toContain("it waits for db to be created, migrate to be created");
  await cluster.swarmctl(
    ...["service", "create", "-d", "--name", "db", "--health-cmd", "test -e /ready/yes", "--health-interval", "100ms"],
    ...["--health-retries", "1000", "--mount", `type=bind,src=${ready},dst=/ready`, "demo/box:1", "sleep", "3600"],
  );
  await cluster.swarmctl(
    ...["service", "create", "-d", "--name", "migrate", "--mode", "replicated-job", "--depends-on", "db:healthy"],
    ...["demo/box:1", "true"],
  );
  await eventually(async () => expect(await waiting()).toBe("db to be healthy, migrate to complete\n"));
  expect(await cluster.tasks("web")).toEqual([]);
  expect(await cluster.tasks("migrate")).toEqual([]);
  writeFileSync(join(ready, "yes"), "");
  await eventually(async () => expect((await cluster.tasks("web")).join()).toMatch(/^web\.1 node-\d Running$/), {
    timeoutMs: 20_000,
  });
  expect(await waiting()).toBe("\n");
});

rootTest("what was let go is not held back by what happens later; circles are refused", async () => {
  await cluster.swarmctl("service", "stop", "-d", "db");
  const [id] = (await cluster.swarmctl("service", "ps", "-q", "--no-trunc", "web")).split("\n");
  await cluster.swarmctl("service", "update", "--detach", "--restart-delay", "10ms", "web");
  // The new version waits, and the task of the old one goes on.
  expect(await cluster.swarmctl("service", "inspect", "-f", "{{.WaitingFor}}", "web")).toBe("db to be healthy\n");
  expect((await cluster.swarmctl("service", "ps", "-q", "--no-trunc", "web")).split("\n")[0]).toBe(id);
  const circle = await cluster.swarmctlAt(0, "service", "update", "-d", "--depends-on-add", "web", "db");
  expect(circle).toMatchObject({ code: 1 });
  expect(circle.stderr).toContain("services wait for one another: ");
});
