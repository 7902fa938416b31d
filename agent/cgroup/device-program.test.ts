// Goal: the v2 program decides as the kernel's v1 controller would. Method: an interpreter of the eBPF instructions used
// runs it against a plain model; where the host has a cgroup v2 tree, the kernel loads and obeys it.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rootTest } from "../../test/privileges.ts";
import type { OciDeviceCgroup } from "../runtime/oci.ts";
import { deviceProgram } from "./device-program.ts";
import { DEFAULT_DEVICE_RULES, devicePolicy } from "./devices.ts";

interface Request {
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
  /** Some of `rwm`. */
  readonly access: string;
}

const TYPES = { b: 1, c: 2 };
const BITS: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };

function bitsOf(access: string): number {
  return [...access].reduce((sum, letter) => sum | (BITS[letter] ?? 0), 0);
}

function permits(program: Uint8Array, request: Request): boolean {
  const view = new DataView(program.buffer);
  const context = [(bitsOf(request.access) << 16) | TYPES[request.type], request.major, request.minor];
  const r = Array.from({ length: 11 }, () => 0);
  for (let pc = 0; pc * 8 < program.length; pc++) {
    const code = view.getUint8(pc * 8);
    const registers = view.getUint8(pc * 8 + 1);
    const [to, from] = [registers & 15, registers >> 4];
    const offset = view.getInt16(pc * 8 + 2, true);
    const constant = view.getInt32(pc * 8 + 4, true);
    const value = r[to] ?? 0;
    if (code === 0x61) r[to] = context[offset / 4] ?? 0;
    else if (code === 0xbf) r[to] = r[from] ?? 0;
    else if (code === 0xb7) r[to] = constant;
    else if (code === 0x57) r[to] = value & constant;
    else if (code === 0x77) r[to] = value >>> constant;
    else if (code === 0x15) pc += value === constant ? offset : 0;
    else if (code === 0x55) pc += value !== constant ? offset : 0;
    else if (code === 0x95) return r[0] !== 0;
    else throw new Error(`unknown instruction ${code} at ${pc}`);
  }
  throw new Error("the program ran off its end");
}

describe("the default rules", () => {
  test.each<[string, Request, boolean]>([
    ["null", { type: "c", major: 1, minor: 3, access: "rw" }, true],
    ["null made anew", { type: "c", major: 1, minor: 3, access: "m" }, true],
    ["a block device of the same number", { type: "b", major: 1, minor: 3, access: "r" }, false],
    ["mem", { type: "c", major: 1, minor: 1, access: "r" }, false],
    ["kmsg", { type: "c", major: 1, minor: 11, access: "w" }, false],
    ["pts/7", { type: "c", major: 136, minor: 7, access: "rw" }, true],
    ["ptmx", { type: "c", major: 5, minor: 2, access: "rw" }, true],
    ["tun", { type: "c", major: 10, minor: 200, access: "rw" }, false],
    ["fuse", { type: "c", major: 10, minor: 229, access: "rw" }, false],
    ["making a disk node", { type: "b", major: 8, minor: 0, access: "m" }, false],
  ])("%s", (_, request, expected) => {
    expect(permits(deviceProgram(devicePolicy(DEFAULT_DEVICE_RULES)), request)).toBe(expected);
  });
});

test("no rules permit everything, one deny-all nothing", () => {
  const request: Request = { type: "b", major: 8, minor: 1, access: "rwm" };
  expect(permits(deviceProgram(devicePolicy([])), request)).toBe(true);
  expect(permits(deviceProgram(devicePolicy([{ allow: false }])), request)).toBe(false);
});

/** devices.rst, played with plain objects: the reference. */
function model(rules: readonly OciDeviceCgroup[], request: Request): boolean {
  let allow = true;
  let list: { type: string; major: number | undefined; minor: number | undefined; bits: Set<string> }[] = [];
  for (const rule of rules) {
    if (rule.type === "a") {
      allow = rule.allow;
      list = [];
      continue;
    }
    let entry = list.find((e) => e.type === rule.type && e.major === rule.major && e.minor === rule.minor);
    if (entry === undefined) {
      entry = { type: rule.type ?? "a", major: rule.major, minor: rule.minor, bits: new Set() };
      list.push(entry);
    }
    for (const bit of rule.access ?? "rwm") rule.allow === allow ? entry.bits.delete(bit) : entry.bits.add(bit);
  }
  const covers = (bits: Set<string>) => [...request.access][allow ? "some" : "every"]((bit) => bits.has(bit));
  const hit = list.some(
    (e) =>
      e.type === request.type &&
      (e.major ?? request.major) === request.major &&
      (e.minor ?? request.minor) === request.minor &&
      covers(e.bits),
  );
  return hit ? !allow : allow;
}

