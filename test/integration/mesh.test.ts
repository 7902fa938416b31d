/**
 * Goal: a published port answers on every node, and no request is lost while its tasks are replaced, moved or killed.
 * Method: five hosts, Debian's nginx, wrk as a client that opens a connection for each request; it counts what fails.
 */
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { SoftwareImages } from "../software.ts";
import { type Answer, TestCluster } from "./cluster.ts";

/** With `--long` the load is that of 100,000 requests for each part of the test. */
const LONG = process.env.SWARM_TEST_LONG !== undefined;

let cluster: TestCluster;

const HEALTH = [
  ...["--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-start-interval", "100ms"],
  ...["--health-start-period", "10s", "--health-interval", "5s"],
];

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 5 });
  // A client that opens a connection for each request would run out of ports, which is not what is tested.
  for (const setting of ["net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1"]) {
    await cluster.exec("sysctl", "-qw", setting);
  }
  const images = new SoftwareImages((name) => cluster.folder(name));
  for (const version of ["one", "two"]) await cluster.swarmctl("image", "load", images.nginx(version));
  const create = ["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", ...HEALTH];
  await cluster.swarmctl(...create, "--update-order", "start-first", "--update-monitor", "1s", "debian/nginx:one");
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** What wrk counted. */
interface Load {
  readonly requests: number;
  /** Its own words about what went wrong; empty when nothing did. */
  readonly errors: string;
}

/** Asks a node, a connection for each request, until `work` is done and for as many seconds as are given. */
async function underLoad(address: string, seconds: number, work: () => Promise<void>): Promise<Load> {
  const command = ["-t", "1", "-c", "8", "-d", String(seconds), "--timeout", "5", "-H", "Connection: close"];
  const load = cluster.exec("wrk", ...command, `http://${address}:8080/`);
  await work();
  return loadOf(await load);
}

function loadOf({ stdout, stderr, code }: Answer): Load {
  expect(code, stderr).toBe(0);
  const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
  const errors = stdout.split("\n").filter((line) => /Socket errors|Non-2xx/.test(line));
  return { requests, errors: errors.join("\n").trim() };
}

rootTest("every node answers, whether it has a task or not, and deals to the tasks of all", async () => {
  const tasks = await cluster.tasks("web");
  expect(new Set(tasks.map((task) => task.split(" ")[1])).size).toBe(3);
  for (const { address } of cluster.hosts) expect(await cluster.fetch(`http://${address}:8080/`)).toBe("nginx one\n");
});

rootTest("the client's address is what the task sees, over every node", async () => {
  for (const { address } of cluster.hosts) await cluster.fetch(`http://${address}:8080/`);
  await eventually(async () => {
    const logs = await cluster.swarmctl("service", "logs", "--raw", "web");
    const clients = new Set(
      logs
        .split("\n")
        .filter((line) => line.includes("curl/"))
        .map((line) => line.split(" ")[0]),
    );
    expect([...clients]).toEqual([cluster.fabric.address]);
  });
});

rootTest("with session affinity a client meets one task, over every node", async () => {
  await cluster.swarmctl("service", "update", "--session-affinity", "client-ip", "web");
  const met = new Set<string>();
  await eventually(async () => {
    met.clear();
    const mark = `sticky-${Date.now()}`;
    for (const { address } of cluster.hosts) await cluster.fetch(`http://${address}:8080/?${mark}`);
    const requests = (await cluster.swarmctl("service", "logs", "web"))
      .split("\n")
      .filter((line) => line.includes(mark));
    expect(requests).toHaveLength(cluster.hosts.length);
    for (const line of requests) met.add(line.split(/[ @]/)[0] ?? "");
    expect([...met]).toEqual([expect.stringMatching(/^web\.[123]/)]);
  });
  await cluster.swarmctl("service", "update", "--session-affinity", "none", "web");
});

rootTest("a rolling update and a drain lose no request", { timeout: 240_000 }, async () => {
  const seconds = LONG ? 90 : 25;
  const [host] = cluster.hosts;
  const load = await underLoad(host?.address ?? "", seconds, async () => {
    await cluster.swarmctl("service", "update", "--image", "debian/nginx:two", "web");
    const [, node = ""] = (await cluster.tasks("web"))[0]?.split(" ") ?? [];
    await cluster.swarmctl("node", "update", "--availability", "drain", node);
    await eventually(async () => expect((await cluster.tasks("web")).join(" ")).not.toContain(node), {
      timeoutMs: 30_000,
    });
    await cluster.swarmctl("node", "update", "--availability", "active", node);
    await cluster.swarmctl("service", "scale", "web=5");
    await cluster.swarmctl("service", "scale", "web=2");
  });
  process.stdout.write(`requests during update, drain and scale: ${load.requests} ${load.errors}\n`);
  expect(load.errors).toBe("");
  expect(load.requests).toBeGreaterThan(LONG ? 100_000 : 2_000);
  expect(await cluster.fetch(`http://${host?.address}:8080/`)).toBe("nginx two\n");
});
