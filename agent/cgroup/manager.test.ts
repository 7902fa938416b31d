// Goal: both managers plan, read, list, kill and remove alike. Method: one contract over directories that stand in for
// the kernel's, then the same verbs against the host's own cgroups with real processes.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { eventually } from "../../test/eventually.ts";
import { rootTest } from "../../test/privileges.ts";
import type { OciResources } from "../runtime/oci.ts";
import type { CgroupMembership } from "../runtime/op.ts";
import { DEFAULT_DEVICE_RULES } from "./devices.ts";
import { type CgroupHierarchy, detectCgroups } from "./hierarchy.ts";
import { type CgroupManager, type CgroupPlan, createCgroupManager } from "./manager.ts";

const ID = "a1b2c3d4e5f6g7h8i9j0k1l2m";
const MiB = 2 ** 20;
const never = new AbortController().signal;
const LIMITS: OciResources = {
  memory: { limit: 64 * MiB, swap: 64 * MiB },
  cpu: { quota: 50_000, period: 100_000 },
  pids: { limit: 16 },
  devices: DEFAULT_DEVICE_RULES,
};

function directoriesOf(membership: CgroupMembership): readonly string[] {
  return membership.version === 1 ? membership.directories : [membership.directory];
}

/** Does what the shim would do, less the BPF program, which a plain directory cannot take. */
async function apply(plan: CgroupPlan, options: { readonly create: boolean }): Promise<void> {
  for (const op of plan.hostOps) {
    if (op.op === "make-directory") await mkdir(op.path);
    else if (op.op === "write-file") await writeFile(op.path, op.data, { flag: options.create ? "w" : "r+" });
    else expect(op.op).toBe("attach-device-program");
  }
}

function describeOps(plan: CgroupPlan, root: string): readonly string[] {
  return plan.hostOps.map((op) => {
    if (op.op === "make-directory") return `mkdir ${op.path.slice(root.length)}`;
    if (op.op === "write-file")
      return `write ${op.path.slice(root.length)} ${op.data}${op.optional === true ? " ?" : ""}`;
    return op.op === "attach-device-program" ? `attach ${op.cgroup.slice(root.length)}` : op.op;
  });
}

