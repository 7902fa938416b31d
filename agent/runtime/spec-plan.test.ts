/** Goal: a spec gives exactly the operations it means, and every bad field is named. Method: plans as values, no root. */
import { describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { encodeFrame, FrameReader, Writer } from "./encode.ts";
import type { OciSpec } from "./oci.ts";
import type { HostPath } from "./op.ts";
import { describeOp, encodePlan } from "./plan.ts";
import { planContainer, planExec } from "./spec-plan.ts";
import { testProcess, testSpec } from "./test-root.ts";

const path = (text: string) => text as HostPath;

function plan(spec: OciSpec) {
  return planContainer({
    spec,
    stateDirectory: path("/run/c"),
    rootDirectory: path("/run/c/root"),
    root: {
      kind: "overlay",
      lowers: [path("/layers/b"), path("/layers/a")],
      writable: { upper: path("/data/upper"), work: path("/data/work") },
    },
    log: { kind: "none" },
    seccomp: { filter: new Uint8Array(8) },
  });
}

describe("planContainer", () => {
  test("the order of operations", () => {
    const { container, namespaces } = plan(testSpec(testProcess(["/app"])));
    expect(namespaces).toEqual(["mount", "network", "uts", "pid", "ipc"]);
    expect(container.map(describeOp)).toMatchInlineSnapshot(`
      [
        "new keyring",
        "unshare",
        "set oom score",
        "set hostname",
        "set propagation",
        "mount overlay of 2 layers",
        "mount proc at /proc",
        "mount tmpfs at /dev",
        "mount devpts at /dev/pts",
        "mount tmpfs at /dev/shm",
        "mount mqueue at /dev/mqueue",
        "mount sysfs at /sys",
        "make device /dev/null",
        "make device /dev/zero",
        "make device /dev/full",
        "make device /dev/random",
        "make device /dev/urandom",
        "make device /dev/tty",
        "make symlink /dev/fd",
        "make symlink /dev/stdin",
        "make symlink /dev/stdout",
        "make symlink /dev/stderr",
        "make symlink /dev/ptmx",
        "readonly paths /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger",
        "mask paths /proc/acpi /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/nonesuch",
        "pivot root",
        "set working directory /",
        "become uid 0 gid 0",
        "no new privileges",
        "await start",
        "load seccomp",
        "exec "/app"",
      ]
    `);
  });

  test("a terminal is opened in the new root, before the user's rights are all there is", () => {
    const terminal = { terminal: true, consoleSize: { height: 24, width: 80 } };
    const { container, openStdin } = plan(testSpec(testProcess(["/app"], terminal)));
    expect(openStdin).toBe(true);
    const from = container.findIndex(({ op }) => op === "pivot-root");
    expect(container.slice(from, from + 4)).toMatchObject([
      { op: "pivot-root" },
      { op: "open-terminal", rows: 24, columns: 80, console: true },
      { op: "set-working-directory" },
      { op: "set-credentials" },
    ]);
    // A command run inside has none because of that.
    expect(planExec(testProcess(["/app"], terminal)).some(({ op }) => op === "open-terminal")).toBe(false);
    const window = { rows: 1, columns: 2 };
    expect(planExec(testProcess(["/app"]), undefined, window)).toContainEqual({
      op: "open-terminal",
      ...window,
      console: false,
    });
  });

  test("standard input is open where it is asked for", () => {
    const spec = testSpec(testProcess(["/app"]));
    const bytes = (openStdin: boolean) => {
      const made = { ...plan(spec), openStdin };
      return encodeFrame(1, 1, (writer) => encodePlan(made, writer));
    };
    expect(plan(spec).openStdin).toBe(false);
    expect(bytes(true)).not.toEqual(bytes(false));
  });

  test("without no_new_privs the filter is loaded while the capability for it is still there", () => {
    const ops = plan(testSpec(testProcess(["/app"], { noNewPrivileges: false }))).container.map(({ op }) => op);
    expect(ops.slice(-4)).toEqual(["await-start", "load-seccomp", "set-credentials", "exec"]);
  });

  test("every bad field is named at once", () => {
    const spec = testSpec(
      testProcess([], {
        cwd: "relative",
        capabilities: { bounding: ["CAP_NONESUCH"] },
        rlimits: [{ type: "RLIMIT_X", soft: 1, hard: 1 }],
        user: { uid: -1, gid: 0 },
      }),
      {
        mounts: [{ destination: "/proc/sys", type: "tmpfs" }],
        linux: {
          namespaces: [{ type: "user" }, { type: "pid", path: "/proc/1/ns/pid" }],
          sysctl: { "kernel.panic": "1", "net.ipv4.ip_forward": "1" },
        },
      },
    );
    expect(() => plan(spec)).toThrow(SwarmError);
    let message = "";
    try {
      plan(spec);
    } catch (reason) {
      message = String(reason);
    }
    expect(message.replace("SwarmError: ", "").split("; ")).toMatchInlineSnapshot(`
      [
        "linux.namespaces[0]: user namespaces are not supported",
        "linux.namespaces[1]: cannot join a pid namespace",
        "linux.namespaces: a mount namespace is needed",
        "process.user: -1 is not an id from 0 to 2147483647",
        "process.capabilities.bounding: unknown capability "CAP_NONESUCH"",
        "linux.sysctl[kernel.panic]: not in a namespace of the container",
        "linux.sysctl[net.ipv4.ip_forward]: not in a namespace of the container",
        "hostname: needs a uts namespace",
        "mounts[0]: only proc may be mounted at /proc",
        "process.rlimits[0]: unknown limit "RLIMIT_X"",
        "process.cwd: "relative" is not an absolute path",
        "process.args: no program",
      ]
    `);
  });

  test("cgroup mounts are read-only whatever the spec says", () => {
    const spec = testSpec(testProcess(["/app"]), {
      mounts: [{ destination: "/sys/fs/cgroup", type: "cgroup", options: ["rw"] }],
    });
    const input = { spec, stateDirectory: path("/s"), rootDirectory: path("/r"), log: { kind: "none" } } as const;
    const root = { kind: "directory", path: path("/rootfs") } as const;
    const v2 = planContainer({
      ...input,
      root,
      cgroup: { hostOps: [], membership: { version: 2, directory: path("/c") } },
    });
    expect(v2.container.find(({ op }) => op === "mount-filesystem")).toMatchObject({
      type: "cgroup2",
      attributes: ["ro"],
    });
    const membership = { version: 1, directories: [path("/c")] } as const;
    const v1 = planContainer({
      ...input,
      root,
      cgroup: { hostOps: [], membership },
      cgroupControllers: ["memory", "cpu,cpuacct"],
    });
    expect(
      v1.container.filter(({ op }) => op === "mount-filesystem" || op === "readonly-paths").slice(0, 4),
    ).toMatchObject([
      { type: "tmpfs", target: "/sys/fs/cgroup" },
      { type: "cgroup", target: "/sys/fs/cgroup/memory", options: ["memory"], attributes: ["ro"] },
      { type: "cgroup", target: "/sys/fs/cgroup/cpu,cpuacct", options: ["cpu", "cpuacct"], attributes: ["ro"] },
      { op: "readonly-paths", paths: ["/sys/fs/cgroup"] },
    ]);
  });

  test("a command run inside takes the same road to exec", () => {
    const ops = planExec(testProcess(["check"], { oomScoreAdj: 5 }), { filter: new Uint8Array(8) });
    expect(ops.map(({ op }) => op)).toMatchInlineSnapshot(`
      [
        "new-keyring",
        "set-oom-score",
        "join-container",
        "set-working-directory",
        "set-credentials",
        "no-new-privileges",
        "load-seccomp",
        "exec",
      ]
    `);
  });
});

describe("the binary", () => {
  test("strings are length-prefixed and end in NUL; one with a NUL inside is refused", () => {
    expect(
      new Writer()
        .string("é")
        .u64(2n ** 64n - 1n)
        .finish()
        .toString("hex"),
    ).toBe("02000000c3a900ffffffffffffffff");
    expect(() => new Writer().string("a\0b")).toThrow("NUL byte");
  });

  test("frames survive any cutting of the stream", () => {
    const sent = [
      encodeFrame(7, 1, (writer) => writer.string("x")),
      encodeFrame(8, 2),
      encodeFrame(9, 3, (writer) => encodePlan(plan(testSpec(testProcess(["/app"]))), writer)),
    ];
    const stream = Buffer.concat(sent);
    for (const size of [1, 3, 12, 13, 4096, stream.length]) {
      const reader = new FrameReader();
      const frames = [];
      for (let at = 0; at < stream.length; at += size) frames.push(...reader.push(stream.subarray(at, at + size)));
      expect(frames.map(({ id, kind, payload }) => [id, kind, payload.length])).toEqual(
        sent.map((frame, index) => [index + 7, index + 1, frame.length - 12]),
      );
    }
    expect(() => [...new FrameReader().push(Buffer.alloc(64, 0xff))]).toThrow("frame of");
  });
});
