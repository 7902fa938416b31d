/** The agent's data directory: made private, held by one agent at a time, and the home of the node's id. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { chmod, readFile } from "node:fs/promises";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isId, type NodeId, newId } from "../common/base/id.ts";
import type { Random } from "../common/base/random.ts";

/** Where the kernel says which boot this is. */
const BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id";

/** A data directory that is ours until disposal. */
export interface DataDirectory extends Disposable {
  readonly path: string;
  readonly nodeId: NodeId;
  readonly bootId: string;
}

/**
 * Opens the directory and takes its lock: the pid, start time and boot of its holder, so that neither a recycled pid nor a
 * reboot looks like one. The node's id is made at the first opening. Throws `failed_precondition` while another agent
 * holds it.
 */
export async function openDataDirectory(path: string, random: Random): Promise<DataDirectory> {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    await chmod(path, 0o700);
    const bootId = (await readFile(BOOT_ID_PATH, "utf8")).trim();
    const lock = `${path}/lock`;
    takeLock(lock, `${process.pid} ${startTimeOf(process.pid)} ${bootId}\n`);
    const nodeId = readNodeId(`${path}/node-id`, random);
    return { path, nodeId, bootId, [Symbol.dispose]: () => rmSync(lock, { force: true }) };
  } catch (reason) {
    if (reason instanceof SwarmError) throw reason;
    throw SwarmError.wrap(`open data directory ${path}`, reason, "failed_precondition");
  }
}

function takeLock(path: string, owner: string): void {
  for (let attempt = 0; ; attempt++) {
    try {
      writeFileSync(path, owner, { flag: "wx", mode: 0o600 });
      return;
    } catch (reason) {
      if (errnoOf(reason) !== "EEXIST" || attempt > 0) throw reason;
      const [pid = "", startTime = "", bootId = ""] = readFileSync(path, "utf8").trim().split(" ");
      const alive = startTime !== "" && owner.trim().endsWith(bootId) && startTimeOf(Number(pid)) === startTime;
      if (alive)
        throw new SwarmError(
          "failed_precondition",
          `another agent (pid ${pid}) uses ${path.slice(0, -"/lock".length)}`,
        );
      rmSync(path, { force: true });
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

function readNodeId(path: string, random: Random): NodeId {
  try {
    const text = readFileSync(path, "utf8").trim();
    if (isId(text)) return text as NodeId;
    throw new SwarmError("failed_precondition", `${path} holds no node id: remove it to join as a new node`);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw reason;
    const nodeId = newId<NodeId>(random);
    writeFileSync(`${path}.new`, `${nodeId}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
    return nodeId;
  }
}
