/**
 * Goal: what a service asks for beyond the usual isolation is really so in its container, and in no other; what cannot be had is
 * REJECTED with the reason. Method: real tasks on a whole node but its session, looked at from inside.
 */
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, onTestFinished } from "vitest";
import type { TaskId } from "../common/base/id.ts";
import { ExecStartSchema } from "../proto/gen/swarm/v1/control_pb.js";
import { LogSelectorSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import {
  ContainerSpecSchema,
  type PortConfigSchema,
  type ResourceLimitsSchema,
  TaskSpecSchema,
  TaskState,
} from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { isRoot, rootTest } from "../test/privileges.ts";
import { TestNode, type TestService } from "./test-node.ts";

let node: TestNode;

beforeAll(async () => {
  if (isRoot) node = await TestNode.start();
});
afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

type Container = MessageInitShape<typeof ContainerSpecSchema>;
type Limits = MessageInitShape<typeof ResourceLimitsSchema>;

function shell(script: string, container: Container = {}, limits: Limits = {}): TestService {
  const spec = create(ContainerSpecSchema, {
    image: "box:1",
    args: ["sh", "-c", script],
    stopGracePeriod: durationFromMs(1_000),
    ...container,
  });
  return { spec: create(TaskSpecSchema, { container: spec, resources: { limits } }) };
}

/** What the script wrote, once it ended well. */
async function output(script: string, container: Container = {}, limits: Limits = {}): Promise<string[]> {
  const id = node.assign(shell(`exec 2>&1; ${script}`, container, limits));
  await node.reaches(id, TaskState.COMPLETE);
  return (await node.logs(id)).split("\n").slice(0, -1);
}

async function rejected(container: Container, limits: Limits = {}): Promise<string> {
  return (await node.reaches(node.assign(shell("true", container, limits)), TaskState.REJECTED)).error;
}

/** A block device of the host's that is there for as long as the test. */
function loopDevice(): string {
  const path = `/dev/swarm-test-${process.pid}`;
  execFileSync("mknod", ["-m", "640", path, "b", "7", "0"]);
  onTestFinished(() => void execFileSync("rm", [path]));
  return path;
}

const STATUS = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status";

rootTest("a privileged container has every right and device, others none of them", async () => {
  const device = loopDevice();
  const look = `${STATUS}; ls ${device}; mount -t tmpfs none /mnt && echo mounted; touch /sys/fs/cgroup/x || echo no; cat /proc/keys | head -c 1 | wc -c`;
  const all = /^CapEff:\s*(\w+)$/m.exec(await readFile("/proc/self/status", "utf8"))?.[1];
  const open = await output(`mkdir /mnt; ${look}; readlink /proc/1/ns/pid; echo $$`, { privileged: true });
  expect(open.slice(0, 5)).toEqual([`CapEff:\t${all}`, "NoNewPrivs:\t0", "Seccomp:\t0", device, "mounted"]);
  // Its namespaces are its own: the shell is the first process of them.
  expect(open.at(-1)).toBe("1");
  const closed = await output(`mkdir /mnt; ${look}; mknod /x b 7 0; true`, { capAdd: ["MKNOD"] });
  expect(closed.slice(1)).toEqual([
    "NoNewPrivs:\t1",
    "Seccomp:\t2",
    `ls: ${device}: No such file or directory`,
    "mount: permission denied (are you root?)",
    "touch: /sys/fs/cgroup/x: Read-only file system",
    "no",
    "0",
    "mknod: /x: Operation not permitted",
  ]);
});

rootTest("a privileged container may make cgroups, and reads the host's devices", async () => {
  const made = await output(
    "for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir $d/x && rmdir $d/x && echo made && break; done; head -c 1 /dev/loop0 | wc -c",
    { privileged: true },
  );
  expect(made.at(0)).toBe("made");
  expect(made.at(-1)).not.toMatch(/not permitted/);
});

rootTest("a device is there with its own numbers and rights, and only that one", async () => {
  const device = loopDevice();
  const stat = "stat -c '%F %t:%T %a' /dev/disk";
  const devices = [{ hostPath: device, containerPath: "/dev/disk", permissions: "r" }];
  const seen = await output(`${stat}; (echo x > /dev/disk) || echo shut; head -c 1 /dev/loop1; true`, { devices });
  expect(seen).toEqual([
    "block special file 7:0 640",
    "sh: can't create /dev/disk: Operation not permitted",
    "shut",
    "head: /dev/loop1: No such file or directory",
  ]);
  const folder = await output("ls /dev/copy/", { devices: [{ hostPath: "/dev/pts/..", containerPath: "/dev/copy" }] });
  expect(folder).toContain("null");
  const rules = await output("mknod /x c 1 3; mknod /y c 1 1; true", {
    capAdd: ["MKNOD"],
    deviceCgroupRules: ["c 1:1 m"],
  });
  expect(rules).toEqual([]);
});

rootTest("a seccomp profile is what holds its processes, health checks too", async () => {
  const profile = {
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: [
      { names: ["mkdir", "mkdirat", "never_heard_of"], action: "SCMP_ACT_ERRNO", errnoRet: 95 },
      { names: ["rmdir", "unlinkat"], action: "SCMP_ACT_ERRNO", excludes: { caps: ["CAP_CHOWN"] } },
    ],
  };
  const security = { seccomp: JSON.stringify(profile) };
  // The second rule is left out: the container has the capability that excludes it.
  const script = "grep Seccomp: /proc/self/status; mkdir /x; touch /y && rm /y && echo removed";
  expect(await output(script, { security })).toEqual([
    "Seccomp:\t2",
    "mkdir: can't create directory '/x': Operation not supported",
    "removed",
  ]);
  const check = { test: ["CMD-SHELL", "mkdir /x"], interval: { nanos: 50_000_000 }, retries: 1 };
  const sick = node.assign(shell("sleep 100", { security, healthcheck: check }));
  expect((await node.reaches(sick, TaskState.FAILED)).error).toContain(
    "can't create directory '/x': Operation not supported",
  );
  const well = node.assign(
    shell("sleep 100", {
      security: { seccomp: "unconfined" },
      healthcheck: { ...check, test: ["CMD", "grep", "-q", "Seccomp:.0", "/proc/self/status"] },
    }),
  );
  await node.reaches(well, TaskState.RUNNING);
  node.stop(well);
  await node.reaches(well, TaskState.SHUTDOWN);
});

/** What a command wrote that somebody ran in the task. */
async function execute(id: TaskId, args: string[]): Promise<string> {
  const [logged] = node.worker.logged(create(LogSelectorSchema, { taskIds: [id] }));
  if (logged === undefined) throw new Error("no such task");
  let text = "";
  const start = create(ExecStartSchema, { args });
  for await (const { content } of logged.controller.exec(start, nothing(), new AbortController().signal)) {
    if (content.case === "stdout" || content.case === "stderr") text += new TextDecoder().decode(content.value);
  }
  return text;
}

async function* nothing(): AsyncGenerator<never> {}

rootTest("commands that are run in a container later have its filter and namespaces", async () => {
  const seccomp = JSON.stringify({
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 28 }],
  });
  const held = node.assign(shell("sleep 100", { security: { seccomp } }));
  const open = node.assign(shell("sleep 100", { privileged: true, pidMode: "host" }));
  for (const id of [held, open]) await node.reaches(id, TaskState.RUNNING);
  expect(await execute(held, ["mkdir", "/x"])).toBe("mkdir: can't create directory '/x': No space left on device\n");
  const pid = execFileSync("readlink", ["/proc/self/ns/pid"], { encoding: "utf8" });
  expect(await execute(open, ["sh", "-c", "grep Seccomp: /proc/self/status; readlink /proc/self/ns/pid"])).toBe(
    `Seccomp:\t0\n${pid}`,
  );
  for (const id of [held, open]) node.stop(id);
  for (const id of [held, open]) await node.reaches(id, TaskState.SHUTDOWN);
});

