/** What went over the tasks' links: the host's ends, seen from the other side. */
import { readFile } from "node:fs/promises";
import type { TaskId } from "../../common/base/id.ts";
import { INTERFACES_MAX, vethName } from "./attach.ts";

/** Bytes since the link was made. */
export interface LinkBytes {
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/**
 * All links of the agent's own network namespace in one read (proc_pid_net(5)): a hundred bytes each, and nothing is spawned
 * or sent. /sys/class/net would show those of the namespace in which /sys was mounted.
 */
const LINKS = "/proc/self/net/dev";

/** Reads the counters of every link, by name. */
export async function readLinkCounters(): Promise<ReadonlyMap<string, LinkBytes>> {
  return parseLinkCounters(await readFile(LINKS, "utf8"));
}

/** A task's own traffic: what the host's ends sent, the task received. Undefined for one without a link of its own. */
export function taskTraffic(counters: ReadonlyMap<string, LinkBytes>, taskId: TaskId): LinkBytes | undefined {
  let traffic: LinkBytes | undefined;
  for (let which = 0; which < INTERFACES_MAX; which++) {
    const host = counters.get(vethName(taskId, which));
    if (host === undefined) break;
    const { receivedBytes, sentBytes } = traffic ?? { receivedBytes: 0, sentBytes: 0 };
    traffic = { receivedBytes: receivedBytes + host.sentBytes, sentBytes: sentBytes + host.receivedBytes };
  }
  return traffic;
}

/** `eth0: <bytes received> <7 numbers> <bytes sent> …` a line, below two lines of headings. Pure. */
export function parseLinkCounters(text: string): ReadonlyMap<string, LinkBytes> {
  const counters = new Map<string, LinkBytes>();
  for (const line of text.split("\n")) {
    // A link's name may hold a colon, and the first number may touch the one behind the name.
    const colon = line.lastIndexOf(":");
    const numbers = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const [receivedBytes, sentBytes] = [numbers[0], numbers[8]];
    if (colon < 0 || receivedBytes === undefined || sentBytes === undefined) continue;
    counters.set(line.slice(0, colon).trim(), { receivedBytes, sentBytes });
  }
  return counters;
}
