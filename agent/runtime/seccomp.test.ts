// Goal: the filter allows and denies exactly what the profile says, on each ABI, and the kernel takes it.
// Method: an interpreter of classic BPF runs the program on each call; one root test loads it into a real process.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rootTest } from "../../test/privileges.ts";
import { CAPABILITY_NAMES, type CapabilityName, DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { OciSeccomp, OciSeccompArgument } from "./oci.ts";
import { compileSeccomp } from "./seccomp.ts";
import { defaultSeccompProfile } from "./seccomp-profile.ts";
import { type Architecture, architectureOf, SYSCALLS, type SyscallAbi } from "./syscalls.ts";

const AUDIT = { x86_64: 0xc000003e, i386: 0x40000003, aarch64: 0xc00000b7, arm: 0x40000028 };
const ALLOW = "allow";
const EPERM = "errno 1";
const ENOSYS = "errno 38";

/** One call as struct seccomp_data has it. */
interface Call {
  readonly abi: keyof typeof AUDIT;
  readonly number: number;
  readonly args?: readonly bigint[];
}

function run(program: Uint8Array, call: Call): { readonly action: string; readonly steps: number } {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, call.number, true);
  data.setUint32(4, AUDIT[call.abi], true);
  for (const [index, arg] of (call.args ?? []).entries()) data.setBigUint64(16 + 8 * index, arg, true);
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  let a = 0;
  let steps = 0;
  for (let pc = 0; pc * 8 < program.length; pc++) {
    steps++;
    const code = view.getUint16(pc * 8, true);
    const k = view.getUint32(pc * 8 + 4, true);
    const jump = (taken: boolean) => view.getUint8(pc * 8 + (taken ? 2 : 3));
    if (code === 0x20) a = data.getUint32(k, true);
    else if (code === 0x54) a = (a & k) >>> 0;
    else if (code === 0x05) pc += k;
    else if (code === 0x15) pc += jump(a === k);
    else if (code === 0x25) pc += jump(a > k);
    else if (code === 0x35) pc += jump(a >= k);
    else if (code === 0x06) return { action: actionName(k), steps };
    else throw new Error(`unknown instruction ${code} at ${pc}`);
  }
  throw new Error("the program ran off its end");
}

function actionName(value: number): string {
  if (value === 0x7fff0000) return ALLOW;
  if (value === 0x80000000) return "kill process";
  if ((value & 0xffff0000) === 0x00050000) return `errno ${value & 0xffff}`;
  return `0x${value.toString(16)}`;
}

function evaluate(program: Uint8Array, abi: SyscallAbi, name: string, ...args: readonly bigint[]): string {
  const number = SYSCALLS[abi].get(name);
  if (number === undefined) throw new Error(`${abi} has no ${name}`);
  return run(program, { abi, number, args }).action;
}

function defaultFilter(architecture: Architecture = "x86_64", more: readonly CapabilityName[] = []): Uint8Array {
  const capabilities = [...DEFAULT_CAPABILITIES, ...more];
  return compileSeccomp(defaultSeccompProfile({ architecture, capabilities }), architecture);
}

const HARMLESS = { clone: [17n], socket: [2n], personality: [0n] } satisfies Record<string, readonly bigint[]>;

function deniedNames(program: Uint8Array, abi: SyscallAbi, before: number): string[] {
  const harmless: Readonly<Record<string, readonly bigint[]>> = HARMLESS;
  return [...SYSCALLS[abi]]
    .filter(([name, number]) => number < before && evaluate(program, abi, name, ...(harmless[name] ?? [])) !== ALLOW)
    .map(([name]) => name)
    .sort();
}