rootTest("security options one by one", async () => {
  expect((await output(STATUS, { security: { seccomp: "unconfined", noNewPrivileges: false } })).slice(1)).toEqual([
    "NoNewPrivs:\t0",
    "Seccomp:\t0",
  ]);
  const open = await output("touch /proc/sys/kernel/domainname && echo open", {
    security: { systemPathsUnconfined: true },
  });
  expect(open).toEqual(["open"]);
  await output("true", { security: { apparmor: "unconfined" } });
  const groups = await output("id -G", { groups: ["27", "4242"] });
  expect(groups[0]?.split(" ")).toEqual(expect.arrayContaining(["27", "4242"]));
});

rootTest("namespaces of the host", async () => {
  const link = async (name: string) => execFileSync("readlink", [`/proc/self/ns/${name}`], { encoding: "utf8" }).trim();
  const script = "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done";
  const shared = await output(script, { pidMode: "host", ipcMode: "host", utsMode: "host" });
  expect(shared.slice(0, 3)).toEqual([await link("pid"), await link("ipc"), await link("uts")]);
  expect(shared[3]).not.toBe(await link("net"));
  const own = await output(script);
  for (const [index, name] of ["pid", "ipc", "uts", "net", "mnt"].entries())
    expect(own[index]).not.toBe(await link(name));
  const names = await output("hostname; cat /etc/hostname; cat /proc/sys/kernel/shmmax", { utsMode: "host" });
  expect(names[0]).toBe((await readFile("/proc/sys/kernel/hostname", "utf8")).trim());
});

