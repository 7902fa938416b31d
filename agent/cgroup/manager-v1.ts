/** Cgroups v1: a directory per container in each controller's own tree. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../../common/base/clock.ts";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import type { OciResources } from "../runtime/oci.ts";
import type { HostOp, HostPath } from "../runtime/op.ts";
import { type BlockBytes, blockBytesV1 } from "./blkio.ts";
import { cpuKnobsV1 } from "./cpu.ts";
import { cpusetKnobs } from "./cpuset.ts";
import { deviceKnobsV1 } from "./devices.ts";
import {
  containerDirectory,
  containerIds,
  processesOf,
  readCounter,
  readKnob,
  readNumber,
  readTable,
  removeDirectories,
  removeEmptyLevels,
  signalProcesses,
  writeKnob,
} from "./directory.ts";
import type { CgroupHierarchy } from "./hierarchy.ts";
import type { Knob } from "./knob.ts";
import type { CgroupManager, CgroupPlan, CgroupStats } from "./manager.ts";
import { memoryKnobsV1 } from "./memory.ts";
import { pidsKnobs } from "./pids.ts";

/** Every container has these; cpuset only when it is pinned, since an empty cpuset admits no process. */
const CONTROLLERS = ["memory", "cpu", "cpuacct", "pids", "devices", "freezer"] as const;
type Controller = (typeof CONTROLLERS)[number] | "blkio" | "cpuset";

/** How often `kill` looks whether the freezer has stopped every process before it signals them all the same. */
const FREEZE_CHECKS_MAX = 20;
const FREEZE_CHECK_MS = 5;

/** See CgroupManager. */
export class CgroupsV1 implements CgroupManager {
  readonly version = 1;
  readonly #clock: Clock;
  readonly #mounts: ReadonlyMap<string, string>;
  readonly #parent: string;
  /** Those of every container on this host: blkio, which only counts here, where there is one. */
  readonly #controllers: readonly Controller[];

  constructor(clock: Clock, hierarchy: CgroupHierarchy & { readonly version: 1 }, parent: string) {
    this.#clock = clock;
    this.#mounts = hierarchy.mounts;
    this.#parent = parent;
    this.#controllers = hierarchy.mounts.has("blkio") ? [...CONTROLLERS, "blkio"] : CONTROLLERS;
  }

