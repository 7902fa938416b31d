/** Goal: containers live in the cgroup, under the limits and the kernel settings of their plan. Method: real ones. */
import { mkdir, readFile, rmdir } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { eventually } from "../../test/eventually.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import type { CgroupMembership, HostOp, HostPath } from "./op.ts";
import { planExec } from "./spec-plan.ts";
import { type ContainerOverrides, NEVER, readLog, TestContainers, testProcess } from "./test-root.ts";

let containers: TestContainers;
beforeAll(async () => {
  if (isRoot) containers = await TestContainers.create();
});
afterAll(async () => containers?.[Symbol.asyncDispose]());

const made: HostPath[] = [];
afterEach(async () => {
  for (const path of made.splice(0)) {
    await eventually(() => rmdir(path).catch((reason) => expect(String(reason)).toContain("ENOENT")));
  }
});

const name = `swarm-runtime-test-${process.pid}`;

/** Where the host has the v1 hierarchy of a controller, or its v2 tree. */
async function cgroupMount(type: "cgroup" | "cgroup2", controller = ""): Promise<string | undefined> {
  const lines = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" "));
  return lines.find((line) => line[2] === type && (!controller || line[3]?.split(",").includes(controller)))?.[1];
}

async function legacy(knobs: Readonly<Record<string, string>> = {}): Promise<{
  hostOps: HostOp[];
  membership: Extract<CgroupMembership, { version: 1 }>;
}> {
  const directories: HostPath[] = [];
  for (const controller of ["memory", "pids", "freezer"]) {
    directories.push(`${await cgroupMount("cgroup", controller)}/${name}` as HostPath);
  }
  made.push(...directories);
  const [memory, , freezer] = directories;
  const hostOps: HostOp[] = directories.map((path) => ({ op: "make-directory", path }));
  for (const [file, data] of Object.entries(knobs))
    hostOps.push({ op: "write-file", path: `${memory}/${file}` as HostPath, data });
  return { hostOps, membership: { version: 1, directories, ...(memory && { memory }), ...(freezer && { freezer }) } };
}

const hasLegacy = isRoot && (await cgroupMount("cgroup", "freezer")) !== undefined;
const unified = isRoot ? await cgroupMount("cgroup2") : undefined;

test.runIf(hasLegacy)(
  "v1: the container and its execs are members, the cgroup is their root, an OOM kill is told",
  async () => {
    const cgroup = await legacy({ "memory.limit_in_bytes": "16777216" });
    const plan = await containers.plan(
      ["sh", "-c", "cat /proc/self/cgroup; echo up; x=$(yes | head -c 60000000); sleep 100"],
      { cgroup },
    );
    await using supervisor = await containers.start(plan);
    expect(await supervisor.ended).toMatchObject({ record: { oom: true } });
    const lines = (await readLog(plan)).join("\n");
    expect(lines).toMatch(/:memory:\/$/m);
    expect(lines).not.toContain(name);
  },
);

test.runIf(hasLegacy)("v1: signals reach every process of the cgroup", async () => {
  const cgroup = await legacy();
  const trap = "trap 'echo child; exit' USR1; echo up; while true; do sleep 0.05; done";
  const plan = await containers.plan(["sh", "-c", `(${trap}) & ${trap}`], { cgroup });
  await using supervisor = await containers.start(plan);
  const exec = supervisor.exec(planExec(testProcess(["sleep", "100"])), { timeoutMs: 0, maxOutputBytes: 0 }, NEVER);
  await eventually(async () => expect((await readLog(plan)).join().match(/up/g)).toHaveLength(2));
  const procs = await readFile(`${cgroup.membership.directories[0]}/cgroup.procs`, "utf8");
  expect(procs.trim().split("\n").length).toBeGreaterThanOrEqual(3);
  await supervisor.signal({ number: 10, all: true }, NEVER);
  await eventually(async () => expect((await readLog(plan)).join().match(/child/g)?.length).toBeGreaterThanOrEqual(1));
  await supervisor.signal({ number: 9, all: true }, NEVER).catch(() => undefined);
  expect(await supervisor.ended).toMatchObject({ kind: "exited" });
  await exec.catch(() => undefined);
});

