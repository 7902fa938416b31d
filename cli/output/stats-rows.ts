/** What tasks use, as `docker stats` shows containers: two rounds of counters in, rows out. Pure. */
import { formatBytes, formatBytesDecimal } from "../../common/model/units.ts";
import type { TaskStats, TaskUsage, TransferredBytes, UnreachableNode } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Listing, Row } from "./format.ts";
import { shortId } from "./words.ts";

export const STATS_LISTING: Listing = {
  columns: {
    ID: "ID",
    Name: "NAME",
    Node: "NODE",
    CPUPerc: "CPU %",
    MemUsage: "MEM USAGE / LIMIT",
    MemPerc: "MEM %",
    NetIO: "NET I/O",
    BlockIO: "BLOCK I/O",
    PIDs: "PIDS",
  },
  more: { Container: "CONTAINER" },
  key: "ID",
};

/** What is not known, or does not exist. */
const NOTHING = "--";
/** Names of tasks in one line; the rest are counted. */
const NAMES_SHOWN_MAX = 10;

/** Rows in order of name: `web.2` before `web.10`. `before` is the usage of each task in the round before this one. */
export function statsRows(
  tasks: readonly TaskStats[],
  before: ReadonlyMap<string, TaskUsage>,
  { fullIds }: { readonly fullIds: boolean },
): readonly Row[] {
  const { compare } = new Intl.Collator("en", { numeric: true });
  return tasks
    .toSorted((left, right) => compare(left.name, right.name) || compare(left.taskId, right.taskId))
    .map(({ taskId, name, nodeHostname, usage }) => {
      const id = fullIds ? taskId : shortId(taskId);
      return { Container: id, ID: id, Name: name, Node: nodeHostname, ...usageCells(usage, before.get(taskId)) };
    });
}

function usageCells(usage: TaskUsage | undefined, before: TaskUsage | undefined): Row {
  const used = Number(usage?.memoryBytes ?? 0n);
  const limit = Number(usage?.memoryLimitBytes ?? 0n);
  return {
    CPUPerc: percent(usage && before && cpuPercent(before, usage)),
    MemUsage: usage ? `${formatBytes(used)} / ${formatBytes(limit)}` : `${NOTHING} / ${NOTHING}`,
    MemPerc: percent(limit > 0 ? (used / limit) * 100 : undefined),
    NetIO: transferred(usage?.network),
    BlockIO: transferred(usage?.block),
    PIDs: usage ? String(usage.pids) : NOTHING,
  };
}

/** 100 is one processor, whole. Undefined for counters that do not follow each other: of another container, say. */
export function cpuPercent(before: TaskUsage, after: TaskUsage): number | undefined {
  const elapsed = Number(after.monotonicNanos - before.monotonicNanos);
  const used = Number(after.cpuNanos - before.cpuNanos);
  return elapsed > 0 && used >= 0 ? (used / elapsed) * 100 : undefined;
}

function percent(value: number | undefined): string {
  return value === undefined ? NOTHING : `${value.toFixed(2)}%`;
}

function transferred(bytes: TransferredBytes | undefined): string {
  if (!bytes) return NOTHING;
  return `${formatBytesDecimal(Number(bytes.in))} / ${formatBytesDecimal(Number(bytes.out))}`;
}

/** "node-2 cannot be asked (down): skipped web.2, web.5". */
export function unreachableText({ hostname, reason, taskNames }: UnreachableNode): string {
  const head = `${hostname} cannot be asked (${reason})`;
  if (taskNames.length === 0) return head;
  const shown = taskNames.slice(0, NAMES_SHOWN_MAX).join(", ");
  const more = taskNames.length > NAMES_SHOWN_MAX ? ` and ${taskNames.length - NAMES_SHOWN_MAX} more` : "";
  return `${head}: skipped ${shown}${more}`;
}

/**
 * A picture for a terminal of that size, drawn over the one before. Long lines are wrapped by the terminal, as Docker's are;
 * tasks for which there is no room are counted. The last lines, `notes`, always stand there.
 */
export function statsScreen(
  table: readonly string[],
  notes: readonly string[],
  { rows, columns }: { readonly rows: number; readonly columns: number },
): string {
  const height = (line: string) => (columns === 0 ? 1 : Math.max(1, Math.ceil(line.length / columns)));
  const sum = (lines: readonly string[]) => lines.reduce((all, line) => all + height(line), 0);
  // The cursor stands below the last line.
  let room = rows === 0 ? Number.POSITIVE_INFINITY : rows - 1 - sum(notes);
  const fits = sum(table) <= room;
  if (!fits) room -= 1;
  const shown = table.filter((line) => {
    room -= height(line);
    return room >= 0;
  });
  const more = fits ? [] : [`… and ${table.length - shown.length} more`];
  return `\u001b[H${[...shown, ...more, ...notes].map((line) => `${line}\u001b[K\n`).join("")}\u001b[J`;
}
