/**
 * Goal: the bundles that users run do what the sources do, and step aside when a source changed. Method: build them into
 * a folder of their own, start all three, and let swarmctl talk to the manager.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { projectVersion } from "../common/base/version.ts";
import { eventually } from "../test/eventually.ts";

const execute = promisify(execFile);
const directory = mkdtempSync(new URL("out-test-", import.meta.url).pathname);
const data = mkdtempSync(join(tmpdir(), "swarm-build-"));
let manager: ChildProcess | undefined;

async function run(program: string, ...args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await execute(process.execPath, [join(directory, `${program}.cjs`), ...args]);
  return stdout + stderr;
}

beforeAll(async () => {
  await execute(process.execPath, [new URL("build.ts", import.meta.url).pathname, basename(directory)]);
}, 60_000);

afterAll(async () => {
  if (manager?.exitCode === null) {
    const ended = new Promise((resolve) => manager?.once("exit", resolve));
    manager.kill("SIGTERM");
    await ended;
  }
  for (const folder of [directory, data]) rmSync(folder, { recursive: true, force: true });
});

test.each(["swarmctl", "swarm-manager", "swarm-agent"])("%s starts", async (program) => {
  expect(await run(program, "--help")).toMatch(new RegExp(`^Usage: +${program} `));
});

test("Node takes none of a command's words for its own", async () => {
  const wrapper = new URL("../cli/swarmctl", import.meta.url).pathname;
  const outcome = execute(wrapper, ["service", "create", "--env-file", join(data, "none"), "demo/web:1"]);
  await expect(outcome).rejects.toMatchObject({ code: 2, stderr: expect.stringMatching(/^swarmctl: .*none/) });
});

test("swarmctl talks to a manager", { timeout: 60_000 }, async () => {
  const socket = join(data, "manager.sock");
  const options = ["--data-dir", join(data, "manager"), "--socket", socket, "--listen-addr", "127.0.0.1:0"];
  manager = spawn(process.execPath, [join(directory, "swarm-manager.cjs"), ...options], { stdio: "ignore" });
  await eventually(() => expect(existsSync(socket)).toBe(true), { timeoutMs: 30_000 });
  const host = ["--host", `unix://${socket}`];
  expect(await run("swarmctl", ...host, "version", "--format", "{{.Server.Version}}")).toBe(`${projectVersion()}\n`);
  expect(await run("swarmctl", ...host, "service", "ls")).toMatch(/^ID +NAME +MODE +REPLICAS +IMAGE +PORTS\n$/);
});

test("a bundle whose sources have changed runs the sources", async () => {
  const path = join(directory, "swarmctl.cjs");
  const text = readFileSync(path, "utf8");
  const aged = text.replace(/("cli\/main\.ts",\s*)[\d.]+/, "$10");
  expect(aged).not.toBe(text);
  writeFileSync(path, aged);
  // Without its bundle it can only have run the sources.
  rmSync(join(directory, "swarmctl.js"));
  expect(await run("swarmctl", "--help")).toMatch(/^Usage: +swarmctl /);
});
