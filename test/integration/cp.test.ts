/**
 * Goal: files go out of tasks and into them on whatever node they run, whole, from any manager; what may not be written is
 * not, and whoever leaves or is lost leaves nothing running. Method: real programs, two managers, two nodes.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { buildImage, busyboxFiles } from "../images.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { file } from "../tar.ts";
import { TestCluster } from "./cluster.ts";

const SWARMCTL = new URL("../../cli/swarmctl", import.meta.url).pathname;
let cluster: TestCluster;
const here = (...names: string[]) => join(cluster.folder("here"), ...names);

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 2, managers: 2 });
  const image = buildImage({
    name: "demo/box:1",
    directory: cluster.folder("images"),
    layers: [{ files: [...busyboxFiles(), file("etc/motd", "hello from the image\n")] }],
    config: { Env: ["PATH=/bin"], Cmd: ["sleep", "100000"] },
  });
  await cluster.swarmctl("image", "load", image);
  const create = (...words: readonly string[]) =>
    cluster.swarmctl("service", "create", "--update-monitor", "200ms", "--stop-grace-period", "100ms", ...words);
  await create("--name", "box", "--replicas", "2", "--user", "1000", "demo/box:1");
  await create("--name", "closed", "--read-only", "--mount", "type=volume,source=data,target=/data", "demo/box:1");
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  if (!isRoot) return;
  rmSync(here(), { recursive: true, force: true });
});

const cp = (manager: number, ...words: readonly string[]) => cluster.swarmctlAt(manager, "task", "cp", ...words);
const sh = (slot: string, script: string) => cluster.swarmctl("task", "exec", "-u", "0", slot, "sh", "-c", script);

rootTest("a tree goes in and comes out the same, on either node, from either manager", async () => {
  mkdirSync(here("tree/deep/er"), { recursive: true });
  writeFileSync(here("tree/deep/er/f"), "f", { mode: 0o600 });
  writeFileSync(here("tree/large"), Buffer.alloc(5_000_000, "swarm"));
  execFileSync("ln", ["-s", "deep/er/f", here("tree/link")]);
  execFileSync("ln", [here("tree/large"), here("tree/again")]);
  execFileSync("touch", ["-d", "2001-02-03T04:05:06Z", here("tree/deep")]);
  const places = (await cluster.tasks("box")).map((task) => task.split(" ")[1]);
  expect(new Set(places)).toEqual(new Set(["node-1", "node-2"]));
  for (const [manager, slot] of [
    [0, "box.1"],
    [1, "box.2"],
    [0, "box.2"],
  ] as const) {
    const copied = await cp(manager, here("tree"), `${slot}:/in-${manager}`);
    expect(copied).toMatchObject({ code: 0, stdout: "" });
    expect(copied.stderr).toBe(`Successfully copied 5.01MB to ${slot}:/in-${manager}\n`);
    // Whatever the container's user is, what came is root's.
    expect(await sh(slot, `stat -c '%u:%g %a' /in-${manager}/deep/er/f; cat /in-${manager}/link`)).toBe("0:0 600\nf");
    expect(await cp(manager, "-q", `${slot}:/in-${manager}/.`, here("back"))).toMatchObject({ code: 0, stderr: "" });
    execFileSync("diff", ["-r", "--no-dereference", here("tree"), here("back")]);
    expect(statSync(here("back/large")).ino).toBe(statSync(here("back/again")).ino);
    expect(statSync(here("back/deep")).mtime.toISOString()).toBe("2001-02-03T04:05:06.000Z");
    rmSync(here("back"), { recursive: true });
  }
  expect(await cp(1, "box:/etc/motd", here("motd"))).toMatchObject({ code: 0 });
  expect(readFileSync(here("motd"), "utf8")).toBe("hello from the image\n");
});

rootTest("archives on standard streams; owners are kept with -a", async () => {
  const shell = (script: string) => execFileSync("sh", ["-euc", script], { encoding: "utf8", cwd: here() });
  const swarmctl = `${SWARMCTL} --host unix://${cluster.socket(0)} task cp`;
  mkdirSync(here("in"));
  writeFileSync(here("in/f"), "f");
  execFileSync("chown", ["1234:5678", here("in/f")]);
  shell(`tar -cf - in | ${swarmctl} -q - box.1:/tmp`).trim();
  expect(await sh("box.1", "stat -c '%u:%g' /tmp/in/f")).toBe("1234:5678\n");
  expect(shell(`${swarmctl} box.1:/tmp/in - | tar -tvf - --numeric-owner | sort`)).toMatch(/1234\/5678 .* in\/f\n/);
  await cp(0, "-q", "-a", here("in"), "box.1:/tmp/kept");
  await cp(0, "-q", here("in"), "box.1:/tmp/roots");
  expect(await sh("box.1", "stat -c '%u:%g' /tmp/kept/f /tmp/roots/f")).toBe("1234:5678\n0:0\n");
  await cp(0, "-q", "-a", "box.1:/tmp/kept/f", here("kept"));
  expect(statSync(here("kept"))).toMatchObject({ uid: 1234, gid: 5678 });
});

rootTest("a read-only root is refused with the reason; its volume is written to", async () => {
  writeFileSync(here("f"), "f");
  expect(await cp(0, here("f"), "closed:/etc/f")).toEqual({
    code: 1,
    stdout: "",
    stderr: "swarmctl: /etc: container rootfs is marked read-only\n",
  });
  expect(await cp(0, "-q", here("f"), "closed:/data/f")).toMatchObject({ code: 0, stderr: "" });
  expect(await sh("closed.1", "cat /data/f")).toBe("f");
  // Reading is another matter.
  expect(await cp(0, "-q", "closed:/etc/motd", here("motd"))).toMatchObject({ code: 0 });
});

/** Processes that copy on the cluster's hosts, each of which is a network namespace. */
function copying(): number[] {
  const hosts = new Set(cluster.hosts.map(({ namespace }) => `net:[${statSync(`/run/netns/${namespace}`).ino}]`));
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const copies = readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "swarm-session";
        return copies && hosts.has(readlinkSync(`/proc/${pid}/ns/net`)) ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
}

