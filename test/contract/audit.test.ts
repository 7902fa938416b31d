/**
 * The audit log. Goal: every change that somebody makes, or is refused, can be found with who, what, from where and how it ended.
 * Method: the real dispatcher and doors, people on the host and elsewhere.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-audit-"));
let plane: ControlPlane;

const host = (...argv: readonly string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });
const elsewhere = (...argv: readonly string[]) =>
  runSwarmctl(argv, { environment: { SWARM_CONFIG: join(folder, "config") }, stdin: "hunter2" });

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  await plane.serveMembers();
  for (const [name, ...flags] of [
    ["ci", "--role", "deployer", "--stack", "shop"],
    ["boss", "--role", "admin"],
  ] as const) {
    const file = join(folder, `${name}.invite`);
    await host("user", "create", name, "--out", file, ...flags);
    await elsewhere("context", "create", name, "--from-invite", file);
  }
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** What is written from now on, by a Go template. */
async function written(template: string, work: () => Promise<void>): Promise<readonly string[]> {
  const before = (await host("audit", "ls", "--format", "{{.Time}}")).out.split("\n").length;
  await work();
  const { code, out } = await host("audit", "ls", "-n", "10000", "--format", template);
  expect(code).toBe(0);
  return out
    .trim()
    .split("\n")
    .slice(before - 1);
}

test("who changed what, from where, and how it ended", async () => {
  const lines = await written("{{.Who}} {{.Role}} {{.Method}} {{.Object}} {{.Detail}} {{.Result}}", async () => {
    await elsewhere("-c", "ci", "service", "create", "-d", "--name", "shop_web", "-e", "TOKEN=hunter2", "demo/web:1");
    await elsewhere("-c", "ci", "service", "update", "-d", "--image", "demo/web:2", "shop_web");
    await elsewhere("-c", "ci", "service", "stop", "-d", "shop_web");
    await elsewhere("-c", "ci", "secret", "create", "shop_key", "-");
    await elsewhere("-c", "ci", "service", "ls");
    await elsewhere("-c", "ci", "service", "rm", "shop_web");
    await elsewhere("-c", "boss", "node", "update", "--label-add", "disk=ssd", "node-1");
    await host("swarm", "join-token", "--rotate", "-q", "worker");
  });
  expect(lines).toEqual([
    "user ci deployer CreateService service shop_web  ok",
    "user ci deployer UpdateService service shop_web image ok",
    "user ci deployer SetServiceStopped service shop_web stop ok",
    "user ci deployer CreateSecret secret shop_key  ok",
    "user ci deployer RemoveService service shop_web  ok",
    "user boss admin UpdateNode node node-1 labels.disk ssd ok",
    "host  GetJoinTokens join token rotate worker ok",
  ]);
});

test("a refusal is written down too: by role, by reach, by what was removed", async () => {
  const lines = await written("{{.Who}} {{.Method}} {{.Result}} {{.Reason}}", async () => {
    await elsewhere("-c", "ci", "service", "create", "-d", "--name", "bank_web", "demo/web:1");
    await elsewhere("-c", "ci", "swarm", "join-token", "worker");
    await elsewhere("-c", "ci", "secret", "create", "shop_key", "-");
  });
  expect(lines).toEqual([
    'user ci CreateService permission_denied user ci is confined to stacks that begin with shop: service "bank_web" is not of these',
    "user ci GetJoinTokens permission_denied GetJoinTokens is not for users with role deployer",
    "user ci CreateSecret already_exists",
  ]);
});

test("a command in a task: its beginning and its end, with the program and without what follows", async () => {
  await host("service", "create", "--name", "shop_db", "demo/web:1");
  const lines = await written("{{.Who}} {{.Object}} {{.Detail}} {{.Result}}", async () => {
    await elsewhere("-c", "ci", "task", "exec", "shop_db.1", "echo", "hunter2");
    await elsewhere("-c", "ci", "task", "cp", "shop_db.1:/nothing", folder);
  });
  expect(lines).toEqual([
    "user ci task shop_db.1 echo begun",
    "user ci task shop_db.1 echo ok",
    "user ci task shop_db.1 from /nothing begun",
    "user ci task shop_db.1 from /nothing not_found",
  ]);
});

test("records have the certificate, the address, the object's id and a revision by which it is seen", async () => {
  const { out } = await host("audit", "ls", "--format", "json");
  const records = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const created = records.find(({ Method }) => Method === "CreateSecret");
  expect(created).toMatchObject({
    From: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    Kind: "secret",
    Name: "shop_key",
  });
  expect(created.Serial).toBe(plane.store.view.byName("user", "ci")?.serial);
  const secret = plane.store.view.byName("secret", "shop_key");
  expect(created.ID).toBe(secret?.id);
  expect(Number(created.Revision)).toBeGreaterThanOrEqual(Number(secret?.meta?.version));
  expect(records.find(({ Who }) => Who === "host")?.From).toBe("unix");
});

test("nothing secret is in it, and it is for admins", async () => {
  const { tokens } = { tokens: (await host("swarm", "join-token", "-q", "manager")).out.trim() };
  const { out } = await host("audit", "ls", "-n", "10000", "--format", "json");
  for (const secret of ["hunter2", tokens, "PRIVATE KEY", "BEGIN"]) expect(out).not.toContain(secret);
  expect((await elsewhere("-c", "ci", "audit", "ls")).err).toContain("ListAudit is not for users with role deployer");
  expect((await elsewhere("-c", "boss", "audit", "ls", "-n", "1")).code).toBe(0);
  expect(await host("audit", "ls", "-n", "0")).toMatchObject({ code: 2 });
  expect((await host("audit", "ls", "--since", "2100-01-01", "--format", "{{.Method}}")).out).toBe("");
  expect(readFileSync(join(folder, "ci.invite"), "utf8")).toContain("PRIVATE KEY");
});
