/**
 * Goal: a container's own process is on a terminal, or its standard input stays open, as Docker has both; nothing it writes
 * is lost and nothing spins. Method: real containers, seen from inside and in their logs.
 */
import { readdir, readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { eventually } from "../../test/eventually.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import type { HostPath } from "./op.ts";
import type { Plan } from "./plan.ts";
import { planExec } from "./spec-plan.ts";
import type { Supervisor } from "./supervisor.ts";
import { type ContainerOverrides, NEVER, readLog, TestContainers, testProcess } from "./test-root.ts";

let containers: TestContainers;
beforeAll(async () => {
  if (isRoot) containers = await TestContainers.create();
});
afterAll(async () => containers?.[Symbol.asyncDispose]());

const TERMINAL = { terminal: true, consoleSize: { height: 24, width: 80 } };
const onTerminal = (overrides: ContainerOverrides = {}): ContainerOverrides => ({
  ...overrides,
  process: { ...TERMINAL, ...overrides.process },
});
const sh = (script: string) => ["sh", "-c", script];

/** What a script wrote to its terminal, without the ends of lines. */
async function lines(script: string, overrides: ContainerOverrides = {}): Promise<readonly string[]> {
  const { ended, output } = await containers.run(sh(script), onTerminal(overrides));
  expect(ended).toMatchObject({ kind: "exited", record: { code: 0 } });
  expect(output.split("\n").filter((line) => !line.endsWith("\r"))).toEqual([]);
  return output.split("\r\n").map((line) => line.replace(/\r$/, ""));
}

async function kill(supervisor: Supervisor): Promise<void> {
  await supervisor.signal({ number: 9, all: false }, NEVER);
  await supervisor.ended;
}

async function exec(supervisor: Supervisor, script: string): Promise<string> {
  const limits = { timeoutMs: 10_000, maxOutputBytes: 4096 };
  return String((await supervisor.exec(planExec(testProcess(sh(script))), limits, NEVER)).stdout);
}

const logged = (plan: Plan, text: string) =>
  eventually(async () => expect((await readLog(plan)).join()).toContain(text));

/** Clock ticks (10 ms) that a process has run so far. */
async function ticks(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(" ");
  return Number(fields[13]) + Number(fields[14]);
}

describe("a terminal", () => {
  rootTest("is one on all three streams, with a size, at /dev/console, and nothing else is open", async () => {
    const tests = "for fd in 0 1 2; do [ -t $fd ] && echo $fd; done";
    const script = `${tests}; busybox tty; busybox stty size; grep /dev/console /proc/mounts; echo /proc/self/fd/*`;
    const seen = await lines(script);
    expect(seen).toEqual([
      ...["0", "1", "2", "/dev/pts/0", "24 80"],
      expect.stringMatching(/^devpts \/dev\/console devpts rw,nosuid,noexec,/),
      "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3",
    ]);
    const devices = await lines("busybox stat -c %t:%T:%a /dev/console /dev/pts/0; busybox ls -1 /dev/pts");
    expect(devices).toEqual(["88:0:620", "88:0:620", "0", "ptmx"]);
  });

  rootTest("is the controlling one, of a session that the program leads", async () => {
    const [stat = ""] = await lines("cat /proc/1/stat");
    // pid, parent, group, session, terminal (136:0), group in the foreground
    expect(
      stat
        .replace(/\(.*\) . /, "")
        .split(" ")
        .slice(0, 6),
    ).toEqual(["1", "0", "1", "1", `${136 << 8}`, "1"]);
  });

  rootTest("belongs to the user", async () => {
    const names = "for name in stdin stdout stderr tty console; do echo $name > /dev/$name; done";
    expect(
      await lines(`${names}; busybox stat -c %u:%g /dev/console`, { process: { user: { uid: 1000, gid: 1000 } } }),
    ).toEqual(["stdin", "stdout", "stderr", "tty", "console", "1000:5"]);
  });

  rootTest("below an init, the program is in its foreground and gets the signals", async () => {
    const script =
      "cat /proc/$$/stat; echo tty > /dev/tty; trap 'exit 7' TERM; echo up; while true; do sleep 0.1; done";
    const plan = await containers.plan(sh(script), onTerminal({ init: true }));
    await using supervisor = await containers.start(plan);
    await logged(plan, "up\r");
    const [stat = "", tty] = (await readLog(plan)).map((line) =>
      line.slice("2026-11-23T13:25:00.123456789Z stdout F ".length),
    );
    expect(
      stat
        .replace(/\(.*\) . /, "")
        .split(" ")
        .slice(0, 6),
    ).toEqual(["2", "1", "2", "1", `${136 << 8}`, "2"]);
    expect(tty).toBe("tty\r");
    await supervisor.signal({ number: 15, all: false }, NEVER);
    expect(await supervisor.ended).toMatchObject({ record: { code: 7 } });
  });

  rootTest("shows all that was written, up to the last byte before the end", async () => {
    const written = await lines("seq 1 20000; printf end 2>/dev/null; echo");
    expect(written).toEqual([...Array.from({ length: 20_000 }, (_, index) => `${index + 1}`), "end"]);
    for (let round = 0; round < 20; round++) {
      // With somebody in the background who has it open to the end, and without an end of line.
      const { output } = await containers.run(sh("sleep 100 & seq 1 500; printf end"), onTerminal());
      expect(output).toBe([...Array.from({ length: 500 }, (_, index) => `${index + 1}\r`), "end"].join("\n"));
    }
  });

  rootTest("is there for who closed it and opens it again, and costs nothing meanwhile", async () => {
    const script = "exec <&- >&- 2>&-; until [ -e /go ]; do sleep 0.05; done; echo again > /dev/console; sleep 100";
    const plan = await containers.plan(sh(script), onTerminal());
    await using supervisor = await containers.start(plan);
    const { supervisorPid } = await supervisor.state(NEVER);
    const before = await ticks(supervisorPid);
    await exec(supervisor, "sleep 0.5");
    // Of the fifty and more that somebody who spins would have.
    expect((await ticks(supervisorPid)) - before).toBeLessThan(20);
    await exec(supervisor, "touch /go");
    await logged(plan, "stdout F again\r");
    await kill(supervisor);
  });

  rootTest("fills log files that are rotated", async () => {
    const plan = await containers.plan(["seq", "1", "2000"], onTerminal());
    const log = {
      kind: "file",
      path: `${plan.stateDirectory}/log` as HostPath,
      maxBytes: 20_000,
      maxFiles: 99,
    } as const;
    await using supervisor = await containers.start({ ...plan, log });
    await supervisor.ended;
    const files = (await readdir(plan.stateDirectory)).filter((name) => name.startsWith("log."));
    const older = files.map((name) => Number(name.slice("log.".length))).sort((a, b) => b - a);
    expect(older.length).toBeGreaterThan(3);
    const all = [
      ...(await Promise.all(older.map((number) => readLog(plan, `.${number}`)))),
      await readLog(plan),
    ].flat();
    expect(all.map((line) => line.split(" ").at(-1))).toEqual(
      Array.from({ length: 2000 }, (_, index) => `${index + 1}\r`),
    );
  });

  rootTest("ends with its supervisor, whatever the program ignores", async () => {
    const plan = await containers.plan(sh("trap '' HUP TERM; echo up; while true; do sleep 100; done"), onTerminal());
    await using supervisor = await containers.start(plan);
    await logged(plan, "up");
    const { pid, supervisorPid } = await supervisor.state(NEVER);
    process.kill(supervisorPid, "SIGKILL");
    expect(await supervisor.ended).toEqual({ kind: "lost" });
    await eventually(async () => {
      expect(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "gone) Z")).toMatch(/\) [ZX]/);
    });
  });

  rootTest("is of the container's devpts or not at all", async () => {
    const mounts = [{ destination: "/dev/pts", type: "tmpfs", source: "tmpfs" }];
    const none = await containers.plan(["true"], onTerminal({ mounts }));
    await expect(containers.runner.create(none, NEVER)).rejects.toMatchObject({ message: "open terminal: ENOENT" });
    const hosts = [{ destination: "/dev/pts/ptmx", type: "bind", source: "/dev/null", options: ["bind"] }];
    const other = await containers.plan(["true"], onTerminal({ mounts: hosts }));
    await expect(containers.runner.create(other, NEVER)).rejects.toMatchObject({ message: "open terminal: EXDEV" });
  });
});

