/** Readings that both sides of a comparison share. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../eventually.ts";

/** The middle value, and the one that 99 in 100 do not exceed. */
export function percentiles(values: readonly number[]): { readonly p50: number; readonly p99: number } {
  const sorted = values.toSorted((left, right) => left - right);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

/** How long `work` takes, in ms. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const beganMs = performance.now();
  await work();
  return performance.now() - beganMs;
}

/**
 * Repeats `attempt` until it says true; fails after `timeoutMs`. It asks every 10 ms: more often would take the
 * processor from what is measured.
 */
export async function until(attempt: () => Promise<boolean>, timeoutMs: number): Promise<void> {
  await eventually(
    async () => {
      if (!(await attempt())) throw new Error("not yet");
    },
    { timeoutMs, intervalMs: 10 },
  );
}

/** Ids of processes whose command line contains every word. */
export function processesWith(...words: readonly string[]): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const line = readText(`/proc/${pid}/cmdline`)?.replaceAll("\0", " ") ?? "";
      return line !== "" && words.every((word) => line.includes(word));
    });
}

/** Ids of a process's children. */
export function childrenOf(pid: number): number[] {
  const threads = existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : [];
  return threads.flatMap((thread) => numbers(readText(`/proc/${pid}/task/${thread}/children`)));
}

/** A process's name, as it or its program gave it. */
export function nameOf(pid: number): string {
  return readText(`/proc/${pid}/comm`)?.trim() ?? "";
}

/** A process's resident set in MB; 0 when it is gone. */
export function residentMb(pid: number): number {
  return statusField(pid, "status", /^VmRSS:\s+(\d+) kB$/m) / 1024;
}

/** Memory that only this process has, in KiB: what ending it would free. */
export function privateKib(pid: number): number {
  return (
    statusField(pid, "smaps_rollup", /^Private_Clean:\s+(\d+) kB$/m) +
    statusField(pid, "smaps_rollup", /^Private_Dirty:\s+(\d+) kB$/m)
  );
}

/** The sum of some reading. */
export function sum<T>(items: readonly T[], read: (item: T) => number): number {
  return items.reduce((total, item) => total + read(item), 0);
}

/** The mean of some reading of the processes that are still there. */
export function mean(pids: readonly number[], read: (pid: number) => number): number {
  const values = pids.map(read).filter((value) => value > 0);
  return values.length === 0 ? 0 : sum(values, (value) => value) / values.length;
}

function statusField(pid: number, file: string, pattern: RegExp): number {
  return Number(pattern.exec(readText(`/proc/${pid}/${file}`) ?? "")?.[1] ?? 0);
}

const CGROUPS = "/sys/fs/cgroup";

/**
 * One memory cgroup, v1 or v2, with all groups below it. What the kernel keeps for its processes (page tables, mounts,
 * namespaces) is charged to it too; file cache, which could be dropped at once, is left out.
 */
export class MemoryGroup {
  readonly #path: string;

  /** `name` is a path below the root of the cgroups; the group need not exist yet. */
  constructor(name: string) {
    this.#path = join(CGROUPS, existsSync(`${CGROUPS}/memory`) ? "memory" : "", name);
  }

  /** Makes it, and moves processes into it. What they hold already stays charged where it is. */
  take(pids: readonly number[]): void {
    mkdirSync(this.#path, { recursive: true });
    for (const pid of pids) writeFileSync(join(this.#path, "cgroup.procs"), String(pid));
  }

  kib(): number {
    const stat = readText(join(this.#path, "memory.stat")) ?? "";
    const field = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(stat)?.[1] ?? 0);
    const used = readText(join(this.#path, "memory.usage_in_bytes")) ?? readText(join(this.#path, "memory.current"));
    const total = stat.includes("total_cache") ? "total_" : "";
    return (Number(used ?? 0) - field(`${total}active_file`) - field(`${total}inactive_file`)) / 1024;
  }

  /** All processes in it. */
  processes(): number[] {
    return subgroups(this.#path).flatMap((path) => numbers(readText(join(path, "cgroup.procs"))));
  }
}

/** Removes the cgroups of this name in every hierarchy once they are empty, and those below them. */
export async function removeCgroups(name: string): Promise<void> {
  const roots = [CGROUPS, ...readdirSync(CGROUPS).map((hierarchy) => join(CGROUPS, hierarchy))];
  for (const path of new Set(roots.map((root) => join(root, name)))) {
    await eventually(() => {
      for (const group of subgroups(path).toReversed()) rmdirSync(group);
    });
  }
}

/** A group and all below it, each before its children. */
function subgroups(path: string): string[] {
  if (!existsSync(join(path, "cgroup.procs"))) return [];
  const children = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [path, ...children.flatMap(({ name }) => subgroups(join(path, name)))];
}

function numbers(text: string | undefined): number[] {
  return (text ?? "").split(/\s+/).filter(Boolean).map(Number);
}

/** A small file's text; undefined when it, or the process it tells of, is gone. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
