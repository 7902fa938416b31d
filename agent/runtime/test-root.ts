/**
 * For tests that run real containers: a root made of busybox alone, the shim, and a container from a few overrides.
 * Everything lies in one temporary directory that disposal removes.
 */
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { capabilityMask, DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { OciMount, OciProcess, OciSpec } from "./oci.ts";
import type { HostPath } from "./op.ts";
import type { Plan } from "./plan.ts";
import { Runner } from "./runner.ts";
import { type PlanInput, planContainer } from "./spec-plan.ts";
import { type Ended, Supervisor } from "./supervisor.ts";

const SHIM_DIRECTORY = new URL("../shim/", import.meta.url).pathname;
const APPLETS = "sh true false cat echo ls sleep kill id hostname mkdir touch seq grep head yes ln rm chmod env".split(
  " ",
);

/** A signal that never aborts: a test's own time-out bounds it. */
export const NEVER = new AbortController().signal;

/** Builds the shim when its sources are newer, and says where it is. */
export function buildShim(): string {
  execFileSync("make", ["-s", "-C", SHIM_DIRECTORY], { stdio: ["ignore", "ignore", "inherit"] });
  return join(SHIM_DIRECTORY, "build/swarm-shim");
}

/** A process as the tests mean it unless they say otherwise: root with the default capabilities. */
export function testProcess(args: readonly string[], overrides: Partial<OciProcess> = {}): OciProcess {
  const capabilities = [...DEFAULT_CAPABILITIES];
  return {
    user: { uid: 0, gid: 0 },
    args,
    env: ["PATH=/bin"],
    cwd: "/",
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    noNewPrivileges: true,
    ...overrides,
  };
}

/** The mask that `CapEff` of such a process shows. */
export const TEST_CAPABILITY_MASK = capabilityMask(DEFAULT_CAPABILITIES);

/** A spec with all namespaces, the usual mounts, masked and read-only paths. */
export function testSpec(process: OciProcess, overrides: Partial<OciSpec> = {}): OciSpec {
  const safe = ["nosuid", "noexec", "nodev"];
  return {
    ociVersion: "1.2.0",
    process,
    root: { path: "rootfs" },
    hostname: "box",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: safe },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      { destination: "/dev/shm", type: "tmpfs", source: "shm", options: [...safe, "mode=1777", "size=64m"] },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: safe },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: [...safe, "ro"] },
    ],
    linux: {
      namespaces: (["mount", "network", "uts", "pid", "ipc", "cgroup"] as const).map((type) => ({ type })),
      maskedPaths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/nonesuch"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
    ...overrides,
  };
}

/** What may differ from one container of a test to the next. */
export type ContainerOverrides = Partial<Omit<PlanInput, "spec" | "stateDirectory" | "rootDirectory">> & {
  readonly spec?: Partial<OciSpec>;
  readonly process?: Partial<OciProcess>;
  /** Layers over busybox, uppermost first. */
  readonly lowers?: readonly HostPath[];
  /** Mounts after the usual ones. */
  readonly mounts?: readonly OciMount[];
};

/** A test's containers and what they are made of. */
export class TestContainers implements AsyncDisposable {
  readonly directory: HostPath;
  /** The busybox layer. */
  readonly layer: HostPath;
  readonly runner: Runner;
  #count = 0;

  private constructor(directory: string, runner: Runner) {
    this.directory = directory as HostPath;
    this.layer = join(directory, "layer") as HostPath;
    this.runner = runner;
  }

  static async create(): Promise<TestContainers> {
    const directory = await mkdtemp(join(tmpdir(), "swarm-runtime-"));
    const containers = new TestContainers(directory, new Runner(buildShim()));
    await mkdir(join(containers.layer, "bin"), { recursive: true });
    await copyFile("/bin/busybox", join(containers.layer, "bin/busybox"));
    for (const applet of APPLETS) await symlink("busybox", join(containers.layer, "bin", applet));
    return containers;
  }

  /** A plan with directories of its own; nothing runs yet. */
  async plan(args: readonly string[], overrides: ContainerOverrides = {}): Promise<Plan> {
    const directory = join(this.directory, `container-${++this.#count}`);
    const path = (name: string) => join(directory, name) as HostPath;
    for (const name of ["state", "root", "work"]) await mkdir(path(name), { recursive: true, mode: 0o700 });
    // The root directory's mode is the upper directory's.
    await mkdir(path("upper"), { mode: 0o755 });
    const { spec: changes, process, lowers = [], mounts = [], ...input } = overrides;
    const spec = testSpec(testProcess(args, process), changes);
    return planContainer({
      stateDirectory: path("state"),
      rootDirectory: path("root"),
      root: {
        kind: "overlay",
        lowers: [...lowers, this.layer],
        writable: { upper: path("upper"), work: path("work") },
      },
      log: { kind: "file", path: path("state/log"), maxBytes: 0, maxFiles: 1 },
      spec: { ...spec, mounts: [...(spec.mounts ?? []), ...mounts] },
      ...input,
    });
  }

  /** Creates and starts a plan; the caller disposes of the connection. */
  async start(plan: Plan): Promise<Supervisor> {
    await this.runner.create(plan, NEVER);
    const supervisor = await Supervisor.connect(plan.stateDirectory, NEVER);
    await supervisor.start(plan.container, NEVER);
    return supervisor;
  }

  /** Runs a command to its end and gives what it wrote, without the log's prefixes. */
  async run(args: readonly string[], overrides: ContainerOverrides = {}): Promise<{ ended: Ended; output: string }> {
    const plan = await this.plan(args, overrides);
    await using supervisor = await this.start(plan);
    const ended = await supervisor.ended;
    return { ended, output: (await readLog(plan)).map((line) => line.replace(/^\S+ std\w+ [FP] /, "")).join("\n") };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runner[Symbol.asyncDispose]();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** The lines of a container's log file. */
export async function readLog(plan: Plan, suffix = ""): Promise<readonly string[]> {
  if (plan.log.kind === "none") return [];
  return (await readFile(plan.log.path + suffix, "utf8")).split("\n").slice(0, -1);
}