rootTest("in the host's pid namespace a container ends whole, and its commands are its own", async () => {
  const mark = `4${process.pid}`;
  for (const init of [false, true]) {
    const id = node.assign(
      shell(`sleep ${mark} & sleep ${mark} & echo $PPID; trap 'exit 0' TERM; while true; do sleep 0.1; done`, {
        pidMode: "host",
        init,
        healthcheck: { test: ["CMD-SHELL", `ps | grep -q 'sleep ${mark}'`], interval: { nanos: 50_000_000 } },
      }),
    );
    await node.reaches(id, TaskState.RUNNING);
    expect(execFileSync("pgrep", ["-fc", `^sleep ${mark}`], { encoding: "utf8" }).trim()).toBe("2");
    node.stop(id);
    await node.reaches(id, TaskState.SHUTDOWN);
    await eventually(() => expect(() => execFileSync("pgrep", ["-f", `^sleep ${mark}`])).toThrow());
  }
});

rootTest("the size of /dev/shm", async () => {
  expect((await output("df -k /dev/shm | tail -1"))[0]).toMatch(/^shm +65536 /);
  expect((await output("df -k /dev/shm | tail -1", { shmSizeBytes: 3n << 20n }))[0]).toMatch(/^shm +3072 /);
});

rootTest("processors, shares and swap", async () => {
  const version = (await readFile("/proc/self/cgroup", "utf8")).includes("memory") ? 1 : 2;
  const limits = { cpusetCpus: "0", cpuShares: 512n, memoryBytes: 32n << 20n, memorySwapBytes: -1n };
  const files = {
    1: ["memory/memory.memsw.limit_in_bytes", "cpu*/cpu.shares"],
    2: ["memory.swap.max", "cpu.weight"],
  }[version as 1 | 2];
  const seen = await output(
    `grep Cpus_allowed_list /proc/self/status; cd /sys/fs/cgroup; cat ${files?.join(" ")}`,
    {},
    limits,
  );
  expect(seen[0]).toBe("Cpus_allowed_list:\t0");
  expect(seen.slice(-1)).toEqual([version === 1 ? "512" : "20"]);
  expect(Number(seen[1] === "max" ? Infinity : seen[1])).toBeGreaterThan(2 ** 60);
  expect(await rejected({}, { cpusetCpus: "4000" })).toMatch(/cpuset.cpus.*E(RANGE|INVAL)/);
});

rootTest("what cannot be had is rejected with its reason", async () => {
  const device = "error gathering device information while adding custom device";
  expect(await rejected({ devices: [{ hostPath: "/dev/nope" }, { hostPath: "/etc/hostname" }] })).toContain(
    `devices[0]: ${device} "/dev/nope": no such file or directory; devices[1]: ${device} "/etc/hostname": not a device node`,
  );
  expect(await rejected({ security: { apparmor: "docker-default" } })).toMatch(
    /security_opt.apparmor: "docker-default": /,
  );
  expect(await rejected({ security: { seccomp: '{"defaultAction": "NO"}' } })).toContain(
    'security_opt.seccomp.defaultAction: unknown action "NO"',
  );
});

rootTest("a port on one address of the node answers there alone", async () => {
  const ports: MessageInitShape<typeof PortConfigSchema>[] = [
    { publishedPort: 18090, targetPort: 80, hostIp: "127.0.0.1" },
    { publishedPort: 18090, targetPort: 80, hostIp: "192.0.2.99" },
  ];
  const id = node.assign({ ...shell("mkdir /www; echo hi > /www/index.html; exec httpd -f -p 80 -h /www"), ports });
  const status = await node.reaches(id, TaskState.RUNNING);
  expect(status.error).toBe("published port 192.0.2.99:18090/tcp: this node does not have the address");
  await eventually(async () => expect(await (await fetch("http://127.0.0.1:18090/")).text()).toBe("hi\n"));
  await expect(fetch("http://[::1]:18090/")).rejects.toThrow();
  node.stop(id);
  await node.reaches(id, TaskState.SHUTDOWN);
});
