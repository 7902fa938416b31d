/**
 * Goal: what a container, its image or a dying shim does harms neither the host nor the next container (hardening.md,
 * F23, F29 to F31, and the rows on descriptors, sockets and /proc). Method: hostile containers, looked at from outside.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { eventually } from "../../test/eventually.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { type CgroupManager, openCgroups } from "../cgroup/manager.ts";
import { DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { OciProcess } from "./oci.ts";
import type { HostPath } from "./op.ts";
import { compileSeccomp } from "./seccomp.ts";
import { defaultSeccompProfile } from "./seccomp-profile.ts";
import { planExec } from "./spec-plan.ts";
import { Supervisor } from "./supervisor.ts";
import { architectureOf } from "./syscalls.ts";
import { NEVER, readLog, TestContainers, testProcess } from "./test-root.ts";

let containers: TestContainers;
let cgroups: CgroupManager;
beforeAll(async () => {
  if (!isRoot) return;
  containers = await TestContainers.create();
  cgroups = await openCgroups(systemClock, `/swarm-hardening-${process.pid}`);
});
afterAll(async () => {
  await containers?.[Symbol.asyncDispose]();
  await cgroups?.removeParent();
});

async function isDead(pid: number): Promise<void> {
  const state = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "gone) Z");
  expect(state).toMatch(/\) [ZX]/);
}

/** Ends a container and waits for it. */
async function end(supervisor: Supervisor): Promise<void> {
  await supervisor.signal({ number: 9, all: false }, NEVER);
  await supervisor.ended;
}

describe("death of the shim", () => {
  const user = { uid: 1000, gid: 1000 };
  rootTest.for([
    ["root", {}, false],
    ["another user", { process: { user } }, false],
    ["another user without no_new_privs", { process: { user, noNewPrivileges: false } }, false],
    ["a program under init", { process: { user } }, true],
  ] as const)("a supervisor takes %s along", async ([, overrides, init]) => {
    const plan = await containers.plan(["sleep", "100"], { ...overrides, init });
    await using supervisor = await containers.start(plan);
    const { pid, supervisorPid } = await supervisor.state(NEVER);
    const process_ = testProcess(["sleep", "101"], { user });
    supervisor.exec(planExec(process_), { timeoutMs: 0, maxOutputBytes: 0 }, NEVER).catch(() => undefined);
    const children = `/proc/${supervisorPid}/task/${supervisorPid}/children`;
    await eventually(async () => expect((await readFile(children, "utf8")).trim().split(" ")).toHaveLength(2));
    const pids = (await readFile(children, "utf8")).trim().split(" ").map(Number);
    expect(pids).toContain(pid);
    process.kill(supervisorPid, "SIGKILL");
    expect(await supervisor.ended).toEqual({ kind: "lost" });
    for (const each of pids) await eventually(() => isDead(each));
  });

  rootTest("a cgroup that cannot be joined is an error, not a wait", async () => {
    const directory = `${containers.directory}/nonesuch` as HostPath;
    const plan = await containers.plan(["true"], {
      cgroup: { hostOps: [], membership: { version: 1, directories: [directory] } },
    });
    await expect(containers.runner.create(plan, NEVER)).rejects.toThrow("clone the container's first process: ENOENT");
  });

  rootTest("a request whose process is killed is answered", async () => {
    // Waits in the kernel for a reader that never comes.
    const fifo = join(containers.directory, "fifo") as HostPath;
    execFileSync("mkfifo", [fifo]);
    const plan = await containers.plan(["true"], {
      cgroup: { hostOps: [{ op: "write-file", path: fifo, data: "x" }], membership: { version: 1, directories: [] } },
    });
    const created = containers.runner.create(plan, NEVER);
    const refused = expect(created).rejects.toThrow(/start supervisor in .*: ECHILD/);
    const { pid } = containers.runner;
    const child = await eventually(async () => {
      const [first] = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim().split(" ").filter(Boolean);
      expect(first).toBeDefined();
      expect(await readFile(`/proc/${first}/syscall`, "utf8")).toMatch(/^257 |^56 /);
      return Number(first);
    });
    process.kill(child, "SIGKILL");
    await refused;
  });
});