function begin(...words: readonly string[]): {
  readonly child: ChildProcess;
  readonly ended: Promise<[number | null, string]>;
} {
  const child = spawn(SWARMCTL, ["--host", `unix://${cluster.socket(1)}`, "task", "cp", ...words], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (part: Buffer) => {
    stderr += part.toString();
  });
  child.stdin.on("error", () => {});
  // Nobody reads more than the beginning: it goes on until somebody ends it.
  child.stdout.once("data", () => child.stdout.pause());
  return {
    child,
    ended: new Promise((resolve) => child.once("exit", (code) => setImmediate(() => resolve([code, stderr])))),
  };
}

rootTest("who leaves leaves no process, and memory is not what holds what nobody reads", async () => {
  await sh("box.1", "dd if=/dev/zero of=/huge bs=1M count=200 2> /dev/null");
  const before = copying();
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGKILL", null],
  ] as const) {
    const { child, ended } = begin("box.1:/huge", "-");
    await eventually(() => expect(copying().length).toBeGreaterThan(before.length));
    child.kill(signal);
    expect((await ended)[0]).toBe(code);
    await eventually(() => expect(copying()).toEqual(before));
  }
  // The other way: an archive that does not end.
  const { child, ended } = begin("-", "box.1:/tmp");
  await eventually(() => expect(copying().length).toBeGreaterThan(before.length));
  child.kill("SIGINT");
  expect((await ended)[0]).toBe(130);
  await eventually(() => expect(copying()).toEqual(before));
});

rootTest("a node whose agent is killed in the middle is named; nothing copies on", async () => {
  const [place = ""] = (await cluster.tasks("box")).filter((task) => task.startsWith("box.1 "));
  const node = place.split(" ")[1] ?? "";
  const { ended } = begin("box.1:/huge", "-");
  await eventually(() => expect(copying().length).toBeGreaterThan(0));
  await cluster.end(cluster.agent(node), "SIGKILL");
  const [code, stderr] = await ended;
  expect(code).toBe(1);
  expect(stderr).toContain(`lost node ${node}`);
  await eventually(() => expect(copying()).toEqual([]));
  cluster.startAgent(cluster.host(node));
  await cluster.nodesReady(2);
  await eventually(async () => expect(await cp(0, "-q", "box.1:/etc/motd", here("again"))).toMatchObject({ code: 0 }), {
    timeoutMs: 20_000,
  });
});
