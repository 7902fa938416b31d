/**
 * Whole stacks through swarmctl. Goal: a deploy does what its plan says, all or nothing, and its exit code is true. Method:
 * the real command line, wire, API, store and loops; nodes are played (`test/control-plane.ts`).
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl, type SwarmctlResult } from "../swarmctl.ts";

let plane: ControlPlane;
const folder = mkdtempSync(join(tmpdir(), "stack-test-"));

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 3 });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function swarmctl(...argv: string[]): Promise<SwarmctlResult> {
  return await runSwarmctl(argv, { environment: { SWARM_HOST: plane.host, HOME: folder } });
}

/** A stack file; answers its path. */
function stackFile(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const QUICK = "{ update_config: { monitor: 10ms } }";

function shop(image: string, more = ""): string {
  return `services:
  web:
    image: ${image}
    deploy: ${QUICK}
    environment: { LEVEL: info }
    secrets: [key]
  cache:
    image: demo/cache:1
    deploy: ${QUICK}
${more}
secrets:
  key: { file: ./key.txt }
volumes:
  data: {}
`;
}

test("is planned, deployed, left alone, changed, rolled back and removed", async () => {
  stackFile("key.txt", "one");
  const first = stackFile("shop.yml", shop("demo/web:1"));
  const planned = await swarmctl("stack", "plan", "-c", first, "--resolve-image", "never", "shop");
  expect(planned.err).toBe("");
  expect(planned.code).toBe(4);
  expect(planned.out).toContain("+ service shop_web ");
  expect(planned.out).toMatch(/placement: 1 on node-\d/);
  expect(planned.out).not.toContain("one\n");

  const deploy = ["stack", "deploy", "-c", first, "--resolve-image", "never", "shop"];
  const deployed = await swarmctl(...deploy);
  expect(deployed.err).toBe("");
  expect(deployed.code).toBe(0);
  expect(deployed.out).toMatch(/^Creating network shop_default\nCreating service shop_web\n/);
  expect(deployed.out).toContain("Creating secret shop_key\n");

  const { revision } = plane.store.view;
  const again = await swarmctl(...deploy);
  expect(again).toMatchObject({ code: 0, err: "" });
  expect(again.out).toContain("Stack shop is unchanged\n");
  expect(plane.store.view.revision).toBe(revision);
  expect((await swarmctl("stack", "plan", "-c", first, "--resolve-image", "never", "shop")).code).toBe(0);

  const second = stackFile("shop2.yml", shop("demo/web:2"));
  const change = await swarmctl("stack", "plan", "-c", second, "--resolve-image", "never", "shop");
  expect(change.code).toBe(4);
  expect(change.out).toContain("~ service shop_web       replace tasks\n    image: demo/web:1 -> demo/web:2\n");
  expect(change.out).toContain("= service shop_cache     unchanged\n");
  expect((await swarmctl("stack", "deploy", "-c", second, "--resolve-image", "never", "shop")).code).toBe(0);

  const rolledBack = await swarmctl("stack", "rollback", "shop");
  expect(rolledBack).toMatchObject({ code: 0, err: "" });
  const image = ["service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "shop_web"];
  expect((await swarmctl(...image)).out).toBe("demo/web:1\n");
  const history = await swarmctl("stack", "history", "--format", "{{.Revision}} {{.Message}}", "shop");
  expect(history.out).toBe("3 rollback to 1\n2 deploy\n1 deploy\n");

  expect((await swarmctl("stack", "ls", "--format", "{{.Name}} {{.Services}}")).out).toBe("shop 2\n");
  expect((await swarmctl("stack", "services", "--format", "{{.Name}}", "shop")).out).toBe("shop_cache\nshop_web\n");
  expect((await swarmctl("stack", "ps", "-f", "desired-state=running", "-q", "shop")).out.split("\n")).toHaveLength(3);
  expect((await swarmctl("stack", "logs", "--raw", "shop")).out).not.toBe("");

  const removed = await swarmctl("stack", "rm", "--detach=false", "shop");
  expect(removed).toMatchObject({ code: 0, err: "volumes are kept, since they hold data: shop_data\n" });
  expect(removed.out).toContain("Removing service shop_web\n");
  expect(removed.out).toContain("Removing secret shop_key\n");
  expect((await swarmctl("stack", "ls", "-q")).out).toBe("");
  expect(await swarmctl("stack", "rm", "shop")).toMatchObject({ code: 0, err: "Nothing found in stack: shop\n" });
});

test("rolls what uses a secret when its content changes, and shows nothing of it", async () => {
  stackFile("key.txt", "s3cret-one");
  const file = stackFile("rolling.yml", shop("demo/web:1"));
  const deploy = ["stack", "deploy", "-c", file, "--resolve-image", "never", "rolling"];
  expect((await swarmctl(...deploy)).code).toBe(0);
  stackFile("key.txt", "s3cret-two");
  const plan = await swarmctl("stack", "plan", "-c", file, "--resolve-image", "never", "rolling");
  expect(plan.code).toBe(4);
  expect(plan.out).toContain("~ secret rolling_key ");
  expect(plan.out).toContain("content changed");
  expect(plan.out).not.toContain("s3cret");
  expect(plan.out).toMatch(/~ service rolling_web +replace tasks/);
  expect(plan.out).toMatch(/= service rolling_cache +unchanged/);
  expect((await swarmctl(...deploy)).code).toBe(0);
  expect((await swarmctl("stack", "plan", "-c", file, "--resolve-image", "never", "rolling")).code).toBe(0);
  expect((await swarmctl("stack", "rollback", "rolling")).code).toBe(0);
  stackFile("key.txt", "s3cret-one");
  expect((await swarmctl("stack", "plan", "-c", file, "--resolve-image", "never", "rolling")).code).toBe(0);
  expect((await swarmctl("stack", "rm", "rolling")).code).toBe(0);
});

test("refuses a plan once the cluster has moved on", async () => {
  const file = stackFile("stale.yml", `services: { web: { image: "demo/web:1", deploy: ${QUICK} } }\n`);
  const plan = join(folder, "plan.json");
  const flags = ["-c", file, "--resolve-image", "never"];
  expect((await swarmctl("stack", "plan", ...flags, "--out", plan, "stale")).code).toBe(4);
  expect(readFileSync(plan, "utf8")).toContain("stale_web");
  expect((await swarmctl("stack", "deploy", ...flags, "stale")).code).toBe(0);
  const refused = await swarmctl("stack", "deploy", "--plan", plan, "stale");
  expect(refused).toMatchObject({ code: 1, out: "" });
  expect(refused.err).toMatch(/out of date: .*service stale_web was created.*; plan again\n$/);
  expect((await swarmctl("stack", "rm", "stale")).code).toBe(0);
});

test("a plan of a stack with secrets needs its files, and the same content", async () => {
  stackFile("key.txt", "planned");
  const file = stackFile("sealed.yml", shop("demo/web:1"));
  const plan = join(folder, "sealed.json");
  expect((await swarmctl("stack", "plan", "-c", file, "--resolve-image", "never", "--out", plan, "sealed")).code).toBe(
    4,
  );
  expect(readFileSync(plan, "utf8")).not.toContain(Buffer.from("planned").toString("base64"));
  expect((await swarmctl("stack", "deploy", "--plan", plan, "sealed")).code).toBe(2);
  expect((await swarmctl("stack", "deploy", "--plan", plan, "-c", file, "sealed")).code).toBe(0);
  expect((await swarmctl("stack", "plan", "-c", file, "--resolve-image", "never", "--out", plan, "sealed")).code).toBe(
    0,
  );
  stackFile("key.txt", "other");
  const refused = await swarmctl("stack", "deploy", "--plan", plan, "-c", file, "sealed");
  expect(refused).toMatchObject({ code: 1, err: expect.stringContaining("secret sealed_key has changed; plan again") });
  expect((await swarmctl("stack", "rm", "sealed")).code).toBe(0);
});

test("keeps a count that was scaled, a forced restart, and what the file has no more", async () => {
  const file = stackFile(
    "keep.yml",
    `services:
  web: { image: "demo/web:1", deploy: ${QUICK} }
  old: { image: "demo/old:1", deploy: ${QUICK} }
`,
  );
  const flags = ["--resolve-image", "never", "keep"];
  expect((await swarmctl("stack", "deploy", "-c", file, ...flags)).code).toBe(0);
  expect((await swarmctl("service", "scale", "-d", "keep_web=3")).code).toBe(0);
  expect((await swarmctl("service", "update", "-d", "--force", "keep_web")).code).toBe(0);
  const less = stackFile("less.yml", `services: { web: { image: "demo/web:1", deploy: ${QUICK} } }\n`);
  const plan = await swarmctl("stack", "plan", "-c", less, ...flags);
  expect(plan.out).toMatch(/= service keep_web +unchanged\n= service keep_old +keep/);
  expect(plan.code).toBe(0);
  const pruned = await swarmctl("stack", "deploy", "-c", less, "--prune", ...flags);
  expect(pruned.out).toContain("Removing service keep_old\n");
  expect((await swarmctl("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "keep")).out).toBe(
    "keep_web 3/3\n",
  );
  expect((await swarmctl("stack", "rm", "keep")).code).toBe(0);
});

test("tells every bad field of every service at once, and writes nothing", async () => {
  const bad = stackFile(
    "bad.yml",
    `services:
  web: { image: "demo/web:1", ports: ["8080:80"], secrets: [key] }
  api: { image: "demo/api:1", ports: ["8080:80"] }
secrets:
  key: { external: true }
`,
  );
  const { code, err } = await swarmctl("stack", "deploy", "-c", bad, "--resolve-image", "never", "bad");
  expect(code).toBe(1);
  expect(err).toContain("port '8080' is already in use");
  expect(err).toContain("is external and does not exist");
  // Of this stack: the loops may still be at work on others.
  const { view } = plane.store;
  const services = [...view.services.values()].map(({ name }) => name);
  expect([view.byName("stack", "bad"), services.filter((name) => name.startsWith("bad_"))]).toEqual([undefined, []]);
});

test("fails with the reason and rolls the whole stack back", async () => {
  const good = stackFile("good.yml", `services: { web: { image: "demo/web:1", deploy: ${QUICK} } }\n`);
  const broken = stackFile(
    "broken.yml",
    `services:
  web:
    image: demo/crashing:1
    deploy: { update_config: { monitor: 10ms, failure_action: pause }, restart_policy: { delay: 10ms } }
`,
  );
  const flags = ["--resolve-image", "never", "fall"];
  expect((await swarmctl("stack", "deploy", "-c", good, ...flags)).code).toBe(0);
  const failed = await swarmctl("stack", "deploy", "-c", broken, "--rollback-on-failure", ...flags);
  expect(failed.code).toBe(1);
  expect(failed.err).toContain("non-zero exit (3)");
  expect(failed.err).toContain("rolling back to revision 1");
  expect((await swarmctl("stack", "plan", "-c", good, ...flags)).code).toBe(0);
  expect((await swarmctl("stack", "rm", "fall")).code).toBe(0);
});

test("times out with 3 and says what is missing", async () => {
  const file = stackFile(
    "slow.yml",
    `services:
  web: { image: "demo/web:1", deploy: { placement: { constraints: ["node.labels.zone==nowhere"] } } }
`,
  );
  const flags = ["-c", file, "--resolve-image", "never"];
  const plan = await swarmctl("stack", "plan", ...flags, "slow");
  expect(plan.out).toContain("cannot place 1: no suitable node (scheduling constraints not satisfied on 3 nodes)");
  const slow = await swarmctl("stack", "deploy", ...flags, "--timeout", "300ms", "slow");
  expect(slow.code).toBe(3);
  expect(slow.err).toContain("not converged within 300ms");
  expect(slow.err).toContain("no suitable node");
  expect((await swarmctl("stack", "rm", "slow")).code).toBe(0);
});

test("deploys more services than one transaction takes, and removes them again", async () => {
  const names = Array.from({ length: 120 }, (_, index) => `s${index}`);
  const file = stackFile(
    "many.yml",
    `services:\n${names.map((name) => `  ${name}: { image: "demo/web:1", deploy: ${QUICK} }\n`).join("")}`,
  );
  const flags = ["-c", file, "--resolve-image", "never", "many"];
  expect((await swarmctl("stack", "deploy", "-d", "-q", ...flags)).code).toBe(0);
  expect((await swarmctl("stack", "ls", "--format", "{{.Services}}")).out).toBe("120\n");
  expect((await swarmctl("stack", "plan", ...flags)).code).toBe(0);
  expect((await swarmctl("stack", "rm", "many")).code).toBe(0);
  await eventually(() => expect([...plane.store.view.services.keys()]).toEqual([]));
});

test("carries more than four megabytes of configs", async () => {
  stackFile("large.txt", "x".repeat(900_000));
  const names = ["a", "b", "c", "d", "e", "f"];
  const configs = names.map((name) => `  ${name}: { file: ./large.txt }\n`).join("");
  const file = stackFile(
    "large.yml",
    `services:\n  web: { image: "demo/web:1", configs: [${names.join(", ")}], deploy: ${QUICK} }\nconfigs:\n${configs}`,
  );
  const flags = ["-c", file, "--resolve-image", "never", "large"];
  expect(await swarmctl("stack", "deploy", ...flags)).toMatchObject({ code: 0, err: "" });
  expect((await swarmctl("stack", "plan", ...flags)).code).toBe(0);
  expect((await swarmctl("stack", "rm", "large")).code).toBe(0);
});
