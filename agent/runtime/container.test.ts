/** Goal: a container is what its spec says, seen from inside. Method: real containers from a busybox root. */
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { connect } from "node:net";
import { arch } from "node:process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../../test/eventually.ts";
import { rootTest } from "../../test/privileges.ts";
import { DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { HostPath } from "./op.ts";
import { Runner } from "./runner.ts";
import { compileSeccomp } from "./seccomp.ts";
import { defaultSeccompProfile } from "./seccomp-profile.ts";
import { planExec } from "./spec-plan.ts";
import { readExitRecord, Supervisor } from "./supervisor.ts";
import { architectureOf } from "./syscalls.ts";
import { NEVER, readLog, TEST_CAPABILITY_MASK, TestContainers, testProcess } from "./test-root.ts";

let containers: TestContainers;
beforeAll(async () => {
  if (process.getuid?.() === 0) containers = await TestContainers.create();
});
afterAll(async () => containers?.[Symbol.asyncDispose]());

describe("isolation", () => {
  rootTest("every namespace is its own", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    const { pid } = await containers.runner.create(plan, NEVER);
    await using supervisor = await Supervisor.connect(plan.stateDirectory, NEVER);
    for (const name of ["mnt", "net", "uts", "pid", "ipc", "cgroup"]) {
      expect(await readlink(`/proc/${pid}/ns/${name}`)).not.toBe(await readlink(`/proc/self/ns/${name}`));
    }
    await supervisor.start(plan.container, NEVER);
    await supervisor.signal({ number: 9, all: false }, NEVER);
    expect(await supervisor.ended).toMatchObject({ kind: "exited", record: { code: 137, signal: 9, oom: false } });
  });

  rootTest("capabilities, filter and no_new_privs are on", async () => {
    const architecture = architectureOf(arch) ?? "x86_64";
    const profile = defaultSeccompProfile({
      architecture,
      capabilities: DEFAULT_CAPABILITIES,
      kernel: [6, 1],
    } as never);
    const { output } = await containers.run(["cat", "/proc/self/status"], {
      seccomp: { filter: compileSeccomp(profile, architecture) },
    });
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(output)?.[1];
    expect(field("Seccomp")).toBe("2");
    expect(field("NoNewPrivs")).toBe("1");
    for (const name of ["CapBnd", "CapEff", "CapPrm"]) expect(BigInt(`0x${field(name)}`)).toBe(TEST_CAPABILITY_MASK);
    for (const name of ["CapInh", "CapAmb"]) expect(BigInt(`0x${field(name)}`)).toBe(0n);
  });

  rootTest("another user keeps no capability, may write to its stdout by name", async () => {
    const { output } = await containers.run(
      ["sh", "-c", "id; echo by name > /dev/stdout; grep Cap /proc/self/status"],
      {
        process: { user: { uid: 1000, gid: 1000, additionalGids: [7] } },
      },
    );
    expect(output).toContain("uid=1000 gid=1000 groups=7");
    expect(output).toContain("by name");
    expect(output).toMatch(/CapEff:\s*0{16}/);
  });

  rootTest("masked paths are empty, read-only ones refuse", async () => {
    const script = "cat /proc/keys; ls -A /proc/acpi /sys/firmware; echo 1 > /proc/sys/kernel/hostname; touch /sys/x";
    const { output } = await containers.run(["sh", "-c", script]);
    expect(output.split("\n").filter(Boolean)).toEqual([
      "/proc/acpi:",
      "/sys/firmware:",
      "sh: can't create /proc/sys/kernel/hostname: Read-only file system",
      "touch: /sys/x: Read-only file system",
    ]);
  });

  rootTest("/dev holds the default devices only", async () => {
    const { output } = await containers.run(["sh", "-c", "ls /dev; hostname; echo x > /dev/null; cat /dev/stdin"]);
    expect(output.split("\n")).toEqual(
      "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero box".split(" "),
    );
  });

  rootTest("a read-only root refuses writes; a writable one keeps them to its own layer", async () => {
    const readonly = await containers.run(["touch", "/file"], { spec: { root: { path: "rootfs", readonly: true } } });
    expect(readonly.ended).toMatchObject({ record: { code: 1 } });
    expect((await containers.run(["sh", "-c", "touch /file && ls /file"])).output).toBe("/file");
    expect((await containers.run(["ls", "/file"])).ended).toMatchObject({ record: { code: 1 } });
  });
});