  get hierarchies(): readonly string[] {
    const together = (mount: string) => [...this.#mounts].filter(([, path]) => path === mount).map(([name]) => name);
    return this.#ownMounts().map((mount) => together(mount).join(","));
  }

  async ensureParent(): Promise<void> {
    try {
      for (const mount of this.#ownMounts()) await mkdir(`${mount}${this.#parent}`, { recursive: true });
      const cpuset = this.#mounts.get("cpuset");
      if (cpuset !== undefined) await this.#openCpuset(cpuset);
    } catch (reason) {
      const error = SwarmError.from(reason);
      throw new SwarmError("failed_precondition", `make cgroup ${this.#parent}: ${error.message}`, { cause: error });
    }
  }

  plan(id: string, resources: OciResources): CgroupPlan {
    if (resources.unified !== undefined && Object.keys(resources.unified).length > 0) {
      throw invalidFields([{ field: "linux.resources.unified", problem: "this host has cgroup v1" }]);
    }
    const knobs: Readonly<Record<Controller, readonly Knob[]>> = {
      memory: memoryKnobsV1(resources.memory ?? {}),
      cpu: cpuKnobsV1(resources.cpu ?? {}),
      cpuacct: [],
      pids: resources.pids === undefined ? [] : pidsKnobs(resources.pids),
      devices: deviceKnobsV1(resources.devices ?? []),
      freezer: [],
      blkio: [],
      cpuset: cpusetKnobs(resources.cpu ?? {}),
    };
    const pinned = knobs.cpuset.length > 0;
    if (pinned && !this.#mounts.has("cpuset")) {
      throw invalidFields([{ field: "linux.resources.cpu.cpus", problem: "this host has no cpuset controller" }]);
    }
    const controllers = pinned ? [...this.#controllers, "cpuset" as const] : this.#controllers;
    const directories = [...new Set(controllers.map((controller) => this.#directory(controller, id)))];
    const writes = controllers.flatMap((controller): HostOp[] =>
      knobs[controller].map(({ file, value, optional }) => ({
        op: "write-file",
        path: `${this.#directory(controller, id)}/${file}` as HostPath,
        data: value,
        ...(optional === true && { optional }),
      })),
    );
    return {
      hostOps: [...directories.map((path): HostOp => ({ op: "make-directory", path })), ...writes],
      membership: {
        version: 1,
        directories,
        freezer: this.#directory("freezer", id),
        memory: this.#directory("memory", id),
      },
    };
  }

  stats(id: string): CgroupStats | undefined {
    const memory = this.#directory("memory", id);
    const pids = this.#directory("pids", id);
    const cpuNanos = readNumber(this.#directory("cpuacct", id), "cpuacct.usage");
    const usage = readNumber(memory, "memory.usage_in_bytes");
    const count = readNumber(pids, "pids.current");
    if (cpuNanos === undefined || usage === undefined || count === undefined) return undefined;
    const droppable = readTable(memory, "memory.stat").get("total_inactive_file") ?? 0;
    return {
      cpuNanos,
      throttledNanos: readTable(this.#directory("cpu", id), "cpu.stat").get("throttled_time") ?? 0,
      memoryBytes: Math.max(0, usage - droppable),
      memoryLimitBytes: readNumber(memory, "memory.limit_in_bytes"),
      pids: count,
      pidsLimit: readNumber(pids, "pids.max"),
      block: this.#blockBytes(id),
    };
  }

  #blockBytes(id: string): BlockBytes | undefined {
    if (!this.#mounts.has("blkio")) return undefined;
    const text = readCounter(this.#directory("blkio", id), "blkio.throttle.io_service_bytes_recursive");
    return text === undefined ? undefined : blockBytesV1(text);
  }

  async oomKilled(id: string): Promise<boolean> {
    const table = readTable(this.#directory("memory", id), "memory.oom_control");
    return (table.get("oom_kill") ?? 0) > 0;
  }

  processes(id: string): Promise<readonly number[]> {
    return processesOf(this.#directory("freezer", id));
  }

  async kill(id: string, signal: NodeJS.Signals | number): Promise<void> {
    const freezer = this.#directory("freezer", id);
    const fatal = signal === "SIGKILL" || signal === 9;
    if (fatal) await this.#freeze(freezer);
    try {
      signalProcesses(await processesOf(freezer), signal);
    } finally {
      if (fatal) await writeKnob(freezer, "freezer.state", "THAWED");
    }
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    const directories = this.#allMounts().map((mount) => containerDirectory(mount, this.#parent, id));
    // A process may sit in one hierarchy only, when whoever started it died half way.
    const kill = async () => {
      await this.kill(id, "SIGKILL");
      for (const directory of directories) signalProcesses(await processesOf(directory), "SIGKILL");
    };
    await removeDirectories(this.#clock, directories, kill, signal);
  }

  async removeParent(): Promise<void> {
    for (const mount of this.#allMounts()) await removeEmptyLevels(mount, this.#parent);
  }

  async list(): Promise<readonly string[]> {
    const ids = await Promise.all(this.#ownMounts().map((mount) => containerIds(`${mount}${this.#parent}`)));
    return [...new Set(ids.flat())].sort();
  }

  /** Stops all processes so that none forks between being listed and being killed. */
  async #freeze(freezer: string): Promise<void> {
    if (!(await writeKnob(freezer, "freezer.state", "FROZEN"))) return;
    for (let check = 0; check < FREEZE_CHECKS_MAX; check++) {
      if ((await readKnob(freezer, "freezer.state"))?.trim() !== "FREEZING") return;
      await this.#clock.sleep(FREEZE_CHECK_MS);
    }
  }

  /** Gives each level the processors and memory nodes of the level above; children of the parent then inherit them. */
  async #openCpuset(mount: string): Promise<void> {
    await mkdir(`${mount}${this.#parent}`, { recursive: true });
    for (const level of ancestors(this.#parent)) {
      const directory = `${mount}${level}`;
      for (const file of ["cpuset.cpus", "cpuset.mems"]) {
        const present = (await readKnob(directory, file))?.trim() ?? "";
        const above = (await readKnob(dirname(directory), file))?.trim() ?? "";
        if (present === "" && above !== "") await writeKnob(directory, file, above);
      }
    }
    await writeKnob(`${mount}${this.#parent}`, "cgroup.clone_children", "1");
  }

  #ownMounts(): readonly string[] {
    return [...new Set(this.#controllers.map((controller) => this.#mount(controller)))];
  }

  /** Those of every container and the cpuset's, which only pinned ones use. */
  #allMounts(): readonly string[] {
    const cpuset = this.#mounts.get("cpuset");
    return [...new Set([...this.#ownMounts(), ...(cpuset === undefined ? [] : [cpuset])])];
  }

  #mount(controller: Controller): string {
    const mount = this.#mounts.get(controller);
    if (mount === undefined)
      throw new SwarmError("failed_precondition", `cgroup controller ${controller} is not mounted`);
    return mount;
  }

  #directory(controller: Controller, id: string): HostPath {
    return containerDirectory(this.#mount(controller), this.#parent, id);
  }
}

/** `/a/b` as [`/a`, `/a/b`]. */
function ancestors(path: string): readonly string[] {
  const names = path.split("/").slice(1);
  return names.map((_, index) => `/${names.slice(0, index + 1).join("/")}`);
}