describe("standard input", () => {
  rootTest("is at its end by default, for commands run inside always", async () => {
    expect((await containers.run(["cat"])).ended).toMatchObject({ record: { code: 0 } });
    const plan = await containers.plan(sh("echo up; cat"), { openStdin: true });
    await using supervisor = await containers.start(plan);
    await logged(plan, "up");
    expect(await exec(supervisor, "cat; readlink /proc/self/fd/0")).toBe("/dev/null\n");
    await kill(supervisor);
  });

  rootTest.each<[string, ContainerOverrides]>([
    ["open", { openStdin: true }],
    ["a terminal", onTerminal()],
    ["open on a terminal", onTerminal({ openStdin: true })],
    ["open for another user", { openStdin: true, process: { user: { uid: 1000, gid: 1000 } } }],
    ["open below an init", { openStdin: true, init: true }],
  ])("that is %s has no end while the container lives", async (_, overrides) => {
    const plan = await containers.plan(sh("echo up; cat; echo over; exec cat /dev/stdin"), overrides);
    await using supervisor = await containers.start(plan);
    await logged(plan, "up");
    const cat = "grep -l '^cat$' /proc/[0-9]*/comm | head -n 1";
    const found = await eventually(async () => {
      const comm = (await exec(supervisor, cat)).trim();
      expect(comm).toMatch(/^\/proc\/\d+\/comm$/);
      return comm;
    });
    // It waits in read(2) of what is not there.
    const state = await eventually(async () => {
      const text = await exec(supervisor, `cat ${found.replace("comm", "stat")}`);
      expect(text).toMatch(/\) S /);
      return text;
    });
    expect(state).toContain("(cat)");
    const { supervisorPid } = await supervisor.state(NEVER);
    expect((await readLog(plan)).join()).not.toContain("over");
    expect((await readdir(`/proc/${supervisorPid}/fd`)).length).toBeLessThan(16);
    await supervisor.signal({ number: 9, all: false }, NEVER);
    expect(await supervisor.ended).toMatchObject({ record: { code: 137 } });
  });
});
