/**
 * Goal: a CI script deploys, changes, plans, rolls back and removes a stack, and reads the truth from exit codes. Method: a real
 * manager with its own etcd, two agents on hosts that are network namespaces, swarmctl as a process.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { rootTest } from "../privileges.ts";
import { type Answer, TestCluster } from "./cluster.ts";

let cluster: TestCluster;
let folder: string;

beforeAll(async () => {
  if (process.getuid?.() !== 0) return;
  cluster = await TestCluster.start({ nodes: 2 });
  folder = cluster.folder("stacks");
  const images = cluster.folder("images");
  for (const version of ["1", "2"]) await cluster.swarmctl("image", "load", writeDemoImage(images, version));
  const broken = buildImage({
    name: "demo/broken:1",
    directory: images,
    layers: [{ files: busyboxFiles() }],
    config: { Cmd: ["sh", "-c", "echo the database is gone; exit 3"] },
  });
  await cluster.swarmctl("image", "load", broken);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const DEPLOY = "{ update_config: { monitor: 100ms, failure_action: pause }, restart_policy: { delay: 50ms } }";

/** A stack with a web server on port 8090 that reads a secret and a config. */
function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function shop(image: string, more = ""): string {
  return `services:
  web:
    image: ${image}
    ports: ["8090:80"]
    secrets: [key]
    configs: [{ source: motd, target: /etc/motd }]
    deploy: ${DEPLOY.replace("{", "{ replicas: 2,")}
${more}
secrets: { key: { file: ./key.txt } }
configs: { motd: { content: "welcome" } }
`;
}

async function stack(...args: readonly string[]): Promise<Answer> {
  return await cluster.swarmctlAt(0, "stack", ...args);
}

rootTest("is deployed, left alone, planned and changed", async () => {
  write("key.txt", "one");
  const extra = `  side: { image: "demo/web:1", deploy: ${DEPLOY} }`;
  const first = write("first.yml", shop("demo/web:1", extra));
  expect((await stack("plan", "-c", first, "shop")).code).toBe(4);
  expect(await stack("deploy", "-c", first, "shop")).toMatchObject({ code: 0, stderr: "" });
  await eventually(async () => {
    expect(await cluster.fetch(`http://${cluster.host("node-1").address}:8090/`)).toContain("version 1");
  });
  expect((await stack("plan", "-c", first, "shop")).code).toBe(0);
  const tasks = await cluster.tasks("shop_web");
  expect((await stack("deploy", "-c", first, "shop")).stdout).toContain("Stack shop is unchanged");
  expect(await cluster.tasks("shop_web")).toEqual(tasks);

  const second = write("second.yml", shop("demo/web:2"));
  const plan = join(folder, "plan.json");
  const planned = await stack("plan", "-c", second, "--prune", "--out", plan, "shop");
  expect(planned.code).toBe(4);
  expect(planned.stdout).toMatch(
    /~ service shop_web +replace tasks\n(?: {4}.*\n)* {4}image: .*demo\/web:1\S* -> .*demo\/web:2/,
  );
  expect(planned.stdout).toMatch(/- service shop_side +remove/);
  expect(await stack("deploy", "--plan", plan, "shop")).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/secret/),
  });
  expect(await stack("deploy", "-c", second, "--prune", "shop")).toMatchObject({ code: 0, stderr: "" });
  await eventually(async () => {
    expect(await cluster.fetch(`http://${cluster.host("node-2").address}:8090/`)).toContain("version 2");
  });
  expect(await cluster.swarmctl("stack", "services", "--format", "{{.Name}}", "shop")).toBe("shop_web\n");
});

rootTest("a failing change tells the task's last words and goes back as a whole", async () => {
  write("key.txt", "two");
  const broken = write("broken.yml", shop("demo/broken:1"));
  const failed = await stack("deploy", "-c", broken, "--rollback-on-failure", "shop");
  expect(failed.code).toBe(1);
  expect(failed.stderr).toContain("non-zero exit (3)");
  expect(failed.stderr).toMatch(/shop_web\.\d \| the database is gone\n/);
  write("key.txt", "one");
  expect((await stack("plan", "-c", join(folder, "second.yml"), "shop")).code).toBe(0);
  await eventually(async () => {
    expect(await cluster.fetch(`http://${cluster.host("node-1").address}:8090/`)).toContain("version 2");
  });
});

rootTest("a plan goes stale, a deploy times out with 3, a history is gone back to", async () => {
  const one = write("one.yml", `services: { a: { image: "demo/web:1", deploy: ${DEPLOY} } }\n`);
  const plan = join(folder, "one.json");
  expect((await stack("plan", "-c", one, "--out", plan, "one")).code).toBe(4);
  expect((await stack("deploy", "--plan", plan, "one")).code).toBe(0);
  const stale = await stack("deploy", "--plan", plan, "one");
  expect(stale).toMatchObject({ code: 1, stderr: expect.stringContaining("plan again") });
  const far = write(
    "far.yml",
    `services: { a: { image: "demo/web:1", deploy: { placement: { constraints: ["node.hostname==moon"] } } } }\n`,
  );
  const late = await stack("deploy", "-c", far, "--timeout", "1s", "one");
  expect(late).toMatchObject({ code: 3, stderr: expect.stringContaining("no suitable node") });
  expect((await stack("rollback", "--to", "1", "one")).code).toBe(0);
  expect(await cluster.swarmctl("stack", "history", "--format", "{{.Message}}", "one")).toBe(
    "rollback to 1\ndeploy\ndeploy\n",
  );
});

rootTest("stacks are removed with their secrets and configs", async () => {
  expect((await stack("rm", "--detach=false", "one", "shop")).code).toBe(0);
  expect(await cluster.swarmctl("stack", "ls", "-q")).toBe("");
  expect(await cluster.swarmctl("secret", "ls", "-q")).toBe("");
  expect(await cluster.swarmctl("config", "ls", "-q")).toBe("");
  expect(await cluster.swarmctl("service", "ls", "-q")).toBe("");
});
