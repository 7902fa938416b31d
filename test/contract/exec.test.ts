/** Goal: `service exec` and `task exec` find the task, pass on all that was said, and end as the command did. Method: commands whole, over a control plane whose tasks play a few programs. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl, type SwarmctlOptions } from "../swarmctl.ts";

let plane: ControlPlane;
const folder = mkdtempSync(join(tmpdir(), "exec-test-"));
const swarmctl = (line: string, options: SwarmctlOptions = {}) =>
  runSwarmctl(line.split(" "), { ...options, environment: { SWARM_HOST: plane.host, HOME: folder, INHERITED: "yes" } });

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
  for (const line of ["--name web --replicas 2 demo/web:1", "--name once --restart-condition none demo/oneshot:1"]) {
    await swarmctl(`service create -d --no-resolve-image ${line}`);
  }
  expect(await swarmctl("wait service web --for converged --timeout 20s")).toMatchObject({ code: 0 });
  expect(await swarmctl("wait service once --for complete --timeout 20s")).toMatchObject({ code: 0 });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

describe("the task", () => {
  test.each([
    ["service exec web", "web.1"],
    ["service exec --task 2 web", "web.2"],
    ["service exec web.2", "web.2"],
    ["task exec web.1", "web.1"],
    ["task exec web", "web.1"],
  ])("%s", async (words, slot) => {
    const quiet = await swarmctl(`${words} echo hi`);
    expect(quiet).toEqual({ code: 0, out: "hi\n", err: "" });
    // On a terminal it is said which.
    const shown = await swarmctl(`${words} echo hi`, { terminal: true });
    expect(shown.err).toMatch(new RegExp(`^swarmctl: in ${slot} on node-[12]\n$`));
  });

  test.each([
    ["service exec nonesuch sh", "no such task: nonesuch"],
    ["service exec once sh", "service once has no running task"],
    ["service exec --task 3 web sh", "service web has no running task 3"],
    ["service exec --task 1 nonesuch sh", "no such service: nonesuch"],
  ])("%s: %s", async (line, message) => {
    expect(await swarmctl(line)).toEqual({ code: 1, out: "", err: `swarmctl: ${message}\n` });
  });
});

describe("the command", () => {
  test("its exit code and its error stream are passed on", async () => {
    expect(await swarmctl("service exec web exit 42")).toEqual({ code: 42, out: "", err: "going\n" });
    expect(await swarmctl("service exec web missing")).toEqual({
      code: 127,
      out: "",
      err: 'swarmctl: exec: "missing": executable file not found in $PATH\n',
    });
  });

  test("gets input with -i alone", async () => {
    expect(await swarmctl("service exec -i web cat", { stdin: "one\ntwo" })).toMatchObject({
      code: 0,
      out: "one\ntwo",
    });
    expect(await swarmctl("service exec web echo", { stdin: "one" })).toMatchObject({ code: 0, out: "\n" });
  });

  test("gets variables, user, directory and window", async () => {
    const file = join(folder, "vars");
    writeFileSync(file, "# comment\nA=file\nB=file\n");
    const line = `service exec -e B=flag -e INHERITED --env-file ${file} -u app:staff -w /srv web echo x -e`;
    expect(await swarmctl(line)).toMatchObject({ out: "x -e A=file B=file B=flag INHERITED=yes app:staff /srv\n" });
    expect(await swarmctl("service exec -t web size")).toMatchObject({ out: "true 25 80\n" });
  });

  test("is left to itself with -d", async () => {
    expect(await swarmctl("service exec -d web cat")).toEqual({ code: 0, out: "", err: "" });
  });
});

test.each([
  ["service exec web", 2, '"swarmctl service exec" requires at least 2 arguments'],
  ["service exec -it web sh", 2, "-t: the input device is not a TTY"],
  ["service exec -d -t web sh", 2, "--detach: a command in the background has no -i and no -t"],
  ["service exec --privileged web sh", 1, "--privileged: a command has the rights of its task and no more"],
  ["service exec --detach-keys ctrl-1 web sh", 2, 'invalid argument "ctrl-1" for --detach-keys'],
  ["service exec -w srv web sh", 1, 'dir: "srv" must be an absolute path'],
])("%s is refused", async (line, code, message) => {
  const result = await swarmctl(line);
  expect(result).toMatchObject({ code, out: "" });
  expect(result.err).toContain(message);
});
