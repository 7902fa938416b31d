/**
 * Goal: what a node does for its services beside running them: keeps logs as it is told, says which ports it cannot
 * publish, and serves on while no manager is there. Method: a manager and one agent; swarmctl and curl look at them.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 1 });
  await cluster.swarmctl("image", "load", writeDemoImage(cluster.folder("images"), "1"));
});

afterEach(async () => {
  if (!isRoot) return;
  const names = (await cluster.swarmctl("service", "ls", "-q")).split("\n").filter(Boolean);
  if (names.length > 0) await cluster.swarmctl("service", "rm", ...names);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

describe("log drivers", () => {
  /** The log files of the only container on the node. */
  const logFiles = () => {
    const containers = join(cluster.directory, "node-1", "containers");
    return readdirSync(containers).flatMap((id) =>
      readdirSync(join(containers, id)).filter((name) => /^log/.test(name)),
    );
  };

  rootTest("none keeps nothing", async () => {
    await cluster.swarmctl("service", "create", "--name", "web", "--log-driver", "none", "demo/web:1");
    expect(logFiles()).toEqual([]);
    expect(await cluster.swarmctl("service", "logs", "web")).toBe("");
    const inspect = await cluster.swarmctl("service", "inspect", "web");
    expect(inspect).toContain('"Name": "none"');
  });

  rootTest("max-size without a driver bounds the default one", async () => {
    await cluster.swarmctl("service", "create", "--name", "web", "--log-opt", "max-size=1m", "demo/web:1");
    expect(logFiles()).toEqual(["log"]);
    await cluster.swarmctl("service", "update", "--log-opt", "max-size=2m", "--log-driver", "json-file", "web");
    const inspect = await cluster.swarmctl("service", "inspect", "web");
    expect(inspect).toMatch(/"max-size": "2m"/);
  });

  rootTest("another is refused by its name", async () => {
    const answer = await cluster.swarmctlAt(0, "service", "create", "--log-driver", "syslog", "demo/web:1");
    expect(answer.code).toBe(1);
    expect(answer.stderr).toContain('log driver "syslog" is not supported: json-file, local or none');
  });
});

rootTest("a published port that another process holds is told in `service ps` until it lets go", async () => {
  const host = cluster.host("node-1");
  const holder = cluster.startProgram("holder", host, "busybox", "httpd", "-f", "-p", "8081");
  await eventually(async () => {
    expect((await cluster.exec("curl", "-s", `http://${host.address}:8081/`)).code).toBe(0);
  });
  await cluster.swarmctl("service", "create", "--name", "web", "-p", "8081:80", "demo/web:1");
  const listing = () =>
    cluster.swarmctl("service", "ps", "web", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}");
  await eventually(async () =>
    expect(await listing()).toMatch(/^Running .*"published port 8081\/tcp: already in use on this node"/),
  );
  await cluster.end(holder, "SIGTERM");
  await eventually(async () => expect(await listing()).not.toContain("already in use"), { timeoutMs: 30_000 });
  expect(await cluster.fetch(`http://${host.address}:8081/`)).toContain("version 1");
});

rootTest("an agent that starts again without a manager publishes, heals and follows its tasks", async () => {
  const host = cluster.host("node-1");
  await cluster.swarmctl("service", "create", "--name", "web", "--replicas", "2", "-p", "8082:80", "demo/web:1");
  const before = await cluster.containers("node-1");
  const [manager] = cluster.managers;
  if (!manager) throw new Error("no manager");
  await cluster.end(manager, "SIGTERM");
  await cluster.end(cluster.agent("node-1"), "SIGKILL");
  await cluster.execOn(host, "nft", "flush", "ruleset");
  cluster.startAgent(host);
  await eventually(async () => {
    const local = await cluster.execOn(host, "curl", "-sf", "--max-time", "2", "http://localhost:8082/");
    expect(local.stdout).toContain("version 1");
    expect(await cluster.fetch(`http://${host.address}:8082/`)).toContain("version 1");
  });
  const [pid = ""] = before[0]?.split(" ") ?? [];
  process.kill(Number(pid), "SIGKILL");
  await eventually(async () => {
    for (let round = 0; round < 8; round++) await cluster.fetch(`http://${host.address}:8082/`);
  });
  await cluster.startManager(0);
  await cluster.nodesReady(1);
  await eventually(async () => {
    const states = (await cluster.tasks("web")).map((task) => task.split(" ")[2]);
    expect(states).toEqual(["Running", "Running"]);
    expect(await cluster.containers("node-1")).toContain(before[1]);
  });
});
