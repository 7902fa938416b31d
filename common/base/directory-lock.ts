/** One process at a time in a directory, with no lock that outlives its holder. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { errnoOf, SwarmError } from "./error.ts";

/** Where the kernel says which boot this is. */
const BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id";

/**
 * Takes `path`/lock, which names its holder by pid, start time and boot: neither a recycled pid nor a reboot looks like
 * one. Disposal gives it back. Throws `failed_precondition` while another process holds it.
 */
export function lockDirectory(path: string): Disposable {
  const lock = `${path}/lock`;
  const bootId = readBootId();
  take(lock, { bootId, owner: `${process.pid} ${startTimeOf(process.pid)} ${bootId}\n`, directory: path });
  return { [Symbol.dispose]: () => rmSync(lock, { force: true }) };
}

/** The id that the kernel gave this boot. */
export function readBootId(): string {
  return readFileSync(BOOT_ID_PATH, "utf8").trim();
}

interface Claim {
  readonly bootId: string;
  readonly owner: string;
  readonly directory: string;
}

function take(lock: string, { bootId, owner, directory }: Claim): void {
  for (let attempt = 0; ; attempt++) {
    try {
      writeFileSync(lock, owner, { flag: "wx", mode: 0o600 });
      return;
    } catch (reason) {
      if (errnoOf(reason) !== "EEXIST" || attempt > 0) {
        throw SwarmError.wrap(`lock ${directory}`, reason, "failed_precondition");
      }
      const [pid = "", startTime = "", boot = ""] = readFileSync(lock, "utf8").trim().split(" ");
      if (boot === bootId && startTime !== "" && startTimeOf(Number(pid)) === startTime) {
        throw new SwarmError("failed_precondition", `${directory} is in use by the process with pid ${pid}`);
      }
      rmSync(lock, { force: true });
    }
  }
}

/** A process's start in clock ticks since boot (proc_pid_stat(5), field 22); undefined when there is none. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The command's name, in parentheses, may hold blanks.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
