/**
 * Goal: a command with somebody at its streams has the container's rights and no more, its bytes arrive whole at its
 * reader's pace, its terminal is one, and nothing of it is left when its owner goes. Method: real containers.
 */

import { execFileSync } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { eventually } from "../../test/eventually.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { type CgroupManager, openCgroups } from "../cgroup/manager.ts";
import type { OciProcess } from "./oci.ts";
import type { HostPath, WindowSize } from "./op.ts";
import { compileSeccomp } from "./seccomp.ts";
import { defaultSeccompProfile } from "./seccomp-profile.ts";
import { type SessionOptions, SessionProcess } from "./session-process.ts";
import { planExec } from "./spec-plan.ts";
import type { Supervisor } from "./supervisor.ts";
import { architectureOf } from "./syscalls.ts";
import {
  buildShim,
  type ContainerOverrides,
  NEVER,
  readLog,
  TEST_CAPABILITY_MASK,
  TestContainers,
  testProcess,
} from "./test-root.ts";

let containers: TestContainers;
let cgroups: CgroupManager;
let count = 0;
beforeAll(async () => {
  if (!isRoot) return;
  containers = await TestContainers.create();
  cgroups = await openCgroups(systemClock, `/swarm-session-${process.pid}`);
});
afterAll(async () => {
  await containers?.[Symbol.asyncDispose]();
  await cgroups?.removeParent();
});

/** A container that sleeps, in a cgroup of its own. */
async function box(overrides: ContainerOverrides = {}) {
  const id = `box-${++count}`;
  const { hostOps, membership } = cgroups.plan(id, {});
  const plan = await containers.plan(["sh", "-c", "echo up; sleep 1000"], {
    cgroup: { hostOps, membership },
    ...overrides,
  });
  const supervisor = await containers.start(plan);
  await eventually(async () => expect(await readLog(plan)).toHaveLength(1));
  return {
    id,
    plan,
    supervisor,
    membership,
    async [Symbol.asyncDispose]() {
      await end(supervisor);
      await cgroups.remove(id, NEVER);
    },
  };
}

type Box = Awaited<ReturnType<typeof box>>;

async function end(supervisor: Supervisor): Promise<void> {
  await supervisor.signal({ number: 9, all: true }, NEVER).catch(() => undefined);
  await supervisor.ended;
  await supervisor[Symbol.asyncDispose]();
}

interface Asked extends Partial<Omit<SessionOptions, "terminal">> {
  readonly terminal?: WindowSize;
  readonly process?: Partial<OciProcess>;
}

async function start(it: Box, args: readonly string[], { terminal, process: changes, ...options }: Asked = {}) {
  const { pid } = await it.supervisor.state(NEVER);
  const architecture = architectureOf(process.arch) ?? "x86_64";
  const filter = compileSeccomp(defaultSeccompProfile({ architecture, capabilities: [] }), architecture);
  return SessionProcess.start(
    {
      shimPath: buildShim(),
      pid,
      cgroup: it.membership,
      ops: planExec(testProcess(args, changes), { filter }, terminal),
      input: false,
      terminal: terminal !== undefined,
      detached: false,
      confirm: async () => {},
      ...options,
    },
    NEVER,
  );
}

async function running(it: Box, args: readonly string[], options: Asked = {}): Promise<SessionProcess> {
  const session = await start(it, args, options);
  if (session.kind === "refused") throw new Error(session.reason);
  return session;
}

/** Runs to the end: what it wrote, and its exit code. */
async function run(it: Box, args: readonly string[], options: Asked = {}) {
  await using session = await running(it, args, options);
  const written = { stdout: "", stderr: "" };
  for await (const { stream, data } of session.output(NEVER)) written[stream] += data.toString();
  return { ...written, code: await session.ended };
}

const sh = (script: string) => ["sh", "-c", script];
const WINDOW = { rows: 33, columns: 111 };
/** Processes in the box, as this host numbers them, whose command line has `text`. */
async function processesWith(it: Box, text: string): Promise<number[]> {
  const pids = await cgroups.processes(it.id);
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return pids.filter((_, index) => lines[index]?.includes(text));
}

