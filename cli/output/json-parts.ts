/** Parts of Docker's API shape: what its JSON leaves out when empty, durations in ns, times as RFC 3339. Pure. */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampMs } from "../../common/model/duration.ts";

/**
 * `fields` as Go's omitempty writes them: JSON leaves out what is undefined, "", false, 0, [] or {}, but for `always`. A template
 * still finds it, as it does in Go's struct: properties that are not enumerable.
 */
export function filled(
  fields: Readonly<Record<string, unknown>>,
  always: readonly string[] = [],
): Record<string, unknown> {
  const object: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    Object.defineProperty(object, name, { value, enumerable: always.includes(name) || !isEmpty(value) });
  }
  return object;
}

/** A map of labels: without a prototype, so that a template may ask for a key that is not there. */
export function labelsJson(labels: Readonly<Record<string, string>> | undefined): Readonly<Record<string, string>> {
  return Object.assign(Object.create(null), labels);
}

/** Nanoseconds, as Go's time.Duration is written. */
export function nanosJson(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1e9 + duration.nanos;
}

/** "2026-01-02T13:23:37.123456789Z". */
export function timeJson(timestamp: Timestamp | undefined): string | undefined {
  const ms = timestampMs(timestamp);
  if (ms === undefined) return undefined;
  const nanos = String(timestamp?.nanos ?? 0).padStart(9, "0");
  return `${new Date(ms).toISOString().slice(0, 19)}.${nanos}Z`;
}

/** The word of an enum's value with dashes, in small letters: "stop-first". */
export function enumWord(names: Readonly<Record<number, string>>, value: number): string {
  return (names[value] ?? "").toLowerCase().replaceAll("_", "-");
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false || value === 0) return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === "object" && Object.keys(value).length === 0;
}
