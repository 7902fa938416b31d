/** How far a stack's services are: one table for a terminal, news for a log. Pure: states in, lines out. */
import { escapeControls } from "../../common/model/text.ts";
import { renderTable } from "./table.ts";

/** One service as the table shows it. */
export interface StackRow {
  readonly name: string;
  readonly state: "converged" | "verifying" | "waiting" | "failed";
  readonly done: number;
  readonly desired: number;
  /** What it waits for, or why it failed; empty when there is nothing to say. */
  readonly reason: string;
}

/** More lines than this push each other off the screen: what is done is then only counted. */
const ROWS_MAX = 20;

const WORDS = { converged: "converged", verifying: "verifying", waiting: "in progress", failed: "failed" } as const;

/** Lines for a terminal, to be redrawn in place. `columns` bounds their width. */
export function stackLines(rows: readonly StackRow[], columns: number): readonly string[] {
  const open = rows.filter(({ state }) => state !== "converged");
  const shown = rows.length > ROWS_MAX ? open.slice(0, ROWS_MAX) : rows;
  const converged = rows.length - open.length;
  const head = `${converged} of ${rows.length} services converged`;
  const table = renderTable(
    shown.map(({ name, state, done, desired, reason }) => [
      escapeControls(name),
      WORDS[state],
      `${done}/${desired}`,
      escapeControls(reason),
    ]),
  );
  const lines = [head, ...table.split("\n").filter((line) => line !== "")];
  if (rows.length > ROWS_MAX && open.length > ROWS_MAX) lines.push(`and ${open.length - ROWS_MAX} more`);
  return lines.map((line) => line.slice(0, Math.max(20, columns - 1)));
}

/** What is news since `shown` (by service), as plain lines for logs; updates `shown`. */
export function stackNews(rows: readonly StackRow[], shown: Map<string, string>): readonly string[] {
  return rows.flatMap(({ name, state, done, desired, reason }) => {
    const said = state === "verifying" ? "waiting" : state;
    const text = `${WORDS[said]} (${done}/${desired})${reason === "" ? "" : `: ${reason}`}`;
    if (shown.get(name) === text) return [];
    shown.set(name, text);
    return [escapeControls(`${name}: ${text}`)];
  });
}
