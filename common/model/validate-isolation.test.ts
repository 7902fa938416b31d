// Goal: every bad field about privileges and limits is named, good ones pass. Method: tables over the pure check.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  type ContainerSpec,
  type ContainerSpecSchema,
  type ResourceLimits,
  type ResourceLimitsSchema,
  ServiceSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { readSeccompDocument } from "./seccomp-document.ts";
import { validateServiceSpec } from "./validate.ts";

type Container = Exclude<MessageInitShape<typeof ContainerSpecSchema>, ContainerSpec>;
type Limits = Exclude<MessageInitShape<typeof ResourceLimitsSchema>, ResourceLimits>;

function problems(container: Container, limits: Limits = {}): string[] {
  const task = { container: { image: "demo/web:1", ...container }, resources: { limits } };
  const spec = create(ServiceSpecSchema, { name: "web", task });
  return validateServiceSpec(spec).map(({ field, problem }) => `${field}: ${problem}`);
}

const PROFILE = {
  defaultAction: "SCMP_ACT_ERRNO",
  defaultErrnoRet: 1,
  archMap: [{ architecture: "SCMP_ARCH_X86_64", subArchitectures: ["SCMP_ARCH_X86"] }],
  syscalls: [
    {
      names: ["read", "not_yet_invented"],
      action: "SCMP_ACT_ALLOW",
      args: null,
      comment: "",
      includes: {},
      excludes: {},
    },
    {
      name: "clone",
      action: "SCMP_ACT_ALLOW",
      args: [{ index: 0, value: 2114060288, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
      excludes: { caps: ["CAP_SYS_ADMIN"], arches: ["s390x"] },
      includes: { minKernel: "4.8" },
    },
  ],
};

test("what can be asked for passes", () => {
  const container = {
    security: { seccomp: JSON.stringify(PROFILE), apparmor: "unconfined", noNewPrivileges: false },
    devices: [
      { hostPath: "/dev/fuse" },
      { hostPath: "/dev/snd", containerPath: "/dev/sound", permissions: "rw" },
      { hostPath: "/dev/fuse", containerPath: "/dev/other" },
    ],
    deviceCgroupRules: ["c 81:* rmw", "b *:3 r", "a *:* rwm"],
    shmSizeBytes: 1n << 30n,
    pidMode: "host",
    utsMode: "host",
    pullPolicy: 2,
  };
  const limits = {
    memoryBytes: 8n << 20n,
    memorySwapBytes: -1n,
    memorySwappiness: 100,
    cpusetCpus: "0-3,7",
    cpusetMems: "0",
    cpuShares: 2n,
  };
  expect(problems(container, limits)).toEqual([]);
  expect(problems({ privileged: true, ipcMode: "host", security: { seccomp: "unconfined" } })).toEqual([]);
});

describe("each bad field is named", () => {
  test.each<[string, Container, string]>([
    ["mode", { pidMode: "container:x" }, 'pid: invalid mode "container:x": only host is known'],
    ["pull policy", { pullPolicy: 9 as 0 }, "pull_policy: unknown value 9"],
    ["shm", { shmSizeBytes: -1n }, "shm_size: invalid size -1: Must be from 0 to 1PiB"],
    [
      "shm of the host",
      { shmSizeBytes: 1n, ipcMode: "host" },
      "shm_size: conflicting options: with ipc host, /dev/shm is the host's",
    ],
    [
      "two of /dev/shm",
      { shmSizeBytes: 1n, mounts: [{ type: 2, target: "/dev//shm/" }] },
      "shm_size: conflicting options: a mount takes the place of /dev/shm",
    ],
    [
      "name of the host",
      { hostname: "x", utsMode: "host" },
      "hostname: conflicting options: hostname and the host's UTS namespace",
    ],
    [
      "ipc settings of the host",
      { ipcMode: "host", sysctls: { "kernel.shmmax": "1" } },
      "sysctls.kernel.shmmax: conflicting options: with ipc host it would change the host",
    ],
    ["device", { devices: [{ hostPath: "fuse" }] }, 'devices[0]: "fuse" is not an absolute path'],
    [
      "device inside",
      { devices: [{ hostPath: "/dev/x", containerPath: "/dev/../etc" }] },
      'devices[0]: "/dev/../etc" is not an absolute path',
    ],
    ["device mode", { devices: [{ hostPath: "/dev/x", permissions: "rx" }] }, 'devices[0]: invalid device mode: "rx"'],
    [
      "device twice",
      { devices: [{ hostPath: "/dev/x" }, { hostPath: "/dev/y", containerPath: "/dev/x" }] },
      'devices[1]: duplicate device: "/dev/x"',
    ],
    [
      "rule",
      { deviceCgroupRules: ["c 81 rmw"] },
      'device_cgroup_rules[0]: invalid device cgroup rule format: "c 81 rmw" ("c 81:* rmw")',
    ],
    [
      "rule for all",
      { deviceCgroupRules: ["a 1:3 r"] },
      'device_cgroup_rules[0]: "a 1:3 r": the kernel takes "a" for all of all devices, whatever follows: write "a *:* rwm"',
    ],
    [
      "numbers",
      { deviceCgroupRules: ["c 4096:0 r"] },
      'device_cgroup_rules[0]: "c 4096:0 r": a device\'s numbers are at most 4095:1048575',
    ],
    [
      "rules beside privileged",
      { privileged: true, deviceCgroupRules: ["c 1:3 r"] },
      "device_cgroup_rules: say nothing beside privileged, which allows every device",
    ],
  ])("%s", (_, container, problem) => expect(problems(container)).toEqual([problem]));

  test.each<[Limits, string]>([
    [{ memorySwapBytes: -2n }, "memswap_limit: invalid value -2: Must be -1 (unlimited) or from 0 to 1PiB"],
    [{ memorySwapBytes: 1n }, "memswap_limit: You should always set the Memory limit when using Memoryswap limit"],
    [
      { memoryBytes: 8n << 20n, memorySwapBytes: 1n },
      "memswap_limit: Minimum memoryswap limit should be larger than memory limit",
    ],
    [{ memorySwappiness: 101 }, "mem_swappiness: invalid value 101: Must be from 0 to 100"],
    [{ cpuShares: 1n }, "cpu_shares: invalid value 1: Must be from 2 to 262144"],
    [{ cpusetCpus: "3-1" }, 'cpuset: invalid list "3-1": numbers and ranges such as 0-3,7'],
    [{ cpusetMems: "0,x" }, 'cpuset_mems: invalid list "0,x": numbers and ranges such as 0-3,7'],
  ])("%#", (limits, problem) => expect(problems({}, limits)).toEqual([problem]));
});

describe("seccomp profiles", () => {
  const rule = PROFILE.syscalls[0];
  test.each<[string, unknown, string[]]>([
    ["a list", [], [": is not an object", "defaultAction: is missing"]],
    ["an unknown key", { ...PROFILE, syscals: [] }, ["syscals: unknown key"]],
    ["no default", { syscalls: [] }, ["defaultAction: is missing"]],
    [
      "actions",
      { defaultAction: "ALLOW", syscalls: [{ ...rule, action: "SCMP_ACT_NOTIFY" }] },
      [
        'defaultAction: unknown action "ALLOW"',
        "syscalls[0].action: SCMP_ACT_NOTIFY needs a listener, which containers here have not",
      ],
    ],
    [
      "a rule",
      { ...PROFILE, syscalls: [{ names: [], action: "SCMP_ACT_ERRNO", errnoRet: 5000, argz: [] }] },
      [
        "syscalls[0].argz: unknown key",
        "syscalls[0].names: names no system call",
        'syscalls[0].errnoRet: "5000" is not a whole number from 0 to 4095',
      ],
    ],
    [
      "an argument",
      { ...PROFILE, syscalls: [{ ...rule, args: [{ index: 6, value: 2 ** 60, op: "EQ" }] }] },
      [
        'syscalls[0].args[0].op: unknown operator "EQ"',
        'syscalls[0].args[0].index: "6" is not a whole number from 0 to 5',
        `syscalls[0].args[0].value: "${2 ** 60}" is not a whole number from 0 to 9007199254740991`,
      ],
    ],
    [
      "conditions",
      { ...PROFILE, syscalls: [{ ...rule, includes: { minKernel: "new" }, excludes: { caps: "ALL" } }] },
      [
        'syscalls[0].includes.minKernel: "new" is not a version such as 4.8',
        "syscalls[0].excludes.caps: is not a list",
      ],
    ],
    [
      "both of two",
      { ...PROFILE, architectures: ["SCMP_ARCH_X86"], syscalls: [{ ...rule, name: "read" }] },
      ["archMap: both 'architectures' and 'archMap' are given", "syscalls[0].names: both 'name' and 'names' are given"],
    ],
    ["flags", { ...PROFILE, flags: ["FAST"] }, ['flags[0]: unknown or unsupported flag "FAST"']],
  ])("%s", (_, document, expected) => {
    const read = readSeccompDocument(JSON.stringify(document));
    expect(read.ok ? [] : read.problems.map(({ field, problem }) => `${field}: ${problem}`)).toEqual(expected);
  });

  test("the place is part of the service's problem", () => {
    const text = (seccomp: string) => problems({ security: { seccomp } });
    expect(text('{"defaultAction": "x"}')).toEqual(['security_opt.seccomp.defaultAction: unknown action "x"']);
    expect(text("nonsense")).toEqual([expect.stringMatching(/^security_opt\.seccomp: not JSON: /)]);
  });
});
