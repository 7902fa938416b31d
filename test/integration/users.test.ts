/**
 * Goal: a CI user with a stack prefix deploys its stack from elsewhere, with an invite and nothing else, past the loss of a manager; is
 * refused everywhere else; is removed and refused at once; and all of it can be read afterwards. Method: real programs, two managers,
 * one node, swarmctl on a host of its own.
 */
import { spawn } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { type Answer, type Host, TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
let cluster: TestCluster;
let runner: Host;
let folder = "";

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 1, managers: 2 });
  runner = cluster.addHost("runner");
  folder = cluster.folder("ci");
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [{ files: busyboxFiles() }],
    config: {
      Env: ["PATH=/bin"],
      Cmd: ["sh", "-c", "trap 'exit 0' TERM; echo begun; while true; do sleep 1 & wait; done"],
    },
  });
  await cluster.swarmctl("image", "load", image);
  await cluster.swarmctl("service", "create", "--name", "bank_web", "--update-monitor", "200ms", "demo/box:1");
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** swarmctl on the runner, by its context. */
function ci(...args: readonly string[]): Promise<Answer> {
  return cluster.execOn(runner, "env", `SWARM_CONFIG=${folder}/config`, SWARMCTL, ...args);
}

function stackFile(more = ""): string {
  const file = join(folder, `stack-${more.replace(/\W/g, "")}.yml`);
  const settings = "    deploy: {update_config: {monitor: 200ms}}\n    secrets: [key]\n    volumes: [data:/data]\n";
  writeFileSync(join(folder, "key"), "the-content-of-a-secret");
  writeFileSync(
    file,
    `services:\n  web:\n    image: demo/box:1\n${settings}${more}secrets: {key: {file: ./key}}\nvolumes: {data: {}}\n`,
  );
  return file;
}

rootTest("an invite is all that CI needs: its stack is deployed, seen and entered from elsewhere", async () => {
  const invite = join(folder, "ci.invite");
  await cluster.swarmctl("user", "create", "ci", "--role", "deployer", "--stack", "shop", "--out", invite);
  expect(statSync(invite).mode & 0o777).toBe(0o600);
  const managers = [cluster.managerAddress(0), cluster.managerAddress(1)];
  expect(JSON.parse(readFileSync(invite, "utf8"))).toMatchObject({ managers });
  expect(await ci("context", "create", "ci", "--from-invite", invite)).toMatchObject({ code: 0 });
  expect(await ci("context", "use", "ci")).toMatchObject({ code: 0 });
  const deployed = await ci("stack", "deploy", "-c", stackFile(), "shop");
  expect([deployed.code, deployed.stderr]).toEqual([0, ""]);
  expect(await ci("service", "ls", "--format", "{{.Name}} {{.Replicas}}")).toMatchObject({ stdout: "shop_web 1/1\n" });
  expect(await ci("task", "exec", "shop_web.1", "cat", "/run/secrets/key")).toMatchObject({
    stdout: "the-content-of-a-secret",
  });
  expect((await ci("service", "logs", "--raw", "shop_web")).stdout).toContain("begun\n");
});

rootTest("everywhere else it is refused", async () => {
  const confined = "user ci is confined to stacks that begin with shop: ";
  for (const [args, message] of [
    [["service", "rm", "bank_web"], `${confined}service "bank_web" is not of these`],
    [["stack", "deploy", "-c", stackFile(), "bank"], `${confined}stack "bank" is not of these`],
    [["task", "exec", "bank_web.1", "sh"], `${confined}service "bank_web.1" is not of these`],
    [["stack", "deploy", "-c", stackFile("    privileged: true\n"), "shop"], "privileged would lead out of its tasks"],
    [["stack", "deploy", "-c", stackFile('    pid: "host"\n'), "shop"], "the host's PID namespace would lead out"],
    [["node", "ls"], `${confined}nodes are of the whole cluster`],
    [["user", "ls"], "ListUsers is not for users with role deployer"],
  ] as const) {
    const { code, stderr } = await ci(...args);
    expect([args, code, stderr]).toEqual([args, 1, expect.stringContaining(message)]);
  }
  expect(await cluster.tasks("bank_web")).toEqual(["bank_web.1 node-1 Running"]);
});

rootTest("what was done can be read at either manager, though it came through one", async () => {
  for (const number of [0, 1]) {
    const { stdout, stderr } = await cluster.swarmctlAt(number, "audit", "ls", "-n", "1000", "--format", "json");
    expect(stderr).toBe("");
    const records = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, string>);
    const of = (method: string) => records.filter(({ Method }) => Method === method);
    expect(of("ApplyStack")[0]).toMatchObject({
      Who: "user ci",
      Role: "deployer",
      From: expect.stringMatching(new RegExp(`^${runner.address}:\\d+$`)),
      Object: "stack shop",
      Result: "ok",
    });
    expect(of("ApplyStack").filter(({ Result }) => Result === "permission_denied")).toHaveLength(3);
    expect(of("Exec").map(({ Object: task, Detail, Result }) => `${task}: ${Detail}: ${Result}`)).toEqual([
      "task shop_web.1: cat: begun",
      "task shop_web.1: cat: ok",
    ]);
    expect(of("IssueCertificate").map(({ Who, Kind }) => `${Who} ${Kind}`)).toContain("join token node");
    expect(stdout).not.toContain("the-content-of-a-secret");
  }
  const file = join(cluster.directory, "manager-0", "audit.log");
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

rootTest("a manager is lost: the context has another one", async () => {
  const [first] = cluster.managers;
  if (!first) throw new Error("no manager");
  await cluster.end(first, "SIGKILL");
  await eventually(async () => {
    const { code, stderr } = await ci("stack", "deploy", "-c", stackFile("    environment: {A: b}\n"), "shop");
    expect([code, stderr]).toEqual([0, ""]);
  });
});

rootTest("removed, it is refused at once, and what it follows ends", async () => {
  const argv = [`--net=/run/netns/${runner.namespace}`, "env", `SWARM_CONFIG=${folder}/config`, SWARMCTL];
  const logs = spawn("nsenter", [...argv, "service", "logs", "-f", "shop_web"], { stdio: ["ignore", "pipe", "pipe"] });
  const said = { out: "", err: "" };
  logs.stdout.on("data", (data: Buffer) => (said.out += data.toString()));
  logs.stderr.on("data", (data: Buffer) => (said.err += data.toString()));
  const ended = new Promise<number | null>((resolve) => logs.once("close", resolve));
  await eventually(() => expect(said.out).toContain("begun"));
  await cluster.swarmctl("user", "rm", "ci");
  const refused = { code: 1, stdout: "", stderr: "swarmctl: user ci was removed from the cluster\n" };
  expect(await ci("service", "ls")).toEqual(refused);
  expect([await ended, said.err]).toEqual([1, expect.stringContaining("user ci was removed from the cluster")]);
  expect(await cluster.swarmctl("service", "ls", "--format", "{{.Name}} {{.Replicas}}")).toBe(
    "bank_web 1/1\nshop_web 1/1\n",
  );
});
