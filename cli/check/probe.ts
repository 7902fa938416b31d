/** Looks at this host: /proc, /sys, the disk, the ports. What is missing is a fact; nothing is judged here. */
import { accessSync, constants, existsSync, readdirSync, readFileSync, readlinkSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Clock } from "../../common/base/clock.ts";
import type { DiskFacts, HolderFacts, HostFacts, MountFacts, PortFacts } from "./facts.ts";
import { PORTS } from "./judge.ts";
import { tryOut } from "./trial.ts";

/** Where agents and managers keep their state. */
const STATE = "/var/lib/swarm";
const PROGRAMS = ["nft", "etcd"];
/** Where daemons find programs, whatever the caller's PATH says. */
const PROGRAM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Looks at everything. Takes about a second as root, most of it for the trials. */
export async function probeHost(clock: Clock, signal: AbortSignal): Promise<HostFacts> {
  const root = process.getuid?.() === 0;
  const mounts = readMounts(readOr("/proc/self/mountinfo", ""));
  const disk = diskOf(nearestExisting(STATE), mounts);
  return {
    root,
    kernel: readOr("/proc/sys/kernel/osrelease", "unknown").trim(),
    architecture: process.arch,
    mounts,
    unifiedControllers: unifiedControllers(mounts),
    namespaces: listOr("/proc/self/ns"),
    seccompActions: words(readOr("/proc/sys/kernel/seccomp/actions_avail", "")),
    trials: root ? await tryOut(disk.path, signal) : { type: "not root" },
    processes: new Set(pids().map((pid) => readOr(`/proc/${pid}/comm`, "").trim())),
    programs: new Set(PROGRAMS.filter(isInstalled)),
    ports: portFacts(PORTS.map(({ port }) => port)),
    disk,
    memoryBytes: Number(/^MemTotal:\s+(\d+) kB$/m.exec(readOr("/proc/meminfo", ""))?.[1] ?? 0) * 1024,
    openFilesMax: openFilesMax(root),
    processesMax: Number(readOr("/proc/sys/kernel/pid_max", "0")),
    nowMs: clock.nowMs(),
    timesyncSynchronized: existsSync("/run/systemd/timesync/synchronized"),
  };
}

/** proc_pid_mountinfo(5): `36 35 0:30 / /mnt rw,noatime master:1 - type source superoptions`. */
export function readMounts(mountinfo: string): readonly MountFacts[] {
  return mountinfo.split("\n").flatMap((line) => {
    const [mount = "", superblock = ""] = line.split(" - ");
    const path = mount.split(" ")[4];
    const [type, , options = ""] = superblock.split(" ");
    return path === undefined || type === undefined ? [] : [{ path, type, options: options.split(",") }];
  });
}

/** Inodes of the sockets that listen on each TCP port, from /proc/net/tcp or tcp6 (proc_net(5)). */
export function readListeners(table: string): ReadonlyMap<number, string> {
  const listening = "0A";
  const rows = table.split("\n").slice(1).map(words);
  return new Map(
    rows.flatMap(([, local = "", , state, , , , , , inode = ""]) => {
      const port = Number.parseInt(local.split(":")[1] ?? "", 16);
      return state === listening && !Number.isNaN(port) ? [[port, inode] as const] : [];
    }),
  );
}

function portFacts(ports: readonly number[]): readonly PortFacts[] {
  const tables = ["/proc/net/tcp", "/proc/net/tcp6"].map((path) => readListeners(readOr(path, "")));
  return ports.map((port) => {
    const inode = tables.map((table) => table.get(port)).find((each) => each !== undefined);
    return inode === undefined ? { port, type: "free" } : { port, type: "taken", holder: holderOf(inode) };
  });
}

/** The process with that socket open; others' files are root's to see. */
function holderOf(inode: string): HolderFacts | undefined {
  const pid = pids().find((each) => {
    const folder = `/proc/${each}/fd`;
    return listOr(folder).some((file) => linkOr(join(folder, file)) === `socket:[${inode}]`);
  });
  if (pid === undefined) return undefined;
  const parent = /^PPid:\s+(\d+)$/m.exec(readOr(`/proc/${pid}/status`, ""))?.[1] ?? "0";
  return { pid: Number(pid), commandLine: commandLine(pid), parentCommandLine: commandLine(parent) };
}

function commandLine(pid: string): string {
  return readOr(`/proc/${pid}/cmdline`, "").replaceAll("\0", " ").trim();
}

function unifiedControllers(mounts: readonly MountFacts[]): readonly string[] | undefined {
  const unified = mounts.find(({ type }) => type === "cgroup2");
  return unified && words(readOr(`${unified.path}/cgroup.controllers`, ""));
}

function nearestExisting(path: string): string {
  return existsSync(path) ? path : nearestExisting(dirname(path));
}

function diskOf(path: string, mounts: readonly MountFacts[]): DiskFacts {
  const { bavail, bsize, ffree, files } = statfsSync(path);
  const above = mounts.filter((mount) => path === mount.path || path.startsWith(mount.path.replace(/\/?$/, "/")));
  // The last one mounted at the longest path is what is seen.
  const mount = above.reduce<MountFacts | undefined>(
    (best, each) => (best === undefined || each.path.length >= best.path.length ? each : best),
    undefined,
  );
  return { path, fileSystem: mount?.type ?? "unknown", freeBytes: bavail * bsize, freeInodes: ffree, inodes: files };
}

/** The hard limit; root may raise it. */
function openFilesMax(root: boolean): number {
  const most = Number(readOr("/proc/sys/fs/nr_open", "0"));
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readOr("/proc/self/limits", ""))?.[1] ?? "unlimited";
  return root || hard === "unlimited" ? most : Number(hard);
}

function isInstalled(program: string): boolean {
  return PROGRAM_FOLDERS.some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function pids(): readonly string[] {
  return listOr("/proc").filter((name) => /^\d+$/.test(name));
}

/** Processes end while one looks at them, and a kernel without a feature has no file for it. */
function readOr(path: string, missing: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return missing;
  }
}

function listOr(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function linkOr(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}