describe.each<1 | 2>([1, 2])("over v%i directories", (version) => {
  let root = "";
  let manager: CgroupManager;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "cgroup-"));
    const names = ["memory", "cpu", "cpuacct", "pids", "devices", "freezer", "blkio"];
    const at = (name: string) => join(root, name.startsWith("cpu") ? "cpu,cpuacct" : name);
    const hierarchy: CgroupHierarchy =
      version === 2
        ? { version, mount: root, controllers: new Set(["memory", "cpu", "pids"]) }
        : { version, mounts: new Map(names.map((name) => [name, at(name)])) };
    await writeFile(join(root, "cgroup.subtree_control"), "");
    manager = createCgroupManager(systemClock, hierarchy, "/swarm/node1");
    await manager.ensureParent();
  });

  afterEach(() => rm(root, { recursive: true }));

  test("plans the directories first, then every knob", () => {
    const plan = manager.plan(ID, LIMITS);
    if (version === 1)
      expect(describeOps(plan, root)).toMatchInlineSnapshot(`
      [
        "mkdir /memory/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "mkdir /cpu,cpuacct/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "mkdir /pids/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "mkdir /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "mkdir /freezer/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "mkdir /blkio/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "write /memory/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/memory.limit_in_bytes 67108864",
        "write /memory/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/memory.memsw.limit_in_bytes 67108864 ?",
        "write /cpu,cpuacct/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/cpu.cfs_period_us 100000",
        "write /cpu,cpuacct/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/cpu.cfs_quota_us 50000",
        "write /pids/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/pids.max 16",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.deny a *:* rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 1:3 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 1:5 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 1:7 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 1:8 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 1:9 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 5:0 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 5:1 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 5:2 rwm",
        "write /devices/swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/devices.allow c 136:* rwm",
      ]
    `);
    else
      expect(describeOps(plan, root)).toMatchInlineSnapshot(`
      [
        "mkdir /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
        "write /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/memory.max 67108864",
        "write /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/memory.swap.max 0 ?",
        "write /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/cpu.max 50000 100000",
        "write /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m/pids.max 16",
        "attach /swarm/node1/container-a1b2c3d4e5f6g7h8i9j0k1l2m",
      ]
    `);
    expect(directoriesOf(plan.membership).length).toBe(version === 1 ? 6 : 1);
    expect(manager.hierarchies).toEqual(
      version === 1 ? ["memory", "cpu,cpuacct", "pids", "devices", "freezer", "blkio"] : [],
    );
  });

  test("lists containers alone, and forgets removed ones", async () => {
    expect(await manager.list()).toEqual([]);
    const plan = manager.plan(ID, {});
    await apply(plan, { create: true });
    for (const directory of directoriesOf(plan.membership)) await mkdir(join(dirname(directory), "another-agent"));
    expect(await manager.list()).toEqual([ID]);
    await manager.remove(ID, never);
    expect(await manager.list()).toEqual([]);
    await manager.remove(ID, never);
  });

  test("controllers are switched on from the top", async () => {
    const written = await readFile(join(root, "cgroup.subtree_control"), "utf8");
    expect(written).toBe(version === 2 ? "+memory +cpu +pids" : "");
  });

  test("the parent goes as far as it is empty", async () => {
    const [directory = ""] = directoriesOf(manager.plan(ID, {}).membership);
    const swarm = dirname(dirname(directory));
    await mkdir(join(swarm, "node2"));
    await manager.removeParent();
    expect(await readdir(swarm)).toEqual(["node2"]);
    await manager.removeParent();
  });

  test("removes cgroups that the container made below its own", async () => {
    const plan = manager.plan(ID, {});
    await apply(plan, { create: true });
    for (const directory of directoriesOf(plan.membership)) await mkdir(join(directory, "a", "b"), { recursive: true });
    await manager.remove(ID, never);
    expect(await manager.list()).toEqual([]);
  });

  test("a cgroup that is gone has no stats, no processes and no complaint", async () => {
    expect(manager.stats(ID)).toBeUndefined();
    expect(await manager.oomKilled(ID)).toBe(false);
    expect(await manager.processes(ID)).toEqual([]);
    await manager.kill(ID, "SIGKILL");
    await manager.kill(ID, "SIGTERM");
  });

  test("reads the kernel's files", async () => {
    const files =
      version === 1
        ? {
            cpuacct: {
              "cpuacct.usage": "1234567\n",
              "cpu.stat": "nr_periods 2\nnr_throttled 1\nthrottled_time 5000\n",
            },
            memory: {
              "memory.usage_in_bytes": "10000\n",
              "memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 4000\n",
              "memory.limit_in_bytes": "9223372036854771712\n",
              "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            },
            pids: { "pids.current": "3\n", "pids.max": "2048\n" },
            blkio: {
              "blkio.throttle.io_service_bytes_recursive":
                "8:0 Read 4096\n8:0 Write 100\n8:0 Sync 4196\n8:0 Total 4196\n8:16 Read 1\n8:16 Write 2\nTotal 4199\n",
            },
          }
        : {
            "": {
              "cpu.stat": "usage_usec 1234\nthrottled_usec 5\n",
              "memory.current": "10000\n",
              "memory.stat": "anon 1\ninactive_file 4000\n",
              "memory.max": "max\n",
              "memory.events": "low 0\noom 1\noom_kill 1\n",
              "pids.current": "3\n",
              "pids.max": "2048\n",
              "io.stat":
                "8:0 rbytes=4096 wbytes=100 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
            },
          };
    const plan = manager.plan(ID, {});
    await apply(plan, { create: true });
    for (const [controller, contents] of Object.entries(files)) {
      const directory = directoriesOf(plan.membership).find((path) => version === 2 || path.includes(controller)) ?? "";
      for (const [name, text] of Object.entries(contents)) await writeFile(join(directory, name), text);
    }
    expect(await manager.oomKilled(ID)).toBe(true);
    expect(manager.stats(ID)).toEqual({
      cpuNanos: version === 1 ? 1_234_567 : 1_234_000,
      throttledNanos: 5000,
      memoryBytes: 6000,
      memoryLimitBytes: undefined,
      pids: 3,
      pidsLimit: 2048,
      block: { readBytes: 4097, writeBytes: 102 },
    });
  });
});

test("v2 takes files written as they are, v1 refuses them, and no name leaves the cgroup", () => {
  const v2 = createCgroupManager(systemClock, { version: 2, mount: "/m", controllers: new Set() }, "/swarm");
  const plan = v2.plan(ID, { unified: { "memory.high": "1" } });
  expect(describeOps(plan, "")).toEqual([
    `mkdir /m/swarm/container-${ID}`,
    `write /m/swarm/container-${ID}/memory.high 1`,
  ]);
  expect(() => v2.plan(ID, { unified: { "../x.y": "1" } })).toThrow("no cgroup file");
  expect(() => v2.plan("../x", {})).toThrow("not a container id");
  const v1 = createCgroupManager(systemClock, { version: 1, mounts: new Map() }, "/swarm");
  expect(() => v1.plan(ID, { unified: { "memory.high": "1" } })).toThrow("this host has cgroup v1");
});

test.each(["swarm", "/", "/swarm/", "/a/../b", "/a//b", "", "/a b"])("the parent %j is refused", (parent) => {
  const hierarchy = { version: 2, mount: "/m", controllers: new Set<string>() } as const;
  expect(() => createCgroupManager(systemClock, hierarchy, parent)).toThrow("cgroup-parent");
});

/** Opens a manager for real cgroups below a parent of its own. */
type Open = (parent: string) => Promise<CgroupManager>;

const detected: Open = async (parent) => {
  const hierarchy = await detectCgroups((path) => readFile(path, "utf8"));
  return createCgroupManager(systemClock, hierarchy, parent);
};