describe("the default profile", () => {
  const dockers: readonly CapabilityName[] = ["CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"];

  test.each([
    ["our eleven capabilities", []],
    ["docker's fourteen", dockers],
  ])("with %s allows 295 of Linux 6.1's 362 calls on x86-64", (_, more) => {
    const denied = deniedNames(defaultFilter("x86_64", more), "x86_64", 451);
    // 335 and 336 (uretprobe, uprobe) are younger than 6.1.
    const of61 = denied.filter((name) => name !== "uprobe");
    expect([...SYSCALLS.x86_64].filter(([name, at]) => at < 451 && !name.includes("probe")).length).toBe(362);
    expect(of61.length).toBe(67);
    expect(of61.join(" ")).toMatchInlineSnapshot(
      `"_sysctl acct add_key afs_syscall bpf clock_settime clone3 create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key security set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall umount2 unshare uselib userfaultfd ustat vhangup vserver"`,
    );
  });

  test("denies on the other ABIs what it denies natively", () => {
    const native = new Set(deniedNames(defaultFilter(), "x86_64", 1000));
    const i386 = deniedNames(defaultFilter(), "i386", 1000);
    const aarch64 = deniedNames(defaultFilter("aarch64"), "aarch64", 1000);
    expect(i386.filter((name) => !native.has(name)).join(" ")).toMatchInlineSnapshot(
      `"bdflush break clock_settime64 ftime gtty idle lock mpx nice oldfstat oldlstat oldolduname oldstat olduname prof profil readdir sgetmask sigaction signal sigpending sigsuspend ssetmask stime stty ulimit umount vm86 vm86old"`,
    );
    expect(aarch64.filter((name) => !native.has(name)).join(" ")).toMatchInlineSnapshot(`""`);
    for (const name of native) {
      if (SYSCALLS.i386.has(name)) expect(i386).toContain(name);
      if (SYSCALLS.aarch64.has(name)) expect(aarch64).toContain(name);
    }
  });

  test.each<[string, string, string]>([
    ["clone", "17", ALLOW],
    ["clone", "0x3d0f00", ALLOW],
    ["clone", "0x10000000", EPERM],
    ["clone", "0x20011", EPERM],
    ["clone", "0x140000000", EPERM],
    ["clone", "0x100000011", ALLOW],
    ["clone3", "0", ENOSYS],
    ["personality", "0", ALLOW],
    ["personality", "8", ALLOW],
    ["personality", "0x20000", ALLOW],
    ["personality", "0x20008", ALLOW],
    ["personality", "0xffffffff", ALLOW],
    ["personality", "0x0040000", EPERM],
    ["personality", "0x100000000", EPERM],
    ["socket", "0", ALLOW],
    ["socket", "1", ALLOW],
    ["socket", "10", ALLOW],
    ["socket", "12", EPERM],
    ["socket", "16", ALLOW],
    ["socket", "17", ALLOW],
    ["socket", "37", EPERM],
    ["socket", "38", EPERM],
    ["socket", "39", ALLOW],
    ["socket", "40", EPERM],
    ["socket", "41", ALLOW],
    ["socket", "45", ALLOW],
    ["socket", "46", EPERM],
    ["socket", "0x100000026", EPERM],
    ["socket", "0xffffffff00000028", EPERM],
    ["socketpair", "38", ALLOW],
  ])("%s %s", (name, value, expected) => {
    expect(evaluate(defaultFilter(), "x86_64", name, BigInt(value))).toBe(expected);
    expect(evaluate(defaultFilter("aarch64"), "aarch64", name, BigInt(value))).toBe(expected);
    if (SYSCALLS.i386.has(name)) expect(evaluate(defaultFilter(), "i386", name, BigInt(value))).toBe(expected);
  });

  test("a foreign architecture dies; x32 and numbers from the future do not exist", () => {
    expect(run(defaultFilter("aarch64"), { abi: "arm", number: 1 }).action).toBe("kill process");
    expect(run(defaultFilter("aarch64"), { abi: "x86_64", number: 0 }).action).toBe("kill process");
    expect(run(defaultFilter(), { abi: "aarch64", number: 63 }).action).toBe("kill process");
    for (const number of [470, 999, 0x40000000, 0x40000001, 0x40000200, 0xffffffff]) {
      expect(run(defaultFilter(), { abi: "x86_64", number }).action).toBe(ENOSYS);
    }
    expect(run(defaultFilter(), { abi: "i386", number: 470 }).action).toBe(ENOSYS);
    expect(run(defaultFilter(), { abi: "x86_64", number: 400 }).action).toBe(EPERM);
  });

  test.each<[CapabilityName, string]>([
    ["CAP_SYS_ADMIN", "clone3"],
    ["CAP_SYS_ADMIN", "mount"],
    ["CAP_SYS_ADMIN", "unshare"],
    ["CAP_SYS_BOOT", "reboot"],
    ["CAP_SYS_MODULE", "init_module"],
    ["CAP_SYS_PTRACE", "kcmp"],
    ["CAP_SYS_TIME", "clock_settime"],
    ["CAP_SYS_NICE", "mbind"],
    ["CAP_SYSLOG", "syslog"],
    ["CAP_BPF", "bpf"],
    ["CAP_PERFMON", "perf_event_open"],
    ["CAP_DAC_READ_SEARCH", "open_by_handle_at"],
  ])("%s unlocks %s", (capability, name) => {
    expect(evaluate(defaultFilter(), "x86_64", name)).not.toBe(ALLOW);
    expect(evaluate(defaultFilter("x86_64", [capability]), "x86_64", name)).toBe(ALLOW);
  });

  test("even all capabilities do not unlock io_uring, keyrings, AF_ALG or swapping", () => {
    const program = defaultFilter("x86_64", CAPABILITY_NAMES);
    for (const name of ["io_uring_setup", "add_key", "keyctl", "swapon", "userfaultfd", "pivot_root", "kexec_load"]) {
      expect(evaluate(program, "x86_64", name)).toBe(EPERM);
    }
    expect(evaluate(program, "x86_64", "socket", 38n)).toBe(EPERM);
    expect(evaluate(program, "x86_64", "clone", 0x10000000n)).toBe(ALLOW);
  });

  test("a call costs few instructions, a kind of container one compilation", () => {
    const program = defaultFilter();
    const steps = [...SYSCALLS.x86_64.values()].map((number) => run(program, { abi: "x86_64", number }).steps);
    expect(Math.max(...steps)).toBeLessThanOrEqual(20);
    expect(run(program, { abi: "x86_64", number: 0 }).steps).toBeLessThanOrEqual(11);
    expect(program.length / 8).toBeLessThan(350);
    expect(defaultFilter()).toBe(program);
  });
});

