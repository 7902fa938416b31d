/** What a host's disk, memory, limits and clock are enough for. Pure. */
import { formatBytes } from "../../common/model/units.ts";
import type { HostFacts } from "./facts.ts";
import type { Finding } from "./findings.ts";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** Below, the first image of any size ends in "no space left on device". */
const DISK_BYTES_MIN = GIB;
/** An image or two, their logs and a manager's history. */
const DISK_BYTES_WANTED = 10 * GIB;
/** An image unpacks to some ten thousand files. */
const INODES_MIN = 100_000;
/** An agent and a manager hold 90 MB each, etcd the rest. */
const MEMORY_BYTES_MIN = 400 * MIB;
const MEMORY_BYTES_WANTED = 900 * MIB;
/** A manager of a thousand nodes has a connection with each; an agent two for each published port. */
const OPEN_FILES_WANTED = 16_384;
/** The kernel's old default; each container has some two processes more than its own. */
const PROCESSES_WANTED = 32_768;
/** Certificates made by a host whose clock stands before this are taken for expired by all others. */
const TIME_MS_MIN = Date.UTC(2025, 0);

/** File systems that overlayfs takes as its upper layer. */
const UPPER_FILE_SYSTEMS = ["ext4", "xfs", "btrfs", "tmpfs", "f2fs", "ext3", "bcachefs", "zfs"];
/** Programs that keep a clock in step; systemd-timesyncd is asked for more than its name. */
const CLOCK_KEEPERS = ["chronyd", "ntpd", "openntpd", "ptp4l", "phc2sys"];

/** One finding for each. */
export function judgeResources(facts: HostFacts): readonly Finding[] {
  return [disk(facts), memory(facts), openFiles(facts), processes(facts), clock(facts)];
}

function disk({ disk: { path, fileSystem, freeBytes, freeInodes, inodes } }: HostFacts): Finding {
  const name = "disk";
  const free = `${formatBytes(freeBytes)} free on ${path} (${fileSystem})`;
  const mend = "make room, or mount a larger disk at /var/lib/swarm";
  if (fileSystem === "overlay" || fileSystem === "nfs") {
    const message = `${path} is on ${fileSystem}, which cannot hold containers' layers`;
    return { name, level: "FAIL", message, mend: "mount ext4, xfs or btrfs at /var/lib/swarm" };
  }
  if (freeBytes < DISK_BYTES_MIN) return { name, level: "FAIL", message: free, mend };
  if (inodes > 0 && freeInodes < INODES_MIN) {
    return { name, level: "WARN", message: `${freeInodes} inodes left on ${path} (${fileSystem})`, mend };
  }
  if (freeBytes < DISK_BYTES_WANTED) return { name, level: "WARN", message: free, mend };
  if (UPPER_FILE_SYSTEMS.includes(fileSystem)) return { name, level: "OK", message: free };
  const message = `${free}: layers are not known to work on it`;
  return { name, level: "WARN", message, mend: "mount ext4, xfs or btrfs at /var/lib/swarm" };
}

function memory({ memoryBytes }: HostFacts): Finding {
  const message = formatBytes(memoryBytes);
  if (memoryBytes >= MEMORY_BYTES_WANTED) return { name: "memory", level: "OK", message };
  const level = memoryBytes < MEMORY_BYTES_MIN ? "FAIL" : "WARN";
  return {
    name: "memory",
    level,
    message,
    mend: `at least ${formatBytes(MEMORY_BYTES_WANTED)} for the programs alone`,
  };
}

function openFiles({ openFilesMax }: HostFacts): Finding {
  const message = `${openFilesMax} open files`;
  if (openFilesMax >= OPEN_FILES_WANTED) return { name: "open files", level: "OK", message };
  return { name: "open files", level: "WARN", message, mend: "raise LimitNOFILE= of the units, or sysctl fs.nr_open" };
}

function processes({ processesMax }: HostFacts): Finding {
  const message = `${processesMax} processes`;
  if (processesMax >= PROCESSES_WANTED) return { name: "processes", level: "OK", message };
  return { name: "processes", level: "WARN", message, mend: "sysctl kernel.pid_max=4194304" };
}

function clock({ nowMs, processes: running, timesyncSynchronized }: HostFacts): Finding {
  const name = "clock";
  const shown = `${new Date(nowMs).toISOString().slice(0, 19)}Z`;
  const install = "apt-get install systemd-timesyncd (dnf install chrony)";
  if (nowMs < TIME_MS_MIN) {
    return { name, level: "FAIL", message: `${shown} is past: no certificate is valid yet`, mend: install };
  }
  if (timesyncSynchronized) return { name, level: "OK", message: `${shown}, in step (systemd-timesyncd)` };
  const keeper = CLOCK_KEEPERS.find((program) => running.has(program));
  if (keeper !== undefined) return { name, level: "OK", message: `${shown}, kept by ${keeper}` };
  // The kernel keeps 15 characters of a program's name.
  if (running.has("systemd-timesyn")) {
    const message = `${shown}; systemd-timesyncd has had no answer yet`;
    return { name, level: "WARN", message, mend: "timedatectl timesync-status tells which servers it asks" };
  }
  const message = `${shown}, and nothing known keeps it in step: an hour off, and certificates are refused`;
  return { name, level: "WARN", message, mend: install };
}