describe("life", () => {
  rootTest("exit codes, signals and programs that cannot run", async () => {
    expect((await containers.run(["sh", "-c", "exit 42"])).ended).toMatchObject({ record: { code: 42, signal: 0 } });
    expect((await containers.run(["true"])).ended).toMatchObject({ record: { code: 0 } });
    const plan = await containers.plan(["nonesuch"]);
    await expect(containers.start(plan)).rejects.toMatchObject({
      code: "not_found",
      message: 'exec: "nonesuch": executable file not found in $PATH',
    });
    await eventually(async () => expect(await readExitRecord(plan.stateDirectory)).toMatchObject({ code: 127 }));
    await expect(containers.start(await containers.plan(["/dev"]))).rejects.toMatchObject({
      code: "permission_denied",
      message: 'exec "/dev": EACCES',
    });
  });

  rootTest("init reaps, forwards signals and passes the code on", async () => {
    const plan = await containers.plan(["sh", "-c", "trap 'exit 7' TERM; echo up; while true; do sleep 0.1; done"], {
      init: true,
    });
    await using supervisor = await containers.start(plan);
    await eventually(async () => expect((await readLog(plan)).join()).toContain("up"));
    await supervisor.signal({ number: 15, all: false }, NEVER);
    expect(await supervisor.ended).toMatchObject({ record: { code: 7 } });
    expect((await containers.run(["nonesuch"], { init: true }).catch(String)) as unknown).toContain(
      "executable file not found",
    );
  });

  rootTest("killing the supervisor kills the container", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    const { pid, supervisorPid } = await containers.runner.create(plan, NEVER);
    await using supervisor = await Supervisor.connect(plan.stateDirectory, NEVER);
    await supervisor.start(plan.container, NEVER);
    process.kill(supervisorPid, "SIGKILL");
    expect(await supervisor.ended).toEqual({ kind: "lost" });
    await eventually(async () => {
      // Dead, though perhaps not yet reaped by the host's init.
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "gone) Z");
      expect(stat).toMatch(/\) [ZX]/);
    });
    await expect(Supervisor.connect(plan.stateDirectory, NEVER)).rejects.toMatchObject({ code: "not_found" });
  });

  rootTest("killing the runner leaves containers; the next request starts another", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    await using first = await containers.start(plan);
    const { pid } = await first.state(NEVER);
    const runnerPid = containers.runner.pid ?? 0;
    process.kill(runnerPid, "SIGKILL");
    await eventually(() => expect(containers.runner.pid).toBeUndefined());
    await using again = await Supervisor.connect(plan.stateDirectory, NEVER);
    expect(await again.state(NEVER)).toMatchObject({ status: "running", pid });
    expect((await containers.run(["true"])).ended).toMatchObject({ record: { code: 0 } });
    await again.signal({ number: 9, all: false }, NEVER);
    expect(await first.ended).toMatchObject({ record: { code: 137 } });
  });

  rootTest("a failing operation is named, and everything is undone", async () => {
    const tree = existsSync("/sys/fs/cgroup/pids") ? "/sys/fs/cgroup/pids" : "/sys/fs/cgroup";
    const cgroup = `${tree}/swarm-test-undone` as HostPath;
    const plan = await containers.plan(["true"], {
      spec: { mounts: [{ destination: "/x", type: "bind", source: "/nonesuch", options: ["rbind"] }] },
      cgroup: {
        hostOps: [{ op: "make-directory", path: cgroup }],
        membership: { version: 1, directories: [cgroup] },
      },
    });
    await expect(containers.runner.create(plan, NEVER)).rejects.toMatchObject({
      code: "not_found",
      message: "bind /nonesuch at /x: ENOENT",
    });
    await expect(readFile(`${cgroup}/cgroup.procs`)).rejects.toThrow("ENOENT");
    await expect(Supervisor.connect(plan.stateDirectory, NEVER)).rejects.toMatchObject({ code: "not_found" });
    expect(await readFile("/proc/self/mounts", "utf8")).not.toContain(containers.directory);
  });
});

describe("log", () => {
  rootTest("CRI lines of both streams, long lines in parts, the last one without its newline", async () => {
    const plain = await containers.plan([
      "sh",
      "-c",
      "echo out; echo err >&2; sleep 0.1; printf '%020000d' 7; printf '\\nend'",
    ]);
    await using supervisor = await containers.start(plain);
    await supervisor.ended;
    const lines = await readLog(plain);
    for (const line of lines) expect(line).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z std(out|err) [FP] /);
    const texts = lines.map((line) => line.slice(31));
    expect(texts.slice(0, 2).sort()).toEqual(["stderr F err", "stdout F out"]);
    expect(texts[2]).toBe(`stdout P ${"0".repeat(16384)}`);
    expect(texts[3]).toBe(`stdout F ${"0".repeat(20000 - 16384 - 1)}7`);
    expect(texts[4]).toBe("stdout F end");
    expect(
      Math.abs(Date.parse(lines[0]?.slice(0, 30) ?? "") - performance.timeOrigin - performance.now()),
    ).toBeLessThan(60_000);
  });

  rootTest("rotation keeps the newest files, each below the bound", async () => {
    const plan = await containers.plan(["seq", "1", "2000"]);
    const log = {
      kind: "file",
      path: `${plan.stateDirectory}/log` as HostPath,
      maxBytes: 20_000,
      maxFiles: 3,
    } as const;
    await using supervisor = await containers.start({ ...plan, log });
    await supervisor.ended;
    const files = [await readLog(plan, ".2"), await readLog(plan, ".1"), await readLog(plan)];
    const numbers = files.flat().map((line) => Number(line.split(" ").at(-1)));
    expect(numbers.at(-1)).toBe(2000);
    expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index));
    for (const file of files) expect(file.join("\n").length).toBeLessThanOrEqual(20_000);
    await expect(readLog(plan, ".3")).rejects.toThrow("ENOENT");
  });
});

