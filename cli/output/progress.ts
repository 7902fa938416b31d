/** Progress as Docker draws it: one line per task up to twenty, a bar for all beyond that. Pure: slots in, lines out. */
import { taskStateName } from "../../common/model/task-state.ts";
import { escapeControls } from "../../common/model/text.ts";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { SlotProgress } from "../convergence.ts";

/** More lines than this push each other off the screen (docker: maxProgressBars). */
const LINES_MAX = 20;
const BAR_WIDTH = 50;

/** The states on the way, in order: how far the bar has come. */
const ROAD = [
  TaskState.NEW,
  TaskState.PENDING,
  TaskState.ASSIGNED,
  TaskState.ACCEPTED,
  TaskState.PREPARING,
  TaskState.READY,
  TaskState.STARTING,
  TaskState.RUNNING,
];

/** What is drawn. */
export interface ProgressPicture {
  readonly slots: readonly SlotProgress[];
  readonly desired: number;
  /** The last line: "Service web converged", "Waiting 3 seconds to verify that tasks are stable...". */
  readonly verify?: string;
  /** Whether the service runs one task on each of some nodes: slots are named, not counted. */
  readonly byNode: boolean;
  /** What holds the service's newest version back, in words that follow "waiting for"; empty for nothing. */
  readonly waitingFor?: string;
}

/** Lines for a terminal, to be redrawn in place. `columns` bounds their width. */
export function progressLines(picture: ProgressPicture, columns: number): readonly string[] {
  const { slots, desired, verify, byNode } = picture;
  const done = slots.filter((slot) => slot.done).length;
  const lines = [`overall progress: ${done} out of ${desired} tasks`];
  if (slots.length > LINES_MAX || desired > LINES_MAX) {
    lines.push(bar(desired === 0 ? 1 : done / desired));
    const stuck = slots.find(({ reason }) => reason !== "");
    if (stuck !== undefined) lines.push(`${stuck.name}: ${stuck.reason}`);
  } else {
    const names = slots.map(({ name }) => (byNode ? name : `${name}/${desired}`));
    const width = Math.max(0, ...names.map((name) => name.length));
    slots.forEach((slot, index) => {
      lines.push(`${`${names[index]}:`.padEnd(width + 1)} ${slotText(slot)}`);
    });
  }
  if (picture.waitingFor) lines.push(`waiting for ${picture.waitingFor}`);
  if (verify !== undefined) lines.push(`verify: ${verify}`);
  return lines.map((line) => escapeControls(line).slice(0, Math.max(20, columns - 1)));
}

/** What is news since `shown` (by slot), as plain lines for logs; updates `shown`. */
export function progressNews(picture: ProgressPicture, shown: Map<string, string>): readonly string[] {
  const lines: string[] = [];
  const note = (key: string, text: string) => {
    if (shown.get(key) === text) return;
    shown.set(key, text);
    lines.push(escapeControls(`${key}: ${text}`));
  };
  const done = picture.slots.filter((slot) => slot.done).length;
  const many = picture.slots.length > LINES_MAX;
  for (const slot of picture.slots) {
    const name = picture.byNode ? slot.name : `${slot.name}/${picture.desired}`;
    // Of many tasks only trouble is worth a line.
    if (slot.reason !== "") note(name, `${taskStateName(slot.state)}: ${slot.reason}`);
    else if (!many && (slot.done || slot.state < TaskState.RUNNING)) note(name, doneWord(slot));
  }
  note("overall progress", `${done} out of ${picture.desired} tasks`);
  if (picture.waitingFor) note("waiting for", picture.waitingFor);
  if (picture.verify !== undefined) note("verify", picture.verify);
  return lines;
}

function doneWord({ state, done }: SlotProgress): string {
  if (!done) return "starting";
  return state === TaskState.COMPLETE ? "complete" : "running";
}

function slotText({ state, reason, done }: SlotProgress): string {
  const word = taskStateName(state).padEnd(9);
  if (reason !== "") return `${word} ${reason}`;
  const at = ROAD.indexOf(state);
  return at < 0 ? word.trimEnd() : `${word} ${bar(done ? 1 : (at + 1) / (ROAD.length + 1))}`;
}

/** How far something is, from 0 to 1. */
export function bar(fraction: number): string {
  const filled = Math.min(BAR_WIDTH, Math.floor(fraction * BAR_WIDTH));
  const head = filled < BAR_WIDTH ? ">" : "";
  return `[${"=".repeat(filled)}${head}${" ".repeat(BAR_WIDTH - filled - head.length)}]`.replace(/=\]$/, ">]");
}
