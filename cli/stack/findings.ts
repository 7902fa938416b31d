/** What is wrong with stack files and what their author should know, collected so that all of it is told at once. */
import { escapeControls } from "../../common/model/text.ts";
import { type Place, positionOf } from "./tree.ts";

/** One fault of a stack file. */
export interface StackProblem {
  readonly file: string;
  /** From 1; 0 where the fault is not in a line (a file that cannot be read). */
  readonly line: number;
  readonly column: number;
  /** `services.web.ports[0]`; empty for the file as such. */
  readonly path: string;
  readonly message: string;
}

/** More lines would bury the first. */
const SHOWN_MAX = 100;

/** Grows while the stages run. */
export class Findings {
  readonly #problems: StackProblem[] = [];
  readonly #warnings: string[] = [];
  readonly #seen = new Set<string>();

  get problems(): readonly StackProblem[] {
    return this.#problems;
  }

  get warnings(): readonly string[] {
    return this.#warnings;
  }

  get failed(): boolean {
    return this.#problems.length > 0;
  }

  problem(place: Place, path: string, message: string): void {
    this.#add({ file: place.source.name, ...positionOf(place), path, message });
  }

  /** A file that cannot be read at all. */
  file(file: string, message: string): void {
    this.#add({ file, line: 0, column: 0, path: "", message });
  }

  warn(place: Place, path: string, message: string): void {
    this.#warn(formatProblem({ file: place.source.name, ...positionOf(place), path, message }));
  }

  #add(problem: StackProblem): void {
    const shown = formatProblem(problem);
    if (this.#seen.has(shown)) return;
    this.#seen.add(shown);
    this.#problems.push(problem);
  }

  #warn(text: string): void {
    if (!this.#warnings.includes(text)) this.#warnings.push(text);
  }
}

/** `stack.yml:12:5: services.web.ports[0]: …`, one line whatever the file holds. */
export function formatProblem({ file, line, column, path, message }: StackProblem): string {
  const place = line === 0 ? file : `${file}:${line}:${column}`;
  return escapeControls(`${place}: ${path === "" ? "" : `${path}: `}${message}`.replace(/\s*\n\s*/g, "; "));
}

/** Every problem on a line of its own, in the order of the files. */
export function formatProblems(problems: readonly StackProblem[]): string {
  const lines = problems.slice(0, SHOWN_MAX).map((problem) => `${formatProblem(problem)}\n`);
  const more = problems.length - lines.length;
  return `${lines.join("")}${more > 0 ? `and ${more} more problems\n` : ""}`;
}
