/**
 * Goal: real software from a real registry runs and stays up while its nodes do not. Method: Debian's nginx in a root
 * made of Debian's packages, three layers, pushed by skopeo to Debian's docker-registry, pulled by two agents on two
 * hosts.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { SoftwareImages } from "../software.ts";
import { TestCluster } from "./cluster.ts";

let cluster: TestCluster;
let registry: string;
let images: SoftwareImages;

/** Pushes an archive under its own name. */
async function push(archive: string, name: string): Promise<void> {
  const target = `docker://${registry}/${name}`;
  const pushed = await cluster.exec("skopeo", "copy", "--dest-tls-verify=false", `oci-archive:${archive}`, target);
  expect(pushed.code, pushed.stderr).toBe(0);
}

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2, managerArgs: ["--insecure-registry", "10.198.0.1:5000"] });
  registry = `${cluster.fabric.address}:5000`;
  const data = cluster.folder("registry");
  const settings = join(data, "config.yml");
  writeFileSync(
    settings,
    `version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: ${data}\nhttp:\n  addr: ${registry}\n`,
  );
  cluster.startProgram("registry", cluster.fabric, "docker-registry", "serve", settings);
  await eventually(() => cluster.fetch(`http://${registry}/v2/`));
  images = new SoftwareImages((name) => cluster.folder(name));
  for (const version of ["one", "two"]) await push(images.nginx(version), `debian/nginx:${version}`);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function answers(expected: string, hosts = cluster.hosts): Promise<void> {
  for (const { address } of hosts) expect(await cluster.fetch(`http://${address}:8088/`)).toBe(`${expected}\n`);
}

rootTest("nginx is pulled by both nodes and answers on its published port", async () => {
  const image = `${registry}/debian/nginx:one`;
  await cluster.swarmctl("service", "create", "--name", "nginx", "--replicas", "2", "-p", "8088:80", image);
  expect((await cluster.tasks("nginx")).map((task) => task.split(" ").slice(1).join(" ")).toSorted()).toEqual([
    "node-1 Running",
    "node-2 Running",
  ]);
  await answers("nginx one");
});

rootTest("its tag is pinned: a tag that moves replaces nothing until somebody says so", async () => {
  const image = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
  const pinned = () => cluster.swarmctl("service", "inspect", "-f", image, "nginx");
  const first = await pinned();
  expect(first).toMatch(/\/debian\/nginx:one@sha256:[0-9a-f]{64}\n$/);
  const tasks = await cluster.tasks("nginx");
  await push(images.nginx("two"), "debian/nginx:one");
  await cluster.swarmctl("service", "update", "--label-add", "touched=yes", "nginx");
  expect(await pinned()).toBe(first);
  const update = ["service", "update", "--update-monitor", "500ms", "--image", `${registry}/debian/nginx:one`, "nginx"];
  await cluster.swarmctl(...update);
  expect(await pinned()).not.toBe(first);
  await answers("nginx two");
  const moved = await cluster.tasks("nginx");
  expect(moved).toHaveLength(tasks.length);
  await cluster.swarmctl(...update);
  const ids = await cluster.swarmctl("service", "ps", "-q", "nginx");
  await cluster.swarmctl(...update);
  expect(await cluster.swarmctl("service", "ps", "-q", "nginx")).toBe(ids);
});

rootTest("it is updated and scaled", async () => {
  await cluster.swarmctl(
    "service",
    "update",
    "--image",
    `${registry}/debian/nginx:two`,
    "--update-monitor",
    "500ms",
    "nginx",
  );
  await answers("nginx two");
  await cluster.swarmctl("service", "scale", "nginx=4");
  expect(await cluster.tasks("nginx")).toHaveLength(4);
  await answers("nginx two");
});

rootTest("its node is killed and its tasks run elsewhere", async () => {
  const victim = cluster.host("node-2");
  cluster.setLink(victim, "down");
  await cluster.end(cluster.agent("node-2"), "SIGKILL");
  await eventually(
    async () =>
      expect((await cluster.tasks("nginx")).filter((task) => task.includes("node-1 Running"))).toHaveLength(4),
    { timeoutMs: 30_000 },
  );
  await answers("nginx two", [cluster.host("node-1")]);
});

rootTest(
  "with the registry down a node that has the image still starts tasks, and one that has not says why",
  async () => {
    await cluster.end(cluster.program("registry"), "SIGTERM");
    await cluster.swarmctl("service", "scale", "nginx=5");
    await cluster.swarmctl(
      "service",
      "create",
      "-d",
      "--name",
      "absent",
      "--restart-condition",
      "none",
      `${registry}/debian/absent:1`,
    );
    await eventually(
      async () => {
        const state = await cluster.swarmctl(
          "service",
          "ps",
          "absent",
          "--no-trunc",
          "--format",
          "{{.CurrentState}} {{.Error}}",
        );
        expect(state).toMatch(/^Rejected .*(refused|ECONNREFUSED)/);
      },
      { timeoutMs: 60_000 },
    );
  },
);