test.runIf(unified)("v2: born into the cgroup, under its device program, killed with it", async () => {
  const directory = `${unified}/${name}` as HostPath;
  made.push(directory);
  // r0 = 0; exit: no device may be opened.
  const program = Uint8Array.from([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]);
  const args = ["sh", "-c", "cat /proc/self/cgroup; echo up; sleep 100"];
  const options: ContainerOverrides = {
    cgroup: {
      hostOps: [
        { op: "make-directory", path: directory },
        { op: "attach-device-program", cgroup: directory, program },
      ],
      membership: { version: 2, directory },
    },
  };
  // Making a device node is an access too: the program refuses it.
  await expect(containers.runner.create(await containers.plan(args, options), NEVER)).rejects.toThrow(
    "make device /dev/null: EPERM",
  );
  const plan = await containers.plan(args, options);
  const ops = plan.container.filter(({ op }) => op !== "make-device" && op !== "mask-paths");
  await using supervisor = await containers.start({ ...plan, container: ops });
  await eventually(async () => expect((await readLog(plan)).join()).toContain("up"));
  expect((await readLog(plan)).join("\n")).toMatch(/^.*F 0::\/$/m);
  await supervisor.signal({ number: 9, all: true }, NEVER);
  expect(await supervisor.ended).toMatchObject({ record: { code: 137, signal: 9 } });
});

rootTest("resource limits, sysctls and the OOM score are set", async () => {
  const { output } = await containers.run(
    [
      "sh",
      "-c",
      "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj /proc/sys/kernel/shmmni",
    ],
    {
      process: { rlimits: [{ type: "RLIMIT_NOFILE", soft: 1000, hard: 2000 }], oomScoreAdj: 321 },
      spec: {
        linux: {
          namespaces: (["mount", "network", "uts", "pid", "ipc"] as const).map((type) => ({ type })),
          sysctl: { "net.ipv4.ip_unprivileged_port_start": "77", "kernel.shmmni": "99" },
        },
      },
    },
  );
  expect(output.split("\n")).toEqual(["1000", "2000", "77", "321", "99"]);
  expect((await readFile("/proc/sys/kernel/shmmni", "utf8")).trim()).not.toBe("99");
});

rootTest("volumes are bound, read-only when the spec says so, below a path that does not exist yet", async () => {
  const volume = `${containers.directory}/volume`;
  await mkdir(volume);
  const { output } = await containers.run(["sh", "-c", "echo data > /a/b/rw/file; cat /a/b/ro/file; touch /a/b/ro/x"], {
    mounts: [
      { destination: "/a/b/rw", type: "bind", source: volume, options: ["rbind"] },
      { destination: "/a/b/ro", type: "bind", source: volume, options: ["rbind", "ro", "nosuid"] },
    ],
  });
  expect(output).toBe("data\ntouch: /a/b/ro/x: Read-only file system");
  expect(await readFile(`${volume}/file`, "utf8")).toBe("data\n");
});

rootTest("netlink answers come back whole: a dump, an acknowledgement, a refusal", async () => {
  const message = (type: number, flags: number, body: number) => {
    const bytes = Buffer.alloc(16 + body);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes.writeUInt16LE(type, 4);
    bytes.writeUInt16LE(flags, 6);
    bytes.writeUInt32LE(1, 8);
    return bytes;
  };
  const dump = await containers.runner.netlink(0, message(18, 0x301, 16), NEVER);
  expect(dump.includes("lo\0")).toBe(true);
  const refused = await containers.runner.netlink(0, message(17, 0x5, 16), NEVER);
  expect([refused.readUInt16LE(4), refused.readInt32LE(16)]).toEqual([2, -22]);
});
