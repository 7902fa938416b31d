/** What every check of a spec needs: a list of problems that grows, and the rules for durations, labels and names. */
import type { Duration } from "@bufbuild/protobuf/wkt";
import type { FieldProblem } from "../base/error.ts";
import { durationMs } from "./duration.ts";
import { lineProblem, valueProblem } from "./text.ts";
import { formatDurationMs, quoted } from "./units.ts";

/** Shorter health checks would be a busy loop (SwarmKit: minimumDuration). */
export const HEALTH_TIME_MS_MIN = 1;
/** Go's Duration, and so Docker's, ends here: 292 years. */
const DURATION_MS_MAX = 2 ** 63 / 1e6;
const LABEL_KEY_LENGTH_MAX = 256;
const LABEL_VALUE_LENGTH_MAX = 16 * 1024;
const LABELS_MAX = 1024;
/** A hostile spec must not make an error of megabytes. */
const PROBLEMS_MAX = 50;

/** Collects every bad field, so that the user can mend them all at once. */
export class Problems {
  readonly #list: FieldProblem[] = [];

  get list(): readonly FieldProblem[] {
    return this.#list;
  }

  add(field: string, problem: string): void {
    if (this.#list.length < PROBLEMS_MAX) this.#list.push({ field, problem });
  }

  /** Adds `problem` if there is one. */
  text(field: string, problem: string | undefined): void {
    if (problem !== undefined) this.add(field, problem);
  }

  /** A duration must not be negative nor overflow; if it is set, not below `msMin`. */
  duration(field: string, duration: Duration | undefined, msMin = 0): void {
    const ms = durationMs(duration);
    if (ms === undefined || duration === undefined) return;
    if (ms < 0) this.add(field, "cannot be negative");
    else if (ms >= DURATION_MS_MAX || Math.abs(duration.nanos) > 999_999_999) this.add(field, "is too long");
    else if (ms > 0 && ms < msMin) this.add(field, `cannot be less than ${formatDurationMs(msMin)}`);
  }

  labels(field: string, labels: Readonly<Record<string, string>>): void {
    const entries = Object.entries(labels);
    if (entries.length > LABELS_MAX) this.add(field, `at most ${LABELS_MAX} labels`);
    for (const [key, value] of entries) {
      if (key === "") this.add(field, "a label needs a name");
      this.text(`${field}.${quoted(key)}`, lineProblem(key, LABEL_KEY_LENGTH_MAX));
      this.text(`${field}.${quoted(key)}`, valueProblem(value, LABEL_VALUE_LENGTH_MAX));
    }
  }

  /** An enum's number that this version does not know came from a newer client, or from no client of ours. */
  known(field: string, value: number, names: Readonly<Record<number, string>>): void {
    if (names[value] === undefined) this.add(field, `unknown value ${value}`);
  }
}
