// Goal: the defaults hold in a real container: spec, cgroup, device policy and filter through the shim, seen from inside.
// Method: busybox containers made from `containerSpec`, in cgroups of their own.

import { execFileSync } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { SecurityOptionsSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { rootTest } from "../../test/privileges.ts";
import { type CgroupManager, openCgroups } from "../cgroup/manager.ts";
import { type ContainerInput, type ContainerOverrides, containerSpec } from "./default-spec.ts";
import { type HostFacts, readHostFacts } from "./host-facts.ts";
import type { HostPath } from "./op.ts";
import { compileSeccomp } from "./seccomp.ts";
import type { Ended } from "./supervisor.ts";
import { NEVER, TEST_CAPABILITY_MASK, TestContainers } from "./test-root.ts";

let containers: TestContainers;
let cgroups: CgroupManager;
let host: HostFacts;
let count = 0;

beforeAll(async () => {
  if (process.getuid?.() !== 0) return;
  containers = await TestContainers.create();
  host = await readHostFacts((path) => readFile(path, "utf8"), process.arch);
  cgroups = await openCgroups(systemClock, `/swarm-defaults-${process.pid}`);
});

afterAll(async () => {
  await containers?.[Symbol.asyncDispose]();
  await cgroups?.removeParent();
});

interface Outcome {
  readonly ended: Ended;
  readonly output: string;
  readonly oomKilled: boolean;
}

async function run(
  script: string,
  overrides: ContainerOverrides = {},
  changes: Partial<ContainerInput> = {},
  lowers: readonly HostPath[] = [],
  init = false,
): Promise<Outcome> {
  const spec = containerSpec({
    rootPath: "/root" as HostPath,
    hostname: "box",
    image: { env: ["PATH=/bin"], entrypoint: ["sh", "-c"], command: [script], workingDirectory: "", user: "" },
    overrides,
    userFiles: { passwd: "", group: "" },
    mounts: [],
    files: {},
    network: "none",
    host,
    ...changes,
  });
  const id = `c${++count}`;
  try {
    const outcome = await containers.run([], {
      spec,
      lowers,
      init,
      cgroup: cgroups.plan(id, spec.linux.resources ?? {}),
      cgroupControllers: cgroups.hierarchies,
      ...(spec.linux.seccomp && { seccomp: { filter: compileSeccomp(spec.linux.seccomp, host.architecture) } }),
    });
    return { ...outcome, oomKilled: await cgroups.oomKilled(id) };
  } finally {
    await cgroups.remove(id, NEVER);
  }
}

rootTest("privileges: filter, no_new_privs, eleven capabilities, own groups", async () => {
  const { output } = await run(
    "cat /proc/self/status; id; env; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj",
  );
  expect(output).toMatch(/^Seccomp:\s*2$/m);
  expect(output).toMatch(/^NoNewPrivs:\s*1$/m);
  expect(output).toMatch(new RegExp(`^CapBnd:\\s*0*${TEST_CAPABILITY_MASK.toString(16)}$`, "m"));
  expect(output).toMatch(/^Cap(Inh|Amb):\s*0+$/m);
  expect(output).toContain("uid=0 gid=0 groups=0");
  expect(output).toContain("HOME=/");
  expect(output.split("\n").slice(-4)).toEqual(["1024", String(Math.min(524_288, host.openFilesMax)), "0", "0"]);
});

rootTest("kernel interfaces that reach beyond the container are shut", async () => {
  const { output } = await run(
    [
      "exec 2>&1",
      "busybox mknod /tmp-node b 8 0; head -c 1 /tmp-node",
      "busybox mount -t tmpfs none /bin",
      "busybox unshare -m true",
      "echo x > /proc/sys/kernel/hostname",
      "busybox wc -c /proc/interrupts /proc/keys",
      "mkdir /sys/fs/cgroup/x",
      "busybox ls /sys/firmware",
    ].join("; "),
    { capAdd: ["MKNOD"] },
  );
  expect(output).toMatchInlineSnapshot(`
    "mknod: /tmp-node: Operation not permitted
    head: /tmp-node: No such file or directory
    mount: permission denied (are you root?)
    unshare: unshare(0x20000): Operation not permitted
    sh: can't create /proc/sys/kernel/hostname: Read-only file system
            0 /proc/interrupts
            0 /proc/keys
            0 total
    mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system"
  `);
});

rootTest("a device of the host is shut even to root with a node of it, the container's own are open", async () => {
  const layer = join(containers.directory, "device-layer") as HostPath;
  await mkdir(layer);
  for (const [name, type, major, minor] of [
    ["disk", "b", 8, 0],
    ["memory", "c", 1, 1],
    ["tun", "c", 10, 200],
  ]) {
    execFileSync("mknod", ["-m", "666", join(layer, String(name)), String(type), String(major), String(minor)]);
  }
  const script =
    "exec 2>&1; for node in disk memory tun; do head -c 1 /$node; done; head -c 4 /dev/zero | busybox wc -c; : > /dev/tty";
  const { output } = await run(script, {}, {}, [layer]);
  expect(output.split("\n")).toEqual([
    "head: /disk: Operation not permitted",
    "head: /memory: Operation not permitted",
    "head: /tun: Operation not permitted",
    "4",
    "sh: can't create /dev/tty: No such device or address",
  ]);
});

rootTest("the system's file systems are mounted as Docker mounts them", async () => {
  const { output } = await run(
    "cat /proc/mounts; busybox stat -c '%a %g' /dev/pts/ptmx; touch /sys/x /proc/sys/x /sys/fs/cgroup/x",
  );
  const line = (target: string) => output.split("\n").filter((each) => each.split(" ")[1] === target);
  const last = (target: string) => line(target).at(-1)?.split(" ").slice(2, 4).join(" ");
  expect(line("/")).toHaveLength(1);
  expect(last("/proc")).toMatch(/^proc rw,nosuid,nodev,noexec/);
  expect(last("/proc/sys")).toMatch(/^proc ro,nosuid,nodev,noexec/);
  expect(last("/proc/keys")).toMatch(/^tmpfs /);
  expect(last("/sys")).toMatch(/^sysfs ro,nosuid,nodev,noexec/);
  expect(last("/sys/firmware")).toMatch(/^tmpfs ro,nosuid,nodev,noexec/);
  expect(last("/sys/fs/cgroup")).toMatch(/^(tmpfs|cgroup2) ro,nosuid,nodev,noexec/);
  expect(last("/dev")).toMatch(/^tmpfs rw,nosuid,.*size=65536k,mode=755/);
  expect(last("/dev/pts")).toMatch(/^devpts rw,nosuid,noexec,.*gid=5,mode=620,ptmxmode=666/);
  expect(last("/dev/shm")).toMatch(/^tmpfs rw,nosuid,nodev,noexec,.*size=65536k/);
  expect(last("/dev/mqueue")).toMatch(/^mqueue rw,nosuid,nodev,noexec/);
  expect(output.match(/touch: .*/g)).toHaveLength(3);
  // No mount tells where the host keeps its layers.
  expect(output).not.toContain(containers.directory);
});

rootTest("a user's init holds no capability either", async () => {
  const { output } = await run("cat /proc/1/status /proc/self/status", { user: "1000" }, {}, [], true);
  expect(output).toContain("Name:\tswarm-init");
  expect(output.match(/^Cap(Inh|Prm|Eff|Amb):\s*0{16}$/gm)).toHaveLength(8);
});

rootTest("limits are the cgroup's, and the container sees them", async () => {
  const limits = { memoryBytes: 64n << 20n, nanoCpus: 500_000_000n, pids: 12n };
  const names = cgroups.version === 1 ? ["memory/memory.limit_in_bytes", "pids/pids.max"] : ["memory.max", "pids.max"];
  const { output } = await run(`cd /sys/fs/cgroup && cat ${names.join(" ")}`, {}, { limits });
  expect(output).toBe("67108864\n12");
  const forks = await run("for i in $(seq 1 40); do sleep 1 & done", {}, { limits });
  expect(forks.output).toContain("can't fork");
});

rootTest("a container out of memory dies, and both witnesses say why", async () => {
  const { ended, oomKilled } = await run("busybox tail /dev/zero", {}, { limits: { memoryBytes: 16n << 20n } });
  expect(ended).toMatchObject({ kind: "exited", record: { code: 137, oom: true } });
  expect(oomKilled).toBe(true);
});

rootTest("low ports and ping need no capability", async () => {
  const { output } = await run("cd /proc/sys/net/ipv4 && cat ip_unprivileged_port_start ping_group_range", {
    user: "1000:1000",
    capDrop: ["ALL"],
  });
  expect(output.split(/\s+/)).toEqual(["0", "0", "2147483647"]);
});

rootTest("mounts: a tmpfs of the service's, a bind mount read-only, a larger /dev/shm", async () => {
  const mounts = [
    { kind: "bind", source: containers.layer, target: "/layer", readOnly: true },
    { kind: "tmpfs", target: "/scratch", sizeBytes: 1 << 20, mode: 0o700 },
    { kind: "tmpfs", target: "/dev/shm", sizeBytes: 128 << 20 },
  ] as const;
  const { output } = await run(
    "touch /layer/x; touch /scratch/x && ls -ld /scratch; busybox df -k /dev/shm /scratch; touch /y",
    { readOnly: true },
    { mounts },
  );
  expect(output).toMatch(/touch: \/layer\/x: Read-only file system/);
  expect(output).toMatch(/touch: \/y: Read-only file system/);
  expect(output).toMatch(/^drwx------ .* \/scratch$/m);
  expect(output).toMatch(/131072 .* \/dev\/shm$/m);
  expect(output).toMatch(/1024 .* \/scratch$/m);
});

rootTest("a device is open as far as its rights go, and all are to the privileged, who may make cgroups", async () => {
  const layer = join(containers.directory, "tun-layer") as HostPath;
  await mkdir(layer);
  execFileSync("mknod", ["-m", "666", join(layer, "tun"), "c", "10", "200"]);
  const tun = { type: "c", path: "/dev/tun", major: 10, minor: 200, fileMode: 0o666, uid: 0, gid: 0 } as const;
  // Without a driver the kernel says so, but only to whom it would have been open.
  const script = "exec 2>&1; for n in /tun /dev/tun; do head -c 1 $n; true > $n; done; true";
  const shut = async (overrides: ContainerOverrides, changes: Partial<ContainerInput>) =>
    (await run(script, overrides, changes, [layer])).output
      .split("\n")
      .filter((line) => line.includes("not permitted"));
  const denied = (...nodes: string[]) => nodes.map((node) => `sh: can't create ${node}: Operation not permitted`);
  const devices = [{ ...tun, access: "r" }];
  expect(await shut({}, { devices })).toEqual(denied("/tun", "/dev/tun"));
  expect(await shut({}, { devices: [{ ...tun, access: "rw" }] })).toEqual([]);
  expect(await shut({ deviceCgroupRules: ["c 10:* r"] }, {})).toEqual(denied("/tun"));
  expect(await shut({ privileged: true }, { devices })).toEqual([]);
  const [own] = cgroups.hierarchies;
  const { output } = await containers.run(["sh", "-c", `mkdir /sys/fs/cgroup/${own ?? ""}/x && echo made`], {
    cgroup: cgroups.plan("writable", {}),
    cgroupControllers: cgroups.hierarchies,
    cgroupWritable: true,
    mounts: [{ destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["rw"] }],
  });
  expect(output).toBe("made");
  await cgroups.remove("writable", NEVER);
});

rootTest("swap, weight and processors are the cgroup's", async () => {
  const limits = {
    memoryBytes: 64n << 20n,
    memorySwapBytes: 96n << 20n,
    cpuShares: 512n,
    cpusetCpus: "0",
    cpusetMems: "0",
  };
  const files =
    cgroups.version === 1
      ? ["memory/memory.memsw.limit_in_bytes", "cpu*/cpu.shares"]
      : ["memory.swap.max", "cpu.weight"];
  const { output } = await run(
    `grep -E 'Cpus_allowed_list|Mems_allowed_list' /proc/self/status; cd /sys/fs/cgroup && cat ${files.join(" ")}`,
    {},
    { limits },
  );
  const numbers = cgroups.version === 1 ? ["100663296", "512"] : ["33554432", "20"];
  expect(output.split("\n")).toEqual(["Cpus_allowed_list:\t0", "Mems_allowed_list:\t0", ...numbers]);
  const swappy = run("cat /sys/fs/cgroup/memory/memory.swappiness", {}, { limits: { memorySwappiness: 7 } });
  if (cgroups.version === 1) expect((await swappy).output).toBe("7");
  else await expect(swappy).rejects.toThrow("containers have no swappiness of their own");
});

rootTest("a user's seccomp profile is loaded, with its flags", async () => {
  const seccomp = JSON.stringify({
    defaultAction: "SCMP_ACT_ALLOW",
    flags: ["SECCOMP_FILTER_FLAG_LOG"],
    syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 28 }],
  });
  const { output } = await run("exec 2>&1; grep Seccomp: /proc/self/status; mkdir /x; true", {
    security: create(SecurityOptionsSchema, { seccomp }),
  });
  expect(output.split("\n")).toEqual(["Seccomp:\t2", "mkdir: can't create directory '/x': No space left on device"]);
});