rootTest("an attempt that is called off has ended by the time the caller learns it", async () => {
  for (let round = 0; round < 10; round++) {
    const plan = await containers.plan(["sleep", "100"], { cgroup: planned("called-off", {}) });
    const abort = new AbortController();
    const created = containers.runner.create(plan, abort.signal);
    for (let turn = 0; turn < round; turn++) await Promise.resolve();
    abort.abort(new SwarmError("canceled", "called off"));
    await expect(created).rejects.toThrow("called off");
    expect(await readdir(plan.stateDirectory)).not.toContain("control.sock");
    expect(await cgroups.processes("called-off")).toEqual([]);
    await cgroups.remove("called-off", NEVER);
  }
});

describe("descriptors and sockets", () => {
  rootTest("init keeps no descriptor but the standard ones, and shows them to nobody", async () => {
    const plan = await containers.plan(["sh", "-c", "ls /proc/1/root/; cat /proc/1/environ; sleep 100"], {
      init: true,
    });
    await using supervisor = await containers.start(plan);
    const { pid } = await supervisor.state(NEVER);
    expect(await readdir(`/proc/${pid}/fd`)).toEqual(["0", "1", "2"]);
    await eventually(async () =>
      expect((await readLog(plan)).join()).toMatch(/root.*: Permission denied.*environ.*: Permission denied/),
    );
    await end(supervisor);
  });

  rootTest("the control socket is root's alone, and asks who calls", async () => {
    const plan = await containers.plan(["sleep", "100"]);
    await using supervisor = await containers.start(plan);
    const path = join(plan.stateDirectory, "control.sock");
    expect((await stat(path)).mode & 0o777).toBe(0o700);
    // Even where permissions let somebody in, the supervisor turns other users away.
    for (const each of [containers.directory, join(plan.stateDirectory, ".."), plan.stateDirectory, path])
      await chmod(each, 0o777);
    const script = `process.setgid(65534); process.setuid(65534);
      require("node:net").connect(${JSON.stringify(path)}).on("close", () => process.exit(7)).on("error", () => {})
        .write(Buffer.from([12, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0])); setTimeout(() => process.exit(8), 5000)`;
    const caller = spawn(process.execPath, ["-e", script], { cwd: "/" });
    expect(await once(caller, "exit")).toEqual([7, null]);
    expect(await supervisor.state(NEVER)).toMatchObject({ status: "running" });
    await end(supervisor);
  });
});

describe("/proc", () => {
  rootTest("a command is not seen in the container while it still has the host's root", async () => {
    // Even for those who may trace others: each look goes through the root directory of every process there is.
    const names = [...DEFAULT_CAPABILITIES, "CAP_SYS_PTRACE"] as const;
    const capabilities = { bounding: names, effective: names, permitted: names };
    const look = `for p in /proc/[0-9]*; do [ -e $p/root${containers.directory} ] && echo out; done`;
    const plan = await containers.plan(["sh", "-c", `echo up; while true; do ${look}; done`], {
      process: { capabilities },
    });
    await using supervisor = await containers.start(plan);
    const ops = planExec(testProcess(["true"]));
    for (let round = 0; round < 100; round++) {
      await supervisor.exec(ops, { timeoutMs: 10_000, maxOutputBytes: 0 }, NEVER);
    }
    expect((await readLog(plan)).filter((line) => line.includes("out F out"))).toEqual([]);
    await end(supervisor);
  });

  rootTest("no mount gets there through a link of the image", async () => {
    const layer = join(containers.directory, "proc-links") as HostPath;
    const source = join(containers.directory, "proc-volume");
    await mkdir(layer);
    await mkdir(source);
    for (const [name, target] of [
      ["whole", "/proc"],
      ["part", "../../proc/sys"],
      ["self", "/proc/self/attr"],
    ] as const) {
      await symlink(target, join(layer, name));
      for (const mount of [
        { type: "bind", source, options: ["rbind"] },
        { type: "tmpfs", source: "tmpfs", options: [] },
      ]) {
        const plan = await containers.plan(["true"], {
          lowers: [layer],
          mounts: [{ destination: `/${name}`, ...mount }],
        });
        await expect(containers.runner.create(plan, NEVER)).rejects.toThrow(/(EXDEV|ELOOP|ENOENT)$/);
      }
    }
  });
});

