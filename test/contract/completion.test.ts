/**
 * Completion. Goal: commands, flags, values and live names, for every command of the table, in real bash; nothing at all when
 * something is wrong. Method: `__complete` through the dispatcher against a real API; the printed script in a real shell.
 */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { COMMANDS } from "../../cli/command-table.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-complete-"));
let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 2 });
  for (const name of ["web", "worker"]) {
    await swarmctl(
      "service",
      "create",
      "-d",
      "--name",
      name,
      "--label",
      "com.docker.stack.namespace=shop",
      "demo/web:1",
    );
  }
  await swarmctl("network", "create", "front");
  await swarmctl("context", "create", "--host", plane.host, "here");
  await runSwarmctl(["config", "create", "motd", "-"], { environment: environment(), stdin: "hello" });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const environment = () => ({ SWARM_HOST: plane.host, SWARM_CONFIG: join(folder, "config") });
const swarmctl = (...argv: string[]) => runSwarmctl(argv, { environment: environment() });

/** The candidates for the end of `line`; a trailing blank begins a new word. */
async function candidates(line: string): Promise<string[]> {
  const { out, err, code } = await swarmctl("__complete", ...line.split(" "));
  expect([code, err]).toEqual([0, ""]);
  return out
    .split("\n")
    .filter(Boolean)
    .map((each) => each.split("\t")[0] ?? "");
}

test.each<[string, string[]]>([
  ["servi", ["service"]],
  ["service r", ["restart", "rm", "rollback"]],
  ["service frob ", []],
  ["network rm fr", ["front"]],
  ["network connect front ", ["web", "worker"]],
  ["service create --network ", ["bridge", "front", "host", "ingress", "none"]],
  ["service update --session-affinity ", ["none", "client-ip"]],
  ["node update --avail", ["--availability"]],
  ["node update --availability ", ["active", "pause", "drain"]],
  ["node update --availability=dr", ["--availability=drain"]],
  ["node update --availability drain ", ["node-1", "node-2"]],
  ["service ps w", ["web", "worker"]],
  ["service ps web w", ["web", "worker"]],
  ["service stats --no-stream wor", ["worker", "worker.1"]],
  ["task stats we", ["web.1"]],
  ["node stats ", ["node-1", "node-2"]],
  ["task cp we", ["web.1:"]],
  ["task cp web.1:/etc", [":files"]],
  ["task cp ./f", [":files"]],
  ["task cp none", [":files"]],
  ["task cp ./f we", ["web.1:"]],
  ["task cp web.1:/etc /tm", [":files"]],
  ["service scale web", ["web="]],
  ["service scale web=", []],
  ["service rollback web ", []],
  ["service logs -f --tail 5 wor", ["worker", "worker.1"]],
  ["wait service --for con", ["converged"]],
  ["wait stack ", ["shop"]],
  ["--context here service ps we", ["web"]],
  ["--context ", ["default", "here"]],
  ["context use h", ["here"]],
  ["config inspect m", ["motd"]],
  ["service create --config m", ["motd"]],
  ["service ls -f ", ["id=", "label=", "mode=", "name="]],
  ["service create --mode rep", ["replicated", "replicated-job"]],
  ["service create demo/web:1 --", []],
  ["service update --env-add A=1 we", ["web"]],
  ["image load -i ", [":files"]],
  ["image load ", [":files"]],
  ["--tlsc", ["--tlscacert", "--tlscert"]],
])("%s", async (line, expected) => {
  // Names that come too late are left out, and this machine may be busy.
  await eventually(async () => expect(await candidates(line)).toEqual(expected));
});

test("every command of the table is offered, with its flags", async () => {
  for (const name of Object.keys(COMMANDS)) {
    const [first = "", second] = name.split(" ");
    expect(await candidates(second === undefined ? first : `${first} ${second}`)).toContain(second ?? first);
    const { command } = (await COMMANDS[name]?.load()) ?? {};
    const flags = Object.entries(command?.flags ?? {}).filter(([, { aliasOf }]) => aliasOf === undefined);
    expect(await candidates(`${name} --`)).toEqual(expect.arrayContaining(flags.map(([flag]) => `--${flag}`)));
  }
});

test("no manager, a bad host, half a flag: nothing is said", async () => {
  for (const host of ["unix:///nowhere", "ftp://x", "tcp://192.0.2.1:2376"]) {
    const result = await runSwarmctl(["__complete", "service", "ps", ""], { environment: { SWARM_HOST: host } });
    expect(result).toEqual({ code: 0, out: "", err: "" });
  }
  expect(await candidates("-H")).toEqual(["-H"]);
  expect(await candidates("--nope x")).toEqual([]);
});

describe("in a shell", () => {
  const program = new URL("../../cli/swarmctl", import.meta.url).pathname;
  const script = (shell: string) => execFileSync(program, ["completion", shell], { encoding: "utf8" });

  /** What bash would put on the line. */
  async function inBash(line: string): Promise<string[]> {
    symlinkOnce();
    const words = line.split(" ");
    const driver = `${script("bash")}
COMP_LINE=${JSON.stringify(line)} COMP_POINT=${line.length} COMP_WORDS=(${words.map((word) => JSON.stringify(word)).join(" ")}) COMP_CWORD=${words.length - 1}
compopt() { printf 'compopt %s\\n' "$*"; }
_swarmctl
printf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, ...environment(), PATH: `${folder}:${process.env.PATH}` };
    // The manager is in this process: it must go on answering.
    const { stdout, stderr } = await promisify(execFile)("bash", ["--norc", "-c", driver], { encoding: "utf8", env });
    expect(stderr).toBe("");
    return stdout.split("\n").filter(Boolean);
  }

  let linked = false;
  function symlinkOnce(): void {
    if (!linked) symlinkSync(program, join(folder, "swarmctl"));
    linked = true;
  }

  test.each<[string, string[]]>([
    ["swarmctl service sc", ["scale"]],
    ["swarmctl node update --availability=d", ["drain"]],
    ["swarmctl service scale we", ["compopt -o nospace", "web="]],
    ["swarmctl image load ", ["compopt -o default"]],
    ["swarmctl service ps ", ["web", "worker"]],
  ])("bash: %s", async (line, expected) => {
    await eventually(async () => expect(await inBash(line)).toEqual(expected));
  });

  test("the other shells' scripts are well-formed, where they are installed", () => {
    for (const [shell, argument] of [
      ["bash", "-n"],
      ["zsh", "-n"],
      ["fish", "--no-execute"],
    ] as const) {
      const file = join(folder, `script.${shell}`);
      writeFileSync(file, script(shell));
      const { error, status, stderr } = spawnSync(shell, [argument, file], { encoding: "utf8" });
      if (error) expect(error).toMatchObject({ code: "ENOENT" });
      else expect([status, stderr]).toEqual([0, ""]);
    }
    expect(script("zsh")).toContain("compdef _swarmctl swarmctl");
    expect(script("fish")).toContain("complete -c swarmctl");
  });
});