describe("a command", () => {
  rootTest("has its own streams and exit code", async () => {
    await using it = await box();
    expect(await run(it, sh("echo out; echo err >&2; exit 7"))).toEqual({ stdout: "out\n", stderr: "err\n", code: 7 });
    expect(await run(it, sh("kill -TERM $$"))).toMatchObject({ code: 143 });
    expect(await run(it, ["cat"])).toEqual({ stdout: "", stderr: "", code: 0 });
    expect(await run(it, sh("pwd; echo $X"), { process: { cwd: "/bin", env: ["PATH=/bin", "X=y"] } })).toMatchObject({
      stdout: "/bin\ny\n",
    });
  });

  rootTest("that is not there, or may not run, is refused with Docker's exit code", async () => {
    await using it = await box();
    expect(await start(it, ["nonesuch"])).toEqual({
      kind: "refused",
      exitCode: 127,
      reason: 'exec: "nonesuch": executable file not found in $PATH',
    });
    expect(await start(it, ["/proc/version"])).toMatchObject({ kind: "refused", exitCode: 126 });
    expect(await start(it, ["nonesuch"], { terminal: WINDOW })).toMatchObject({ exitCode: 127 });
  });

  rootTest("takes a mebibyte in and gives it back", async () => {
    await using it = await box();
    const bytes = randomFillSync(Buffer.alloc(1 << 20));
    await using session = await running(it, ["cat"], { input: true });
    const feed = async () => {
      for (let at = 0; at < bytes.length; at += 65_536) await session.write(bytes.subarray(at, at + 65_536), NEVER);
      session.endInput();
    };
    const [parts] = await Promise.all([Array.fromAsync(session.output(NEVER)), feed()]);
    const sum = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");
    expect(sum(Buffer.concat(parts.map(({ data }) => data)))).toBe(sum(bytes));
    expect(await session.ended).toBe(0);
  });

  rootTest("waits for a reader that stops, and loses nothing", async () => {
    await using it = await box();
    await using session = await running(it, sh("head -c 20000000 /dev/zero; echo done >&2"));
    const output = session.output(NEVER)[Symbol.asyncIterator]();
    let total = (await output.next()).value?.data.length ?? 0;
    await eventually(async () => {
      const pids = await processesWith(it, "20000000");
      const calls = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/syscall`, "utf8")));
      // Its write(2) waits.
      expect(calls.join("")).toMatch(/^(1|64) /m);
    });
    for (let next = await output.next(); !next.done; next = await output.next()) {
      if (next.value.stream === "stdout") total += next.value.data.length;
    }
    expect(total).toBe(20_000_000);
    expect(await session.ended).toBe(0);
  });

  rootTest("that reads no more does not hold up who writes", async () => {
    await using it = await box();
    await using session = await running(it, sh("exec 0<&-; sleep 1000"), { input: true });
    for (let round = 0; round < 100; round++) await session.write(Buffer.alloc(65_536), NEVER);
  });

  rootTest("ends with what it wrote, whoever else holds its pipes", async () => {
    await using it = await box();
    expect(await run(it, sh("sleep 1000 & echo last"))).toEqual({ stdout: "last\n", stderr: "", code: 0 });
    expect(await run(it, sh("yes & echo $!; sleep 0.1"), {})).toMatchObject({ code: 0 });
    // What it left in the background runs on.
    expect(await processesWith(it, "1000")).toHaveLength(2);
  });

  rootTest("gets signals", async () => {
    await using it = await box();
    await using session = await running(
      it,
      sh("trap 'echo got; exit 3' USR1; echo up; while true; do sleep 0.05; done"),
    );
    let text = "";
    for await (const { data } of session.output(NEVER)) {
      text += data.toString();
      if (text === "up\n") await session.signal(10, NEVER);
    }
    expect(text).toBe("up\ngot\n");
    expect(await session.ended).toBe(3);
  });
});

describe("a terminal", () => {
  rootTest("is one: size, name, controlling terminal, foreground", async () => {
    await using it = await box();
    const script = "busybox tty; busybox stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo too > /dev/tty";
    expect(await run(it, sh(script), { terminal: WINDOW })).toEqual({
      stdout: "/dev/pts/0\r\n33 111\r\nall\r\ntoo\r\n",
      stderr: "",
      code: 0,
    });
    // A shell with job control complains when it is not in the foreground.
    const { stdout } = await run(it, ["sh", "-i", "-c", "echo quiet"], { terminal: WINDOW });
    expect(stdout).toMatch(/\r\nquiet\r\n$/);
    expect(stdout).not.toMatch(/tty|job control/);
  });

  rootTest("belongs to the user, its group stays tty", async () => {
    await using it = await box();
    const user = { uid: 1000, gid: 1001 };
    const look = sh("busybox stat -c '%u:%g %a' $(busybox tty); : > $(busybox tty) && echo open");
    expect(await run(it, look, { terminal: WINDOW, process: { user } })).toMatchObject({
      stdout: "1000:5 620\r\nopen\r\n",
    });
  });

  rootTest("passes on keys and sizes: Ctrl-C, a new window", async () => {
    await using it = await box();
    await using session = await running(
      it,
      sh("trap 'busybox stty size' WINCH; trap 'echo int; exit 5' INT; echo up; while true; do sleep 0.05; done"),
      { terminal: WINDOW, input: true },
    );
    let text = "";
    for await (const { data } of session.output(NEVER)) {
      text += data.toString();
      if (text === "up\r\n") await session.resize({ rows: 50, columns: 132 }, NEVER);
      if (text.endsWith("50 132\r\n")) await session.write(Buffer.from("\x03"), NEVER);
    }
    expect(text).toBe("up\r\n50 132\r\n^Cint\r\n");
    expect(await session.ended).toBe(5);
  });

  rootTest("loses nothing at the end", async () => {
    await using it = await box();
    for (let round = 0; round < 20; round++) {
      const { stdout } = await run(it, sh("busybox seq 1 3000"), { terminal: WINDOW });
      expect(stdout.split("\r\n").slice(-2)).toEqual(["3000", ""]);
    }
  });

  rootTest("comes from a devpts, or not at all", async () => {
    const layer = join(containers.directory, "no-devpts") as HostPath;
    await mkdir(join(layer, "dev/pts"), { recursive: true });
    execFileSync("mkfifo", [join(layer, "dev/pts/ptmx")]);
    await using it = await box({ lowers: [layer], spec: { mounts: [] } });
    await expect(start(it, ["true"], { terminal: WINDOW })).rejects.toThrow("open terminal: EXDEV");
  });
});

describe("whoever goes", () => {
  rootTest.for([
    ["without a terminal", undefined],
    ["on a terminal", WINDOW],
  ] as const)("takes all of the session along, %s", async ([, terminal]) => {
    await using it = await box();
    const nested =
      "trap '' HUP TERM; (trap '' HUP TERM; sleep 777) & (sleep 777; true) & busybox setsid sleep 888 & sleep 777";
    const session = await running(it, sh(nested), terminal ? { terminal } : {});
    await eventually(async () => expect(await processesWith(it, "777")).not.toHaveLength(0));
    // Once setsid has become sleep, its session is its own.
    await eventually(async () => {
      // In this order: asked first, what is yet to become setsid would not be found.
      expect(await processesWith(it, "\x00888")).toHaveLength(1);
      expect(await processesWith(it, "setsid\x00")).toEqual([]);
    });
    await session[Symbol.asyncDispose]();
    await eventually(async () => expect(await processesWith(it, "777")).toEqual([]));
    // Who made a session of its own meant to stay.
    expect(await processesWith(it, "\x00888")).toHaveLength(1);
  });

  rootTest("the container's end ends the command", async () => {
    await using it = await box();
    await using session = await running(it, ["sleep", "500"]);
    await it.supervisor.signal({ number: 9, all: false }, NEVER);
    expect(await session.ended).toBe(137);
  });

  rootTest("a session that is killed says so, and takes the command along", async () => {
    await using it = await box();
    await using session = await running(it, ["sleep", "501"]);
    const [above] = execFileSync("pgrep", ["-P", String(process.pid), "swarm-session"], { encoding: "utf8" })
      .split("\n")
      .slice(-2);
    process.kill(Number(above), "SIGKILL");
    await expect(session.ended).rejects.toMatchObject({ code: "unavailable" });
    await eventually(async () => expect(await processesWith(it, "501")).toEqual([]));
  });

  rootTest("a pid that is not the container's any more is not entered", async () => {
    await using it = await box();
    const confirm = async () => {
      throw new SwarmError("aborted", "the container has ended");
    };
    await expect(start(it, ["sleep", "502"], { confirm })).rejects.toThrow("the container has ended");
    await expect(start(it, ["true"], { pid: 0x3fffff })).rejects.toThrow("enter the container: ESRCH");
    expect(await processesWith(it, "502")).toEqual([]);
  });
});

describe("hardening", () => {
  rootTest("the container's rights, cgroup and namespaces, and no descriptor of the host's", async () => {
    await using it = await box();
    for (const terminal of [undefined, WINDOW]) {
      const script =
        "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/cgroup; echo; ls -1 /proc/self/fd; hostname";
      const { stdout } = await run(it, sh(script), terminal ? { terminal } : {});
      expect(stdout).toMatch(`CapEff:\t${TEST_CAPABILITY_MASK.toString(16).padStart(16, "0")}`);
      expect(stdout).toMatch(/NoNewPrivs:\t1/);
      expect(stdout).toMatch(/Seccomp:\t2/);
      // ls has its own descriptor for the folder.
      expect(stdout.replaceAll("\r", "")).toMatch(/\n0\n1\n2\n3\nbox\n$/);
      expect(stdout).not.toContain(it.id);
    }
    await using session = await running(it, ["sleep", "503"]);
    expect(session.kind).toBe("running");
    expect(await processesWith(it, "503")).toHaveLength(1);
  });

  rootTest("no working directory leads out through a descriptor", async () => {
    await using it = await box();
    for (let fd = 3; fd <= 30; fd++) {
      const attempt = await start(it, ["pwd"], { process: { cwd: `/proc/self/fd/${fd}` } }).catch((reason) => reason);
      expect(attempt).toBeInstanceOf(SwarmError);
    }
  });

  rootTest("nothing of it is seen in the container while it has the host's root", async () => {
    const look = `for p in /proc/[0-9]*; do [ -e $p/root${containers.directory} ] && echo out; done`;
    await using it = await box();
    await using watcher = await running(it, sh(`while true; do ${look}; done`));
    const seen = Array.fromAsync(watcher.output(NEVER));
    for (let round = 0; round < 30; round++) await run(it, ["true"], round % 2 === 0 ? { terminal: WINDOW } : {});
    await watcher.signal(9, NEVER);
    expect(Buffer.concat((await seen).map(({ data }) => data)).toString()).toBe("");
  });
});