describe("processes", () => {
  rootTest("a fork bomb stops at its limit and dies with its container", { timeout: 30_000 }, async () => {
    const plan = await containers.plan(["sh", "-c", "f() { f | f & }; f; echo lit; sleep 100"], {
      cgroup: planned("bomb", { pids: { limit: 64 } }),
    });
    await using supervisor = await containers.start(plan);
    await eventually(async () => expect((await readLog(plan)).join()).toContain("can't fork"));
    expect((await cgroups.processes("bomb")).length).toBeLessThanOrEqual(64);
    await supervisor.signal({ number: 9, all: true }, NEVER);
    expect(await supervisor.ended).toMatchObject({ record: { signal: 9 } });
    await cgroups.remove("bomb", NEVER);
  });

  rootTest("init leaves no zombie of orphans that nobody waits for", async () => {
    const script = "for i in $(seq 1 200); do (sleep 0 &) ; done; echo spawned; sleep 100";
    const plan = await containers.plan(["sh", "-c", script], { init: true, cgroup: planned("orphans", {}) });
    await using supervisor = await containers.start(plan);
    await eventually(async () => expect((await readLog(plan)).join()).toContain("spawned"));
    // A zombie is no member of its cgroup, but a child of init.
    const { pid } = await supervisor.state(NEVER);
    await eventually(async () =>
      expect((await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim().split(" ")).toHaveLength(1),
    );
    await end(supervisor);
    await cgroups.remove("orphans", NEVER);
  });

  rootTest("nobody waits for a grandchild that holds the output, in its own session and deaf to signals", async () => {
    const script = "(trap '' TERM HUP INT; busybox setsid sleep 100 &); echo out; exit 3";
    const plan = await containers.plan(["sh", "-c", script], { cgroup: planned("holder", {}) });
    await using supervisor = await containers.start(plan);
    expect(await supervisor.ended).toMatchObject({ record: { code: 3 } });
    expect((await readLog(plan)).join()).toContain("out");
    await eventually(async () => expect(await cgroups.processes("holder")).toEqual([]));
    await cgroups.remove("holder", NEVER);
  });

  rootTest(
    "a command run inside has the filter, the groups, the limits, and no more rights than the container",
    async () => {
      const architecture = architectureOf(process.arch) ?? "x86_64";
      const shared: Partial<OciProcess> = {
        user: { uid: 1000, gid: 1001, additionalGids: [1001, 7] },
        rlimits: [{ type: "RLIMIT_NOFILE", soft: 100, hard: 200 }],
      };
      const profile = defaultSeccompProfile({ architecture, capabilities: [] });
      const seccomp = { filter: compileSeccomp(profile, architecture) };
      const plan = await containers.plan(["sleep", "100"], { seccomp, process: shared });
      await using supervisor = await containers.start(plan);
      const script = "cat /proc/self/status; id; ulimit -n; ulimit -Hn; ls -l /proc/self/fd; busybox unshare -m true";
      const ops = planExec(testProcess(["sh", "-c", script], shared), seccomp);
      const result = await supervisor.exec(ops, { timeoutMs: 10_000, maxOutputBytes: 65_536 }, NEVER);
      const output = String(result.stdout);
      expect(output).toMatch(/^Seccomp:\s*2$/m);
      expect(output).toMatch(/^NoNewPrivs:\s*1$/m);
      for (const set of ["Eff", "Prm", "Inh", "Amb"]) expect(output).toMatch(new RegExp(`^Cap${set}:\\s*0{16}$`, "m"));
      expect(output).toContain("uid=1000 gid=1001 groups=7,1001");
      expect(output).toContain("\n100\n200\n");
      expect([...output.matchAll(/ (\d+) -> (?!\/proc)/g)].map(([, fd]) => fd)).toEqual(["0", "1", "2"]);
      expect(String(result.stderr)).toContain("Operation not permitted");
      await end(supervisor);
    },
  );
});

rootTest("a command that cannot die holds up nobody when its caller is gone", async () => {
  const { membership, hostOps } = planned("stuck", {});
  const plan = await containers.plan(["sleep", "100"], { cgroup: { membership, hostOps } });
  await using supervisor = await containers.start(plan);
  const legacy = membership.version === 1;
  const knob = legacy ? `${membership.freezer}/freezer.state` : `${membership.directory}/cgroup.freeze`;
  const { supervisorPid } = await supervisor.state(NEVER);
  const children = async () =>
    (await readFile(`/proc/${supervisorPid}/task/${supervisorPid}/children`, "utf8")).trim().split(" ").length;
  await writeFile(knob, legacy ? "FROZEN" : "1");
  try {
    const caller = await Supervisor.connect(plan.stateDirectory, NEVER);
    caller.exec(planExec(testProcess(["true"])), { timeoutMs: 0, maxOutputBytes: 0 }, NEVER).catch(() => undefined);
    await eventually(async () => expect(await children()).toBe(2));
    await caller[Symbol.asyncDispose]();
    for (let round = 0; round < 20; round++) expect(await supervisor.state(NEVER)).toMatchObject({ status: "running" });
  } finally {
    await writeFile(knob, legacy ? "THAWED" : "0");
  }
  await eventually(async () => expect(await children()).toBe(1));
  await end(supervisor);
  await cgroups.remove("stuck", NEVER);
});

describe("logs", () => {
  rootTest("an endless line and a flood take bounded memory and disk", async () => {
    for (const [name, script] of [
      ["flood", "exec yes 0123456789"],
      ["line", "exec cat /dev/zero"],
      ["empty", "exec yes ''"],
    ] as const) {
      const path = join(containers.directory, `${name}.log`) as HostPath;
      const plan = await containers.plan(["sh", "-c", script], {
        log: { kind: "file", path, maxBytes: 256 << 10, maxFiles: 3 },
      });
      await using supervisor = await containers.start(plan);
      const { supervisorPid } = await supervisor.state(NEVER);
      await eventually(() => stat(`${path}.2`));
      const sizes = await Promise.all(
        ["", ".1", ".2"].map((suffix) =>
          stat(path + suffix).then(
            ({ size }) => size,
            () => 0,
          ),
        ),
      );
      for (const size of sizes) expect(size).toBeLessThan((256 << 10) + (32 << 10));
      expect(
        (await readdir(containers.directory)).filter((file) => file.startsWith(`${name}.log`)).length,
      ).toBeLessThanOrEqual(3);
      const rollup = await readFile(`/proc/${supervisorPid}/smaps_rollup`, "utf8");
      const kib = [...rollup.matchAll(/^Private_\w+:\s+(\d+) kB$/gm)].reduce(
        (sum, [, value]) => sum + Number(value),
        0,
      );
      expect(kib).toBeLessThan(200);
      // The supervisor answers in the midst of it.
      expect(await supervisor.state(NEVER)).toMatchObject({ status: "running" });
      await end(supervisor);
    }
  });

  rootTest("a full disk loses whole lines, blocks nobody, and is written again once there is room", async () => {
    const directory = join(containers.directory, "full");
    await mkdir(directory);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", directory]);
    try {
      const path = join(directory, "log") as HostPath;
      const script =
        "for i in $(seq 1 3000); do echo 0123456789012345678901234567890123456789; done; echo after; sleep 100";
      const plan = await containers.plan(
        ["sh", "-c", `${script} & trap 'echo again' USR1; while true; do sleep 0.05; done`],
        {
          log: { kind: "file", path, maxBytes: 0, maxFiles: 1 },
        },
      );
      await using supervisor = await containers.start(plan);
      await eventually(async () => expect((await stat(path)).size).toBeGreaterThan(60_000));
      execFileSync("mount", ["-o", "remount,size=1m", directory]);
      await eventually(async () => {
        await supervisor.signal({ number: 10, all: false }, NEVER);
        expect((await readLog(plan)).join()).toContain("again");
      });
      for (const line of await readLog(plan)) expect(line).toMatch(/^\S{30} std(out|err) F [a-z0-9]*$/);
      await end(supervisor);
    } finally {
      execFileSync("umount", [directory]);
    }
  });
});

/** A cgroup of the host's version for a container of this test. */
function planned(id: string, resources: Parameters<CgroupManager["plan"]>[1]) {
  const { hostOps, membership } = cgroups.plan(id, resources);
  return { hostOps, membership };
}
