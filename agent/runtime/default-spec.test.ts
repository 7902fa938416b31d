// Goal: what Docker's users write means here what they expect, and bad wishes are refused all at once. Method: tables
// over the pure function, one snapshot of a whole spec.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { SecurityOptionsSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ContainerMount, containerMounts } from "./default-mounts.ts";
import { type ContainerInput, type ContainerOverrides, containerSpec } from "./default-spec.ts";
import type { HostPath } from "./op.ts";

const host = (path: string) => path as HostPath;

function input(changes: Partial<ContainerInput> = {}): ContainerInput {
  return {
    rootPath: host("/var/lib/swarm/tasks/t/root"),
    hostname: "web-1",
    image: { env: [], entrypoint: [], command: ["serve"], workingDirectory: "", user: "" },
    overrides: {},
    userFiles: { passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n", group: "www:x:34:\nlog:x:4:web\n" },
    mounts: [],
    files: {},
    network: "routed",
    host: {
      architecture: "x86_64",
      cpus: 2,
      openFilesMax: 1_048_576,
      kernel: "6.1.0-42-amd64",
      apparmor: false,
      capabilityMask: 2n ** 41n - 1n,
    },
    ...changes,
  };
}

const withOverrides = (overrides: ContainerOverrides) => containerSpec(input({ overrides }));

describe("entrypoint and command", () => {
  const image = { ...input().image, entrypoint: ["/entry", "-e"], command: ["cmd", "-c"] };
  test.each<[string, Partial<ContainerInput["image"]>, ContainerOverrides, string]>([
    ["image alone", {}, {}, "/entry -e cmd -c"],
    ["args replace the command", {}, { args: ["x"] }, "/entry -e x"],
    ["command replaces both", {}, { command: ["sh"] }, "sh"],
    ["command and args", {}, { command: ["sh"], args: ["-c", "y"] }, "sh -c y"],
    ["empty lists are absent", {}, { command: [], args: [] }, "/entry -e cmd -c"],
    ["no entrypoint", { entrypoint: [] }, {}, "cmd -c"],
    ["no entrypoint, args", { entrypoint: [] }, { args: ["z"] }, "z"],
  ])("%s", (_, changes, overrides, expected) => {
    const spec = containerSpec(input({ image: { ...image, ...changes }, overrides }));
    expect(spec.process.args.join(" ")).toBe(expected);
  });

  test("nothing to run", () => {
    const empty = { ...image, entrypoint: [], command: [] };
    expect(() => containerSpec(input({ image: empty }))).toThrow("command: no command specified");
    expect(() => withOverrides({ command: [""] })).toThrow("command: the first word is empty");
  });
});

describe("environment", () => {
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  test.each<[readonly string[], ContainerOverrides, readonly string[]]>([
    [[], {}, [path, "HOSTNAME=web-1", "HOME=/root"]],
    [[], { tty: true }, [path, "HOSTNAME=web-1", "TERM=xterm", "HOME=/root"]],
    [["PATH=/bin", "A=1"], {}, ["PATH=/bin", "HOSTNAME=web-1", "A=1", "HOME=/root"]],
    [["A=1", "B=2"], { env: ["A=", "C=x=y"] }, [path, "HOSTNAME=web-1", "A=", "B=2", "C=x=y", "HOME=/root"]],
    [["A=1", "B=2"], { env: ["A", "HOSTNAME"] }, [path, "B=2", "HOME=/root"]],
    [["HOME=/data"], { user: "web" }, [path, "HOSTNAME=web-1", "HOME=/data"]],
    [["HOME="], { user: "web" }, [path, "HOSTNAME=web-1", "HOME=/srv"]],
    [["=odd", "A=1"], {}, [path, "HOSTNAME=web-1", "A=1", "HOME=/root"]],
  ])("image %j and %j", (env, overrides, expected) => {
    const spec = containerSpec(input({ image: { ...input().image, env: [...env] }, overrides }));
    expect(spec.process.env).toEqual(expected);
  });
});

test("a terminal has a size, for nobody sits at it who could say one", () => {
  expect(withOverrides({ tty: true }).process).toMatchObject({
    terminal: true,
    consoleSize: { height: 24, width: 80 },
  });
  const { terminal, consoleSize } = withOverrides({}).process;
  expect([terminal, consoleSize]).toEqual([false, undefined]);
});

test("user and working directory: the service's, else the image's", () => {
  const image = { ...input().image, user: "web", workingDirectory: "/srv" };
  expect(containerSpec(input({ image })).process).toMatchObject({
    cwd: "/srv",
    user: { uid: 33, gid: 34, additionalGids: [34, 4] },
  });
  const overrides = { user: "7:8", dir: "/tmp", groups: ["log"] };
  expect(containerSpec(input({ image, overrides })).process).toMatchObject({
    cwd: "/tmp",
    user: { uid: 7, gid: 8, additionalGids: [8, 4] },
  });
  expect(withOverrides({}).process).toMatchObject({ cwd: "/", user: { uid: 0, gid: 0, additionalGids: [0] } });
});

describe("resources", () => {
  test.each<[Partial<ContainerInput>, object]>([
    [{}, { memory: {}, cpu: {}, pids: { limit: 2048 } }],
    [{ limits: { memoryBytes: 0n, nanoCpus: 0n, pids: 0n } }, { memory: {}, cpu: {}, pids: { limit: 2048 } }],
    [{ limits: { memoryBytes: 64n << 20n } }, { memory: { limit: 67_108_864, swap: 67_108_864 } }],
    [{ reservations: { memoryBytes: 1n << 20n } }, { memory: { reservation: 1_048_576 } }],
    [{ limits: { nanoCpus: 1_500_000_000n } }, { cpu: { quota: 150_000, period: 100_000 } }],
    [{ limits: { nanoCpus: 1_000_000n } }, { cpu: { quota: 1000, period: 100_000 } }],
    [{ limits: { pids: 10n } }, { pids: { limit: 10 } }],
    [{ limits: { memoryBytes: 64n << 20n, memorySwapBytes: 96n << 20n } }, { memory: { swap: 100_663_296 } }],
    [{ limits: { memoryBytes: 64n << 20n, memorySwapBytes: -1n } }, { memory: { limit: 67_108_864, swap: -1 } }],
    [{ limits: { memorySwappiness: 0 } }, { memory: { swappiness: 0 } }],
    [
      { limits: { cpusetCpus: "0-1", cpusetMems: "0", cpuShares: 512n } },
      { cpu: { cpus: "0-1", mems: "0", shares: 512 } },
    ],
  ])("case %#", (changes, expected) => {
    expect(containerSpec(input(changes)).linux.resources).toMatchObject(expected);
  });

  test("limits of processes", () => {
    const ulimits = [
      { name: "nofile", soft: 10n, hard: 20n },
      { name: "memlock", soft: -1n, hard: -1n },
    ];
    expect(withOverrides({ ulimits }).process.rlimits).toEqual([
      { type: "RLIMIT_CORE", soft: 0, hard: 0 },
      { type: "RLIMIT_NOFILE", soft: 10, hard: 20 },
      { type: "RLIMIT_MEMLOCK", soft: -1, hard: -1 },
    ]);
  });
});

test("the default of open files yields to what the agent may give", () => {
  const host = { ...input().host, openFilesMax: 20_000 };
  const files = { type: "RLIMIT_NOFILE", soft: 1024, hard: 20_000 };
  expect(containerSpec(input({ host })).process.rlimits).toContainEqual(files);
});

describe("mounts", () => {
  const bind = (target: string): ContainerMount => ({ kind: "bind", source: host("/data"), target });
  const targets = (mounts: readonly ContainerMount[]) =>
    containerMounts(
      {
        mounts,
        files: { hosts: host("/h"), resolvConf: host("/r"), hostname: host("/n") },
        system: { shmSizeBytes: 0, hostIpc: false, writable: false },
      },
      [],
    )
      .map(({ destination }) => destination)
      .join(" ");
  const defaults =
    "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname";

  test("come after ours, shallow ones first, and replace ours at the same place", () => {
    expect(targets([])).toBe(defaults);
    expect(targets([bind("/a/b/c"), bind("/z"), bind("/a//b/")])).toBe(`${defaults} /z /a/b /a/b/c`);
    expect(targets([bind("/etc/hosts"), bind("/dev/shm")])).toBe(
      `${defaults.replace(" /dev/shm /etc/hosts", "")} /etc/hosts /dev/shm`,
    );
  });

  test("keep their options", () => {
    const source = host("/data");
    const spec = containerSpec(
      input({
        mounts: [
          { kind: "bind", source, target: "/a" },
          { kind: "volume", source, target: "/b", readOnly: true, propagation: "rslave", recursive: false },
          { kind: "tmpfs", target: "/c" },
          { kind: "tmpfs", target: "/d", sizeBytes: 4096, mode: 0o700, readOnly: true },
        ],
      }),
    );
    expect(spec.mounts?.slice(-4).map(({ type, options }) => [type, ...(options ?? [])].join(" "))).toEqual([
      "bind rbind rprivate",
      "bind bind rslave ro",
      "tmpfs nosuid noexec nodev mode=1777",
      "tmpfs nosuid noexec nodev mode=700 size=4096 ro",
    ]);
  });
});

test("every bad field is named at once", () => {
  const ulimits = [
    { name: "files", soft: 1n, hard: 1n },
    { name: "nofile", soft: 3n, hard: 2n },
    { name: "stack", soft: -1n, hard: 2n },
  ];
  const bad = input({
    image: { ...input().image, command: [] },
    overrides: {
      user: "nobody",
      dir: "here",
      capAdd: ["NOPE"],
      ulimits,
      sysctls: {
        "kernel.core_pattern": "|/x",
        "net.a/../../kernel.x": "1",
        "net..x": "1",
        "net.core.somaxconn": "1\n2",
      },
    },
    mounts: ["rel", "/", "/a/../b", "/proc", "/proc/self/attr", "/x", "//x/"].map((target) => ({
      kind: "tmpfs",
      target,
    })),
  });
  let message = "";
  try {
    containerSpec(bad);
  } catch (reason) {
    message = reason instanceof Error ? reason.message : "";
  }
  expect(message.split("; ")).toMatchInlineSnapshot(`
    [
      "user: no user "nobody" in the image's /etc/passwd",
      "cap-add: unknown capability "NOPE"",
      "command: no command specified",
      "working_dir: "here" must be an absolute path",
      "ulimits.files: unknown limit",
      "ulimits.nofile: soft limit 3 is above the hard limit 2",
      "ulimits.stack: soft limit -1 is above the hard limit 2",
      "mounts[0].target: "rel": must be an absolute path",
      "mounts[1].target: "/": must not be the root",
      "mounts[2].target: "/a/../b": must not contain . or ..",
      "mounts[3].target: "/proc": must not lie in /proc",
      "mounts[4].target: "/proc/self/attr": must not lie in /proc",
      "mounts[6].target: "//x/": duplicate mount point",
      "sysctls.kernel.core_pattern: not a setting of a container",
      "sysctls.net.a/../../kernel.x: not a setting of a container",
      "sysctls.net..x: not a setting of a container",
      "sysctls.net.core.somaxconn: the value must be one line",
    ]
  `);
});

test("the host's network is shared only when asked for, and then not changed", () => {
  const types = (network: ContainerInput["network"]) =>
    containerSpec(input({ network }))
      .linux.namespaces?.map(({ type }) => type)
      .join(" ");
  expect(types("routed")).toBe("mount pid ipc uts cgroup network");
  expect(types("none")).toBe("mount pid ipc uts cgroup network");
  expect(types("host")).toBe("mount pid ipc uts cgroup");
  expect(containerSpec(input({ network: "host" })).linux.sysctl).toEqual({});
  const overrides = { sysctls: { "net.core.somaxconn": "1" } };
  expect(() => containerSpec(input({ network: "host", overrides }))).toThrow("which this container shares");
  expect(withOverrides(overrides).linux.sysctl).toMatchObject({ "net.core.somaxconn": "1" });
});

const security = (init: MessageInitShape<typeof SecurityOptionsSchema>) => ({
  security: create(SecurityOptionsSchema, init),
});

test("seccomp and no_new_privs can be turned off, by name only", () => {
  const open = withOverrides(security({ seccomp: "unconfined", noNewPrivileges: false }));
  expect(open.linux.seccomp).toBeUndefined();
  expect(open.process.noNewPrivileges).toBe(false);
  const own = withOverrides(security({ seccomp: '{"defaultAction": "SCMP_ACT_ALLOW"}' })).linux.seccomp;
  expect(own).toEqual({ defaultAction: "SCMP_ACT_ALLOW", architectures: [], flags: [], syscalls: [] });
  expect(containerSpec(input()).linux.seccomp).toBe(withOverrides({ capAdd: ["NET_RAW"] }).linux.seccomp);
});

test("a named AppArmor profile is refused with the reason", () => {
  const named = security({ apparmor: "docker-default" });
  const problem = 'security_opt.apparmor: "docker-default": ';
  expect(() => withOverrides(named)).toThrow(`${problem}this node has no AppArmor`);
  const apparmor = { ...input().host, apparmor: true };
  expect(() => containerSpec(input({ overrides: named, host: apparmor }))).toThrow(`${problem}profiles of AppArmor`);
  expect(withOverrides(security({ apparmor: "unconfined" })).linux).toEqual(withOverrides({}).linux);
});

test("all capabilities are all that the agent has; one that it lacks cannot be named", () => {
  const weak = { ...input().host, capabilityMask: input().host.capabilityMask & ~(1n << 24n) };
  const bounding = (overrides: ContainerOverrides) =>
    containerSpec(input({ host: weak, overrides })).process.capabilities?.bounding ?? [];
  for (const overrides of [{ privileged: true }, { capAdd: ["ALL"] }]) {
    expect(bounding(overrides)).toHaveLength(40);
    expect(bounding(overrides)).not.toContain("CAP_SYS_RESOURCE");
  }
  expect(() => bounding({ capAdd: ["SYS_RESOURCE"] })).toThrow("cap-add: this node cannot give CAP_SYS_RESOURCE");
});

test("privileged: everything but the host's namespaces", () => {
  const disk = {
    type: "b",
    path: "/dev/sda",
    major: 8,
    minor: 0,
    access: "rwm",
    fileMode: 0o660,
    uid: 0,
    gid: 6,
  } as const;
  const spec = containerSpec(input({ overrides: { privileged: true }, devices: [disk] }));
  const plain = withOverrides({});
  const changed = (spec.mounts ?? []).filter(
    (mount, index) => mount.options?.join() !== plain.mounts?.[index]?.options?.join(),
  );
  expect({
    capabilities: spec.process.capabilities?.effective?.length,
    noNewPrivileges: spec.process.noNewPrivileges,
    seccomp: spec.linux.seccomp,
    hidden: [spec.linux.maskedPaths, spec.linux.readonlyPaths],
    namespaces: spec.linux.namespaces?.map(({ type }) => type).join(" "),
    devices: spec.linux.devices,
    rules: spec.linux.resources?.devices,
    changed: changed.map(({ destination, options }) => `${destination} ${options?.join()}`),
  }).toMatchInlineSnapshot(`
    {
      "capabilities": 41,
      "changed": [
        "/sys nosuid,noexec,nodev,rw",
        "/sys/fs/cgroup nosuid,noexec,nodev,rw",
      ],
      "devices": [
        {
          "fileMode": 432,
          "gid": 6,
          "major": 8,
          "minor": 0,
          "path": "/dev/sda",
          "type": "b",
          "uid": 0,
        },
      ],
      "hidden": [
        [],
        [],
      ],
      "namespaces": "mount pid ipc uts cgroup network",
      "noNewPrivileges": false,
      "rules": [
        {
          "access": "rwm",
          "allow": true,
          "type": "a",
        },
      ],
      "seccomp": undefined,
    }
  `);
  const less = containerSpec(
    input({ overrides: { privileged: true, capDrop: ["SYS_BOOT"], ...security({ noNewPrivileges: true }) } }),
  );
  expect(less.process).toMatchObject({ noNewPrivileges: true });
  expect(less.process.capabilities?.bounding).not.toContain("CAP_SYS_BOOT");
  const bound = [{ kind: "bind", source: host("/dev"), target: "/dev" }] as const;
  expect(
    containerSpec(input({ overrides: { privileged: true }, devices: [disk], mounts: bound })).linux.devices,
  ).toBeUndefined();
});

test("devices come with their rules, and with the right to be made", () => {
  const fuse = {
    type: "c",
    path: "/dev/fuse",
    major: 10,
    minor: 229,
    access: "r",
    fileMode: 0o666,
    uid: 0,
    gid: 0,
  } as const;
  const { linux } = containerSpec(
    input({ devices: [fuse], overrides: { deviceCgroupRules: ["c 81:* rmw", "b *:* r"] } }),
  );
  expect(linux.devices).toEqual([
    { type: "c", path: "/dev/fuse", major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 },
  ]);
  expect(linux.resources?.devices?.slice(-3)).toEqual([
    { allow: true, type: "c", major: 10, minor: 229, access: "rm" },
    { allow: true, type: "c", major: 81, access: "mrw" },
    { allow: true, type: "b", access: "r" },
  ]);
  expect(() => withOverrides({ deviceCgroupRules: ["c 1"] })).toThrow(
    "device_cgroup_rules[0]: invalid device cgroup rule",
  );
});

test("namespaces of the host, its name and its /dev/shm", () => {
  const types = (overrides: ContainerOverrides) =>
    withOverrides(overrides)
      .linux.namespaces?.map(({ type }) => type)
      .join(" ");
  expect(types({ pidMode: "host" })).toBe("mount ipc uts cgroup network");
  expect(types({ ipcMode: "host" })).toBe("mount pid uts cgroup network");
  expect(types({ utsMode: "host" })).toBe("mount pid ipc cgroup network");
  expect(withOverrides({ utsMode: "host" }).hostname).toBeUndefined();
  const shm = (overrides: ContainerOverrides) =>
    withOverrides(overrides).mounts?.find(({ destination }) => destination === "/dev/shm");
  expect(shm({ ipcMode: "host" })).toMatchObject({ type: "bind", source: "/dev/shm" });
  expect(shm({ shmSizeBytes: 1n << 30n })?.options).toContain("size=1073741824");
  const sysctls = { "kernel.shmmax": "1" };
  expect(() => withOverrides({ ipcMode: "host", sysctls })).toThrow("belongs to the host's ipc namespace");
});

test("a whole spec", () => {
  const spec = containerSpec(input({ files: { hosts: host("/t/hosts") }, overrides: { readOnly: true } }));
  const { seccomp, maskedPaths, readonlyPaths, resources, ...linux } = spec.linux;
  expect(seccomp?.defaultAction).toBe("SCMP_ACT_ERRNO");
  const oneLine = (value: unknown) => JSON.stringify(value).replaceAll('"', "");
  const lines = [
    ...Object.entries(spec.process).map(([key, value]) => `process.${key} ${oneLine(value)}`),
    ...(spec.mounts ?? []).map(({ destination, type, source, options }) =>
      ["mount", destination, type, source, options?.join()].join(" "),
    ),
    `root ${oneLine(spec.root)}`,
    ...Object.entries(linux).map(([key, value]) => `linux.${key} ${oneLine(value)}`),
    `resources ${oneLine({ ...resources, devices: resources?.devices?.length })}`,
    `masked ${maskedPaths?.join(" ")}`,
    `read-only ${readonlyPaths?.join(" ")}`,
  ];
  expect(lines).toMatchInlineSnapshot(`
    [
      "process.terminal false",
      "process.user {uid:0,gid:0,additionalGids:[0]}",
      "process.args [serve]",
      "process.env [PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,HOSTNAME=web-1,HOME=/root]",
      "process.cwd /",
      "process.capabilities {bounding:[CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_SETGID,CAP_SETUID,CAP_SETPCAP,CAP_NET_BIND_SERVICE,CAP_SYS_CHROOT,CAP_SETFCAP],effective:[CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_SETGID,CAP_SETUID,CAP_SETPCAP,CAP_NET_BIND_SERVICE,CAP_SYS_CHROOT,CAP_SETFCAP],permitted:[CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_SETGID,CAP_SETUID,CAP_SETPCAP,CAP_NET_BIND_SERVICE,CAP_SYS_CHROOT,CAP_SETFCAP],inheritable:[],ambient:[]}",
      "process.rlimits [{type:RLIMIT_CORE,soft:0,hard:0},{type:RLIMIT_NOFILE,soft:1024,hard:524288}]",
      "process.noNewPrivileges true",
      "process.oomScoreAdj 0",
      "mount /proc proc proc nosuid,noexec,nodev",
      "mount /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
      "mount /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
      "mount /sys sysfs sysfs nosuid,noexec,nodev,ro",
      "mount /sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev,ro",
      "mount /dev/mqueue mqueue mqueue nosuid,noexec,nodev",
      "mount /dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=65536k",
      "mount /etc/hosts bind /t/hosts bind,rprivate",
      "root {path:/var/lib/swarm/tasks/t/root,readonly:true}",
      "linux.namespaces [{type:mount},{type:pid},{type:ipc},{type:uts},{type:cgroup},{type:network}]",
      "linux.rootfsPropagation rprivate",
      "linux.sysctl {net.ipv4.ip_unprivileged_port_start:0,net.ipv4.ping_group_range:0 2147483647}",
      "resources {devices:10,memory:{},cpu:{},pids:{limit:2048}}",
      "masked /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware /sys/devices/system/cpu/cpu0/thermal_throttle /sys/devices/system/cpu/cpu1/thermal_throttle",
      "read-only /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger",
    ]
  `);
});