/** The v2 tree exists on v1 hosts too, without controllers: enough to start, find, kill and remove. */
let unified = "";
const mounted: Open = async (parent) => {
  unified = await mkdtemp(join(tmpdir(), "cgroup2-"));
  await promisify(execFile)("mount", ["-t", "cgroup2", "none", unified]);
  return createCgroupManager(systemClock, { version: 2, mount: unified, controllers: new Set() }, parent);
};

afterAll(async () => {
  if (unified === "") return;
  await promisify(execFile)("umount", [unified]);
  await rmdir(unified);
});

describe.each([
  { name: "the host's cgroups", open: detected, limited: true },
  { name: "a cgroup v2 tree without controllers", open: mounted, limited: false },
])("with real processes, over $name", ({ name, open, limited }) => {
  const parent = `/swarm-test-${process.pid}-${name.length}/node1`;
  const started: ChildProcess[] = [];
  let opened: Promise<CgroupManager> | undefined;

  async function ready(): Promise<CgroupManager> {
    opened ??= open(parent);
    const manager = await opened;
    await manager.ensureParent();
    return manager;
  }

  /** A shell that enters the container's cgroup and then becomes `command`. */
  function start(plan: CgroupPlan, command: string): ChildProcess {
    const joins = directoriesOf(plan.membership).map((directory) => `echo $$ > ${directory}/cgroup.procs`);
    const child = spawn("sh", ["-ec", [...joins, `exec ${command}`].join("\n")], { stdio: "ignore" });
    started.push(child);
    return child;
  }

  afterEach(async () => {
    for (const child of started.splice(0)) child.kill("SIGKILL");
    const manager = await opened;
    if (manager === undefined) return;
    await manager.remove(ID, never);
    await manager.removeParent();
    const [directory = ""] = directoriesOf(manager.plan(ID, {}).membership);
    expect(await readdir(dirname(dirname(dirname(directory))))).not.toContain(basename(dirname(parent)));
  });

  rootTest("limits hold, stats tell, kill reaches every process, nothing stays", async () => {
    const cgroups = await ready();
    const pinned = cgroups.version === 1 ? { ...LIMITS, cpu: { ...LIMITS.cpu, cpus: "0" } } : LIMITS;
    const plan = cgroups.plan(ID, limited ? pinned : {});
    await apply(plan, { create: false });
    const child = start(plan, "sh -c 'sleep 1000 & sleep 1000 & wait'");
    const pids = await eventually(async () => {
      const found = await cgroups.processes(ID);
      expect(found.length).toBe(3);
      return found;
    });
    expect(pids).toContain(child.pid);
    expect(await cgroups.list()).toEqual([ID]);
    const stats = cgroups.stats(ID);
    if (limited) {
      expect(stats).toMatchObject({ memoryLimitBytes: 64 * MiB, pids: 3, pidsLimit: 16 });
      expect(stats?.cpuNanos).toBeGreaterThan(0);
      expect(stats?.block?.readBytes).toBeGreaterThanOrEqual(0);
    }
    const exited = once(child, "exit");
    await cgroups.kill(ID, "SIGKILL");
    expect(await exited).toEqual([null, "SIGKILL"]);
    await eventually(async () => expect(await cgroups.processes(ID)).toEqual([]));
    expect(await cgroups.oomKilled(ID)).toBe(false);
    await cgroups.remove(ID, never);
    expect(await cgroups.list()).toEqual([]);
  });

  rootTest("processes that fork all the time do not outlive their removal", async () => {
    const cgroups = await ready();
    const plan = cgroups.plan(ID, limited ? { pids: { limit: 64 } } : {});
    await apply(plan, { create: false });
    start(plan, "sh -c 'hop() { while :; do (sleep 0.001); done; }; hop & hop & hop'");
    await eventually(async () => expect((await cgroups.processes(ID)).length).toBeGreaterThan(2));
    await cgroups.remove(ID, never);
    expect(await cgroups.list()).toEqual([]);
  });

  rootTest("other signals reach every process too", async () => {
    const cgroups = await ready();
    const plan = cgroups.plan(ID, {});
    await apply(plan, { create: false });
    const child = start(plan, "sleep 1000");
    await eventually(async () => expect(await cgroups.processes(ID)).toEqual([child.pid]));
    const exited = once(child, "exit");
    await cgroups.kill(ID, "SIGTERM");
    expect(await exited).toEqual([null, "SIGTERM"]);
  });

  if (limited) {
    rootTest("a process that takes more memory than it may is killed, and it shows", async () => {
      const cgroups = await ready();
      const plan = cgroups.plan(ID, { memory: { limit: 16 * MiB, swap: 16 * MiB } });
      await apply(plan, { create: false });
      const [code, signal] = await once(start(plan, "tail /dev/zero"), "exit");
      expect([code, signal]).toEqual([null, "SIGKILL"]);
      expect(await cgroups.oomKilled(ID)).toBe(true);
    });
  }

  rootTest("the parent is a plain directory that a second start finds", async () => {
    await ready();
    const manager = await ready();
    const [directory = ""] = directoriesOf(manager.plan(ID, {}).membership);
    expect(await readdir(dirname(dirname(directory)))).toContain(basename(parent));
  });
});
