/** Cgroup v2: one directory per container in the one tree. */
import { access, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../../common/base/clock.ts";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import type { OciResources } from "../runtime/oci.ts";
import type { HostOp, HostPath } from "../runtime/op.ts";
import { blockBytesV2 } from "./blkio.ts";
import { cpuKnobsV2 } from "./cpu.ts";
import { cpusetKnobs } from "./cpuset.ts";
import { deviceProgram } from "./device-program.ts";
import { devicePolicy } from "./devices.ts";
import {
  containerDirectory,
  containerIds,
  ownProcesses,
  processesOf,
  readCounter,
  readNumber,
  readTable,
  removeDirectories,
  removeEmptyLevels,
  rootErrno,
  signalProcesses,
  writeKnob,
} from "./directory.ts";
import type { CgroupHierarchy } from "./hierarchy.ts";
import type { Knob } from "./knob.ts";
import type { CgroupManager, CgroupPlan, CgroupStats } from "./manager.ts";
import { memoryKnobsV2 } from "./memory.ts";
import { pidsKnobs } from "./pids.ts";

/** Switched on for containers where the host has them. */
const CONTROLLERS = ["memory", "cpu", "pids", "cpuset", "io"];

/** See CgroupManager. */
export class CgroupsV2 implements CgroupManager {
  readonly version = 2;
  readonly hierarchies = [];
  readonly #clock: Clock;
  readonly #mount: string;
  readonly #parent: string;
  readonly #controllers: readonly string[];

  constructor(clock: Clock, hierarchy: CgroupHierarchy & { readonly version: 2 }, parent: string) {
    this.#clock = clock;
    this.#mount = hierarchy.mount;
    this.#parent = parent;
    this.#controllers = CONTROLLERS.filter((name) => hierarchy.controllers.has(name));
  }

  async ensureParent(): Promise<void> {
    const parent = `${this.#mount}${this.#parent}`;
    try {
      await mkdir(parent, { recursive: true });
      const levels: string[] = [parent];
      for (let level = parent; level.length > this.#mount.length; level = dirname(level))
        levels.unshift(dirname(level));
      for (const level of levels) await this.#switchOn(level);
    } catch (reason) {
      const error = SwarmError.from(reason);
      throw new SwarmError("failed_precondition", `make cgroup ${this.#parent}: ${error.message}`, { cause: error });
    }
  }

  plan(id: string, resources: OciResources): CgroupPlan {
    const directory = this.#directory(id);
    if (resources.memory?.swappiness !== undefined) {
      const problem = "this host has cgroup v2, where containers have no swappiness of their own";
      throw invalidFields([{ field: "linux.resources.memory.swappiness", problem }]);
    }
    const knobs: readonly Knob[] = [
      ...memoryKnobsV2(resources.memory ?? {}),
      ...cpuKnobsV2(resources.cpu ?? {}),
      ...cpusetKnobs(resources.cpu ?? {}),
      ...(resources.pids === undefined ? [] : pidsKnobs(resources.pids)),
      ...unifiedKnobs(resources.unified ?? {}),
    ];
    const writes = knobs.map(
      ({ file, value, optional }): HostOp => ({
        op: "write-file",
        path: `${directory}/${file}` as HostPath,
        data: value,
        ...(optional === true && { optional }),
      }),
    );
    const rules = resources.devices ?? [];
    const program = deviceProgram(devicePolicy(rules));
    const attach: readonly HostOp[] =
      rules.length === 0 ? [] : [{ op: "attach-device-program", cgroup: directory, program }];
    return {
      hostOps: [{ op: "make-directory", path: directory }, ...writes, ...attach],
      membership: { version: 2, directory },
    };
  }

  stats(id: string): CgroupStats | undefined {
    const directory = this.#directory(id);
    const usage = readNumber(directory, "memory.current");
    const pids = readNumber(directory, "pids.current");
    if (usage === undefined || pids === undefined) return undefined;
    const cpu = readTable(directory, "cpu.stat");
    const droppable = readTable(directory, "memory.stat").get("inactive_file") ?? 0;
    const block = readCounter(directory, "io.stat");
    return {
      cpuNanos: (cpu.get("usage_usec") ?? 0) * 1000,
      throttledNanos: (cpu.get("throttled_usec") ?? 0) * 1000,
      memoryBytes: Math.max(0, usage - droppable),
      memoryLimitBytes: readNumber(directory, "memory.max"),
      pids,
      pidsLimit: readNumber(directory, "pids.max"),
      block: block === undefined ? undefined : blockBytesV2(block),
    };
  }

  async oomKilled(id: string): Promise<boolean> {
    const events = readTable(this.#directory(id), "memory.events");
    return (events.get("oom_kill") ?? 0) > 0;
  }

  processes(id: string): Promise<readonly number[]> {
    return processesOf(this.#directory(id));
  }

  async kill(id: string, signal: NodeJS.Signals | number): Promise<void> {
    const directory = this.#directory(id);
    const fatal = signal === "SIGKILL" || signal === 9;
    // Linux 5.14 and later kill the whole tree at once; before that a fork can slip through, and `remove` tries again.
    if (fatal && (await writeKnob(directory, "cgroup.kill", "1"))) return;
    signalProcesses(await processesOf(directory), signal);
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    await removeDirectories(this.#clock, [this.#directory(id)], () => this.kill(id, "SIGKILL"), signal);
  }

  async removeParent(): Promise<void> {
    await removeEmptyLevels(this.#mount, this.#parent);
  }

  async list(): Promise<readonly string[]> {
    return [...(await containerIds(`${this.#mount}${this.#parent}`))].sort();
  }

  #directory(id: string): HostPath {
    return containerDirectory(this.#mount, this.#parent, id);
  }

  /**
   * Hands the controllers down one level. Only the true root may have both processes and controllers; where our root is
   * a container's cgroup, what runs in it (the agent too) first moves into a leaf.
   */
  async #switchOn(directory: string): Promise<void> {
    const names = this.#controllers.map((name) => `+${name}`).join(" ");
    if (names === "") return;
    try {
      await writeKnob(directory, "cgroup.subtree_control", names);
    } catch (reason) {
      if (rootErrno(reason) !== "EBUSY" || !(await exists(`${directory}/cgroup.type`))) throw reason;
      await mkdir(`${directory}/init`, { recursive: true });
      for (const pid of await ownProcesses(directory)) {
        await writeKnob(`${directory}/init`, "cgroup.procs", String(pid)).catch(unlessExited);
      }
      await writeKnob(directory, "cgroup.subtree_control", names);
    }
  }
}

/** Files written as the user says; their names cannot leave the cgroup. */
function unifiedKnobs(unified: Readonly<Record<string, string>>): readonly Knob[] {
  const bad = Object.keys(unified).filter((file) => !/^[a-z0-9_]+(\.[a-zA-Z0-9_]+)+$/.test(file));
  if (bad.length > 0) {
    throw invalidFields(bad.map((file) => ({ field: "linux.resources.unified", problem: `no cgroup file: ${file}` })));
  }
  return Object.entries(unified).map(([file, value]) => ({ file, value }));
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

function unlessExited(reason: unknown): void {
  if (rootErrno(reason) !== "ESRCH") throw reason;
}
