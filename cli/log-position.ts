/** Where a reader of logs is, task by task, so that another stream can go on there: no line missing, none twice. Pure. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { toTimestamp } from "../common/model/duration.ts";
import type { LogMessage } from "../proto/gen/swarm/v1/control_pb.js";

interface Place {
  /** The last line's. */
  readonly time: Timestamp;
  /** Lines of that time that were seen: several may share one. */
  seen: number;
  /** After a resumption: how many lines of that time come again. */
  again: number;
}

/**
 * A task's lines are in one file, in one order, with times that do not fall: from the last line's time on they come again,
 * and as many as were seen of that very time are left out.
 */
export class LogPosition {
  readonly #places = new Map<string, Place>();
  /** Where tasks begin that have not said anything. */
  readonly #begins = new Map<string, number>();
  #resumed = false;

  /** A task whose lines count from `atMs` on if the stream breaks before its first one. */
  begin(taskId: string, atMs: number): void {
    this.#begins.set(taskId, atMs);
  }

  /** Whether the line is new; then it is the task's last one from now on. */
  admits({ taskId, timestamp }: LogMessage): boolean {
    if (!timestamp) return true;
    const place = this.#places.get(taskId);
    const order = place ? compare(timestamp, place.time) : 1;
    if (place && order === 0) {
      if (place.again > 0) {
        place.again -= 1;
        return false;
      }
      place.seen += 1;
      return true;
    }
    if (place && place.again > 0 && order < 0) return false;
    this.#places.set(taskId, { time: timestamp, seen: 1, again: 0 });
    return true;
  }

  /** The stream broke: what comes next begins at `resumeFrom`. */
  resume(): void {
    this.#resumed = true;
    for (const place of this.#places.values()) place.again = place.seen;
  }

  /** From when on each task's lines are wanted: after a break only; a first stream is bounded by its own options. */
  resumeFrom(): Record<string, Timestamp> {
    if (!this.#resumed) return {};
    const begins = [...this.#begins].map(([taskId, atMs]) => [taskId, toTimestamp(atMs)] as const);
    const places = [...this.#places].map(([taskId, { time }]) => [taskId, time] as const);
    return Object.fromEntries([...begins, ...places]);
  }
}

/** The last lines of each task. */
export class LogTail {
  readonly #lines: number;
  readonly #kept = new Map<string, LogMessage[]>();

  constructor(lines: number) {
    this.#lines = lines;
  }

  add(messages: readonly LogMessage[]): void {
    for (const message of messages) {
      const kept = this.#kept.get(message.taskId) ?? [];
      kept.push(message);
      // Cut now and then, not at each line.
      if (kept.length > 2 * this.#lines) kept.splice(0, kept.length - this.#lines);
      this.#kept.set(message.taskId, kept);
    }
  }

  take(): readonly LogMessage[] {
    return [...this.#kept.values()].flatMap((kept) => (this.#lines === 0 ? [] : kept.slice(-this.#lines)));
  }
}

function compare(left: Timestamp, right: Timestamp): number {
  return left.seconds === right.seconds ? left.nanos - right.nanos : left.seconds < right.seconds ? -1 : 1;
}