describe("profiles of others", () => {
  const allowed = (syscalls: OciSeccomp["syscalls"], defaultAction = "SCMP_ACT_ERRNO"): OciSeccomp => ({
    defaultAction,
    ...(syscalls && { syscalls }),
  });

  test("the first rule that matches decides, also one that acts like the default", () => {
    const program = compileSeccomp(
      allowed([
        { names: ["read"], action: "SCMP_ACT_ERRNO", args: [{ index: 0, value: 7, op: "SCMP_CMP_EQ" }] },
        { names: ["read", "no_such_call"], action: "SCMP_ACT_ALLOW" },
        { names: ["write"], action: "SCMP_ACT_ERRNO", errnoRet: 5 },
        { names: ["write"], action: "SCMP_ACT_ALLOW" },
      ]),
      "x86_64",
    );
    expect(evaluate(program, "x86_64", "read", 7n)).toBe(EPERM);
    expect(evaluate(program, "x86_64", "read", 8n)).toBe(ALLOW);
    expect(evaluate(program, "x86_64", "write")).toBe("errno 5");
    expect(run(program, { abi: "i386", number: 3 }).action).toBe("kill process");
  });

  test("two comparisons of one argument are alternatives, of two arguments both must hold", () => {
    const eq = (index: number, value: number): OciSeccompArgument => ({ index, value, op: "SCMP_CMP_EQ" });
    const program = compileSeccomp(
      allowed([
        { names: ["ioctl"], action: "SCMP_ACT_ALLOW", args: [eq(1, 5), eq(1, 6)] },
        { names: ["fcntl"], action: "SCMP_ACT_ALLOW", args: [eq(0, 5), eq(1, 6)] },
      ]),
      "x86_64",
    );
    expect(evaluate(program, "x86_64", "ioctl", 0n, 5n)).toBe(ALLOW);
    expect(evaluate(program, "x86_64", "ioctl", 0n, 6n)).toBe(ALLOW);
    expect(evaluate(program, "x86_64", "ioctl", 0n, 7n)).toBe(EPERM);
    expect(evaluate(program, "x86_64", "fcntl", 5n, 6n)).toBe(ALLOW);
    expect(evaluate(program, "x86_64", "fcntl", 5n, 5n)).toBe(EPERM);
  });

  test("a deny-list leaves unknown calls alone, but not x32, which would walk around it", () => {
    const program = compileSeccomp(
      allowed([{ names: ["mount"], action: "SCMP_ACT_ERRNO" }], "SCMP_ACT_ALLOW"),
      "x86_64",
    );
    expect(evaluate(program, "x86_64", "mount")).toBe(EPERM);
    expect(run(program, { abi: "x86_64", number: 1000 }).action).toBe(ALLOW);
    expect(run(program, { abi: "x86_64", number: 0x40000000 + 165 }).action).toBe(ENOSYS);
  });

  test("jumps reach further than 255 instructions", () => {
    const names = [...SYSCALLS.x86_64.keys()];
    const rules = names.flatMap((name, at) => [
      {
        names: [name],
        action: "SCMP_ACT_ERRNO",
        errnoRet: at % 4000,
        args: [{ index: at % 6, value: at * 2 ** 33 + 3, op: "SCMP_CMP_GE" as const }],
      },
    ]);
    const program = compileSeccomp(allowed(rules, "SCMP_ACT_ALLOW"), "x86_64");
    expect(program.length / 8).toBeGreaterThan(1500);
    for (const [at, name] of names.entries()) {
      const limit = BigInt(at) * 2n ** 33n + 3n;
      const args = (value: bigint) => Array.from({ length: 6 }, (_, index) => (index === at % 6 ? value : 0n));
      expect(evaluate(program, "x86_64", name, ...args(limit))).toBe(`errno ${at % 4000}`);
      expect(evaluate(program, "x86_64", name, ...args(limit - 1n))).toBe(ALLOW);
    }
  });

  test("every bad field is named at once", () => {
    const bad = {
      defaultAction: "SCMP_ACT_NOTIFY",
      syscalls: [
        { names: ["read"], action: "allow" },
        { names: ["read"], action: "SCMP_ACT_ERRNO", errnoRet: 5000 },
        {
          names: ["read"],
          action: "SCMP_ACT_ALLOW",
          args: [
            { index: 6, value: -1, op: "SCMP_CMP_EQ" as const },
            { index: 0, value: 2 ** 64, op: "SCMP_CMP_LT" as const },
          ],
        },
      ],
    };
    expect(() => compileSeccomp(bad, "x86_64")).toThrowErrorMatchingInlineSnapshot(
      `[SwarmError: seccomp.defaultAction: unknown or unsupported action SCMP_ACT_NOTIFY; seccomp.syscalls[0].action: unknown or unsupported action allow; seccomp.syscalls[1].action: errno 5000 is not within 0 to 4095; seccomp.syscalls[2].args[0]: index is not within 0 to 5; seccomp.syscalls[2].args[0]: value -1 is not within 0 to 2^64-1; seccomp.syscalls[2].args[1]: value 18446744073709552000 is not within 0 to 2^64-1]`,
    );
  });

  test("comparisons agree with arithmetic on 64 bits", () => {
    const operators = {
      SCMP_CMP_NE: (a: bigint, v: bigint) => a !== v,
      SCMP_CMP_LT: (a: bigint, v: bigint) => a < v,
      SCMP_CMP_LE: (a: bigint, v: bigint) => a <= v,
      SCMP_CMP_EQ: (a: bigint, v: bigint) => a === v,
      SCMP_CMP_GE: (a: bigint, v: bigint) => a >= v,
      SCMP_CMP_GT: (a: bigint, v: bigint) => a > v,
      SCMP_CMP_MASKED_EQ: (a: bigint, v: bigint, w: bigint) => (a & v) === w,
    };
    const small = fc.constantFrom(0, 1, 2, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 33, 2 ** 53 - 1);
    const argument = fc.record({
      index: fc.nat(5),
      value: small,
      valueTwo: small,
      op: fc.constantFrom<OciSeccompArgument["op"][]>(...(Object.keys(operators) as OciSeccompArgument["op"][])),
    });
    const rules = fc.array(fc.uniqueArray(argument, { minLength: 1, maxLength: 3, selector: (arg) => arg.index }), {
      minLength: 1,
      maxLength: 6,
    });
    const values = fc.array(fc.oneof(small.map(BigInt), fc.bigInt(0n, 2n ** 64n - 1n)), { minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(rules, values, (lists, args) => {
        const syscalls = lists.map((list, at) => ({
          names: ["read"],
          action: "SCMP_ACT_ERRNO",
          errnoRet: at >> 1,
          args: list,
        }));
        const program = compileSeccomp(allowed(syscalls, "SCMP_ACT_ALLOW"), "x86_64");
        const holds = (arg: OciSeccompArgument) =>
          operators[arg.op](args[arg.index] ?? 0n, BigInt(arg.value), BigInt(arg.valueTwo ?? 0));
        const first = lists.findIndex((list) => list.every(holds));
        expect(evaluate(program, "x86_64", "read", ...args)).toBe(first < 0 ? ALLOW : `errno ${first >> 1}`);
      }),
    );
  });
});

const PROBE = `
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static struct sock_filter filter[4096];
static void probe(const char *name, long result) { printf("%s %d\\n", name, result < 0 ? errno : 0); }
int main(int argc, char **argv) {
  int fd = open(argv[argc - 1], O_RDONLY);
  long size = read(fd, filter, sizeof filter);
  struct sock_fprog program = {.len = size / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) return perror("seccomp"), 1;
  probe("getpid", syscall(SYS_getpid));
  probe("socket-inet", syscall(SYS_socket, 2, 1, 0));
  probe("socket-alg", syscall(SYS_socket, 38, 5, 0));
  probe("socket-vsock", syscall(SYS_socket, 40, 1, 0));
  probe("socket-alg-high", syscall(SYS_socket, 0x100000026, 5, 0));
  probe("unshare", syscall(SYS_unshare, 0x10000000));
  probe("clone3", syscall(SYS_clone3, 0, 0));
  probe("io_uring", syscall(425, 1, 0));
  probe("future", syscall(9999));
#ifdef __x86_64__
  probe("x32", syscall(0x40000000 + 39));
#endif
  return 0;
}
`;

rootTest("the kernel loads the default filter and obeys it", async () => {
  const architecture = architectureOf(process.arch);
  if (architecture === undefined) throw new Error(`no filter for ${process.arch}`);
  const directory = await mkdtemp(join(tmpdir(), "seccomp-"));
  try {
    const path = (name: string) => join(directory, name);
    await writeFile(path("filter"), defaultFilter(architecture));
    await writeFile(path("probe.c"), PROBE);
    await promisify(execFile)("gcc", ["-O1", "-o", path("probe"), path("probe.c")]);
    const { stdout } = await promisify(execFile)(path("probe"), [path("filter")]);
    expect(
      Object.fromEntries(
        stdout
          .trim()
          .split("\n")
          .map((line) => line.split(" ")),
      ),
    ).toEqual({
      getpid: "0",
      "socket-inet": "0",
      "socket-alg": "1",
      "socket-vsock": "1",
      "socket-alg-high": "1",
      unshare: "1",
      clone3: "38",
      io_uring: "1",
      future: "38",
      ...(architecture === "x86_64" && { x32: "38" }),
    });
  } finally {
    await rm(directory, { recursive: true });
  }
});