describe("exec", () => {
  rootTest("output, code, bounds and time-out; inside the same namespaces with the same limits", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    await using supervisor = await containers.start(plan);
    const exec = (args: readonly string[], options: { timeoutMs?: number; maxOutputBytes?: number } = {}) =>
      supervisor.exec(planExec(testProcess(args)), { timeoutMs: 10_000, maxOutputBytes: 65_536, ...options }, NEVER);
    const result = await exec(["sh", "-c", "hostname; echo err >&2; exit 3"]);
    expect([result.code, String(result.stdout), String(result.stderr)]).toEqual([3, "box\n", "err\n"]);
    expect(String((await exec(["cat", "/proc/self/status"])).stdout)).toMatch(/NoNewPrivs:\s*1/);
    expect(String((await exec(["cat", "/proc/1/cmdline"])).stdout)).toBe("sleep\x00100\x00");
    expect(await exec(["yes"], { maxOutputBytes: 1000, timeoutMs: 300 })).toMatchObject({
      timedOut: true,
      truncated: true,
    });
    expect(await exec(["sleep", "50"], { timeoutMs: 50 })).toMatchObject({ timedOut: true, code: 137 });
    await expect(exec(["nonesuch"])).rejects.toMatchObject({ code: "not_found" });
    const many = await Promise.all(Array.from({ length: 8 }, (_, index) => exec(["sh", "-c", `exit ${index}`])));
    expect(many.map(({ code }) => code)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    const late = exec(["sh", "-c", "echo up > /proc/1/fd/1; sleep 50"]);
    await eventually(async () => expect((await readLog(plan)).join()).toContain("up"));
    await supervisor.signal({ number: 9, all: false }, NEVER);
    expect(await late).toMatchObject({ code: 137, timedOut: false });
    expect(await supervisor.ended).toMatchObject({ record: { code: 137 } });
  });
});

test("a shim that is not there is named", async () => {
  await using runner = new Runner("/nonesuch/swarm-shim");
  await expect(runner.removeTree("/nonesuch" as HostPath, NEVER)).rejects.toMatchObject({
    code: "failed_precondition",
    message: "start the shim: spawn /nonesuch/swarm-shim ENOENT",
  });
});

describe("many at once", () => {
  rootTest("fifty containers start side by side, end, and leave neither process nor descriptor", async () => {
    const descriptors = async () => (await readdir(`/proc/${containers.runner.pid}/fd`)).length;
    await containers.run(["true"]);
    const before = await descriptors();
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, index) => containers.run(["sh", "-c", `echo ${index}; exit ${index}`])),
    );
    expect(results.map(({ ended }) => (ended.kind === "exited" ? ended.record.code : ended.kind))).toEqual(
      Array.from({ length: 50 }, (_, index) => index),
    );
    expect(results.map(({ output }) => output)).toEqual(Array.from({ length: 50 }, (_, index) => `${index}`));
    expect(await descriptors()).toBe(before);
    await eventually(async () => {
      expect(await readFile(`/proc/${containers.runner.pid}/task/${containers.runner.pid}/children`, "utf8")).toBe("");
    });
  });

  rootTest("clients that come and go, and talk nonsense, harm no container", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    await using supervisor = await containers.start(plan);
    const { supervisorPid } = await supervisor.state(NEVER);
    const before = (await readdir(`/proc/${supervisorPid}/fd`)).length;
    for (let round = 0; round < 100; round++) {
      const socket = connect(`${plan.stateDirectory}/control.sock`);
      if (round % 2 === 0) socket.end(Buffer.alloc(64, 0xff));
      else socket.end(Buffer.from([200, 0, 0, 0, 1, 0]));
      await once(socket, "close").catch(() => undefined); // dropped in mid-sentence: ECONNRESET
    }
    await eventually(async () => expect((await readdir(`/proc/${supervisorPid}/fd`)).length).toBe(before));
    expect(await supervisor.state(NEVER)).toMatchObject({ status: "running" });
    await supervisor.signal({ number: 9, all: false }, NEVER);
    await supervisor.ended;
  });
});