test("program and model agree on any rules and requests", () => {
  const access = fc.constantFrom("r", "w", "m", "rw", "rm", "wm", "rwm");
  const number = fc.nat(2);
  const device = { type: fc.constantFrom("b" as const, "c" as const), access };
  const rule = fc.oneof(
    fc.record(
      { allow: fc.boolean(), ...device, major: number, minor: number },
      { requiredKeys: ["allow", "type", "access"] },
    ),
    fc.record({ allow: fc.boolean(), type: fc.constant("a" as const) }),
  );
  const request = fc.record({ ...device, major: number, minor: number });
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 8 }), request, (rules, asked) => {
      expect(permits(deviceProgram(devicePolicy(rules)), asked)).toBe(model(rules, asked));
    }),
  );
});

const LOADER = `
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static char program[65536], log_text[65536];
static void try_open(const char *path) { int fd = open(path, O_RDONLY | O_NONBLOCK); printf("%s %d\\n", path, fd < 0 ? errno : 0); }
int main(int argc, char **argv) {
  if (mkdir(argv[2], 0755)) return perror("mkdir"), 1;
  int file = open(argv[1], O_RDONLY), cgroup = open(argv[2], O_RDONLY | O_DIRECTORY);
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attr.insn_cnt = read(file, program, sizeof program) / 8;
  attr.insns = (unsigned long)program;
  attr.license = (unsigned long)"Apache-2.0";
  attr.log_level = 1;
  attr.log_buf = (unsigned long)log_text;
  attr.log_size = sizeof log_text;
  int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
  if (loaded < 0) return perror("load"), fputs(log_text, stderr), rmdir(argv[2]), 1;
  memset(&attr, 0, sizeof attr);
  attr.target_fd = cgroup;
  attr.attach_bpf_fd = loaded;
  attr.attach_type = BPF_CGROUP_DEVICE;
  attr.attach_flags = BPF_F_ALLOW_MULTI;
  if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr)) return perror("attach"), rmdir(argv[2]), 1;
  fflush(stdout);
  if (fork() == 0) {
    int procs = openat(cgroup, "cgroup.procs", O_WRONLY);
    if (write(procs, "0", 1) != 1) _exit(1);
    try_open("/dev/null"), try_open("/dev/urandom"), try_open("/dev/ptmx"), try_open("/dev/kmsg");
    printf("mknod %d\\n", mknod(argv[3], S_IFBLK | 0600, 0x800) ? errno : 0);
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  return rmdir(argv[2]) ? perror("rmdir"), 1 : 0;
}
`;

rootTest("the kernel loads the default program and obeys it", async () => {
  const { stdout: mounts } = await promisify(execFile)("findmnt", ["-n", "-o", "TARGET", "-t", "cgroup2"]);
  const [mount] = mounts.split("\n");
  expect(mount, "a cgroup2 mount").toBeTruthy();
  const directory = await mkdtemp(join(tmpdir(), "devices-"));
  try {
    const path = (name: string) => join(directory, name);
    await writeFile(path("program"), deviceProgram(devicePolicy(DEFAULT_DEVICE_RULES)));
    await writeFile(path("loader.c"), LOADER);
    await promisify(execFile)("gcc", ["-O1", "-o", path("loader"), path("loader.c")]);
    const cgroup = `${mount}/device-test-${process.pid}`;
    const { stdout } = await promisify(execFile)(path("loader"), [path("program"), cgroup, path("node")]);
    expect(
      Object.fromEntries(
        stdout
          .trim()
          .split("\n")
          .map((line) => line.split(" ")),
      ),
    ).toEqual({
      "/dev/null": "0",
      "/dev/urandom": "0",
      "/dev/ptmx": "0",
      "/dev/kmsg": "1",
      mknod: "1",
    });
  } finally {
    await rm(directory, { recursive: true });
  }
});
