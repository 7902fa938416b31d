/**
 * Goal: the example stacks, as a CI job drives them. Method: three hosts, Debian's nginx, redis and PostgreSQL and a small
 * application in a real registry; deploy/examples deployed, changed, planned, rolled back and removed by swarmctl, whose
 * exit codes are the test's.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { SoftwareImages } from "../software.ts";
import { type Answer, TestCluster } from "./cluster.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
/** Ports of the fabric's hosts. */
const WEBSITE_PORT = 8090;
const GUESTBOOK_PORT = 8091;

let cluster: TestCluster;
let registry: string;
let examples: string;
/** What the job's environment says; tests change it as a person would. */
const environment: Record<string, string> = {};

async function push(archive: string, name: string): Promise<string> {
  const reference = `${registry}/${name}`;
  const target = `docker://${reference}`;
  const pushed = await cluster.exec("skopeo", "copy", "--dest-tls-verify=false", `oci-archive:${archive}`, target);
  expect(pushed.code, pushed.stderr).toBe(0);
  return reference;
}

beforeAll(async () => {
  if (!isRoot) return;
  const address = "10.198.0.1:5000";
  cluster = await TestCluster.start({ nodes: 3, managerArgs: ["--insecure-registry", address] });
  registry = `${cluster.fabric.address}:5000`;
  expect(registry).toBe(address);
  const data = cluster.folder("registry");
  const settings = join(data, "config.yml");
  writeFileSync(
    settings,
    `version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: ${data}\nhttp:\n  addr: ${registry}\n`,
  );
  cluster.startProgram("registry", cluster.fabric, "docker-registry", "serve", settings);
  await eventually(() => cluster.fetch(`http://${registry}/v2/`));
  const images = new SoftwareImages((name) => cluster.folder(name));
  examples = cluster.folder("examples");
  cpSync(join(ROOT, "deploy/examples"), examples, { recursive: true });
  Object.assign(environment, {
    NGINX_IMAGE: await push(images.nginx("one"), "debian/nginx:one"),
    REDIS_IMAGE: await push(images.redis(), "debian/redis:7"),
    POSTGRES_IMAGE: await push(images.postgres(), "debian/postgres:15"),
    GUESTBOOK_IMAGE: await push(images.guestbook("1"), "demo/guestbook:1"),
    WEB_PORT: String(WEBSITE_PORT),
    MONITOR: "500ms",
    DB_PASSWORD: "a database's password",
    REDIS_PASSWORD: "a-cache's-password",
    SWARMCTL: join(ROOT, "cli/swarmctl"),
    SWARM_HOST: `unix://${cluster.socket()}`,
  });
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** Runs a program as the job does: in the examples' folder, with the job's environment. */
async function job(program: string, ...args: readonly string[]): Promise<Answer> {
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return await cluster.exec("env", "-C", examples, ...variables, program, ...args);
}

/** Runs `swarmctl stack …` and checks its exit code. */
async function stack(code: number, ...args: readonly string[]): Promise<Answer> {
  const answer = await job(environment.SWARMCTL ?? "", "stack", ...args);
  expect(answer.code, `${args.join(" ")}\n${answer.stdout}${answer.stderr}`).toBe(code);
  return answer;
}

function edit(path: string, from: string, to: string): void {
  const file = join(examples, path);
  const text = readFileSync(file, "utf8");
  expect(text).toContain(from);
  writeFileSync(file, text.replaceAll(from, to));
}

/** What a service's tasks are now, to see which of them were replaced. */
async function taskIds(service: string): Promise<string[]> {
  const words = ["service", "ps", service, "--no-trunc", "--filter", "desired-state=running", "--format", "{{.ID}}"];
  return (await cluster.swarmctl(...words)).split("\n").filter(Boolean).toSorted();
}

describe("the website", () => {
  const file = ["-c", "website/stack.yml"];
  const page = (node: string) => cluster.fetch(`http://${cluster.host(node).address}:${WEBSITE_PORT}/`);

  rootTest("is planned, and deployed as planned", async () => {
    const plan = await stack(4, "plan", ...file);
    expect(plan.stdout).toContain("website_web");
    expect((await job("./deploy.sh", "website/stack.yml")).code).toBe(0);
    for (const node of ["node-1", "node-2", "node-3"]) expect(await page(node)).toContain("configuration one");
  });

  rootTest("an unchanged deploy changes nothing", async () => {
    const before = await taskIds("website_web");
    await stack(0, "plan", ...file);
    await stack(0, "deploy", ...file);
    expect((await job("./deploy.sh", "website/stack.yml")).stdout).toContain("nothing to do");
    expect(await taskIds("website_web")).toEqual(before);
    const history = await stack(0, "history", "website", "--format", "{{.Revision}}");
    expect(history.stdout.trim().split("\n")).toHaveLength(1);
  });

  rootTest("a changed configuration rolls its servers, and a rollback brings it back", async () => {
    edit("website/site.conf", "configuration one", "configuration two");
    await stack(4, "plan", ...file);
    await stack(0, "deploy", ...file);
    expect(await page("node-3")).toContain("configuration two");
    await stack(0, "rollback", "website");
    expect(await page("node-3")).toContain("configuration one");
  });

  rootTest("a deploy that fails says why, and the stack goes back", async () => {
    edit("website/site.conf", "configuration two", "configuration three");
    edit("website/site.conf", "listen 8080;", "listen 8080 nonsense;");
    const failed = await stack(1, "deploy", "--rollback-on-failure", "--timeout", "2m", ...file);
    expect(failed.stderr).toMatch(/web/);
    await eventually(async () => expect(await page("node-1")).toContain("configuration one"));
  });

  rootTest("is removed", async () => {
    await stack(0, "rm", "website");
    await eventually(async () => expect(await cluster.swarmctl("service", "ls", "-q")).toBe(""));
    expect(await cluster.swarmctl("config", "ls", "-q")).toBe("");
  });
});

describe("the guest book", () => {
  const file = ["-c", "guestbook/stack.yml"];
  const visit = () => cluster.fetch(`http://${cluster.host("node-1").address}:${GUESTBOOK_PORT}/cgi-bin/index.cgi`);

  rootTest("starts in order: data, then its table, then the application", async () => {
    environment.WEB_PORT = String(GUESTBOOK_PORT);
    const config = await stack(0, "config", ...file);
    expect(config.stdout).toContain(environment.POSTGRES_IMAGE);
    await stack(0, "deploy", "--timeout", "3m", ...file);
    expect(await visit()).toBe("Hello visits=1 rows=1\n");
    expect(await visit()).toBe("Hello visits=2 rows=2\n");
    const logs = await stack(0, "logs", "--raw", "guestbook");
    expect(logs.stdout).toContain("migrated");
  });

  rootTest("keeps its passwords to itself", async () => {
    for (const words of [
      ["service", "inspect", "guestbook_db"],
      ["secret", "inspect", "guestbook_db_password"],
    ]) {
      expect(await cluster.swarmctl(...words)).not.toContain(environment.DB_PASSWORD);
    }
    const secrets = await cluster.swarmctl("secret", "ls", "--format", "{{.Name}}");
    expect(secrets.trim().split("\n").toSorted()).toEqual(["guestbook_db_password", "guestbook_redis_password"]);
  });

  rootTest("a change replaces what it concerns, and the data stays", async () => {
    environment.GREETING = "Welcome";
    const before = { db: await taskIds("guestbook_db"), web: await taskIds("guestbook_web") };
    await stack(0, "deploy", "--timeout", "3m", ...file);
    expect(await visit()).toBe("Welcome visits=3 rows=3\n");
    expect(await taskIds("guestbook_db")).toEqual(before.db);
    expect(await taskIds("guestbook_web")).not.toEqual(before.web);
    await stack(0, "rollback", "--to", "1", "guestbook");
    expect(await visit()).toBe("Hello visits=4 rows=4\n");
  });

  rootTest("a task of a data store comes back to its data", async () => {
    await cluster.swarmctl("service", "update", "--force", "--update-monitor", "500ms", "guestbook_db");
    await eventually(async () => expect(await visit()).toBe("Hello visits=5 rows=5\n"), { timeoutMs: 20_000 });
  });

  rootTest("is removed, and its data stays for the next deploy", async () => {
    await stack(0, "rm", "guestbook");
    await eventually(async () => expect(await cluster.swarmctl("service", "ls", "-q")).toBe(""));
    const volumes = async () => await cluster.swarmctl("volume", "ls", "--format", "{{.Name}}");
    expect((await volumes()).trim().split("\n").toSorted()).toEqual(["guestbook_cache-data", "guestbook_db-data"]);
    await stack(0, "deploy", "--timeout", "3m", ...file);
    expect(await visit()).toMatch(/ rows=6\n$/);
    await stack(0, "rm", "guestbook");
  });
});
