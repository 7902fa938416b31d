/**
 * Quantities as Docker's users write and read them: durations ("1m30s"), bytes ("1.5GiB"), CPUs ("0.5"), ages ("2 weeks").
 * Pure text and numbers; knows no message and no flag.
 */
import { bad, good, type Parsed } from "./parsed.ts";

/** Milliseconds in each unit of Go's time.ParseDuration. */
const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Go's durations are int64 nanoseconds: about 292 years. */
const DURATION_MS_MAX = 2 ** 63 / 1e6;

const BYTES_SUFFIXES = ["", "k", "m", "g", "t", "p"];
const NANOS_PER_CPU = 1_000_000_000;

/** Reads a duration in Go's form ("1h30m", "500ms", "-1.5s", "0") into ms; fractions of a ms are kept. */
export function parseDurationMs(text: string): Parsed<number> {
  const shown = quoted(text);
  const sign = text.startsWith("-") ? -1 : 1;
  const body = text.replace(/^[+-]/, "");
  if (body === "0") return good(0);
  if (!/^[0-9.]/.test(body)) return bad(`time: invalid duration ${shown}`);
  if (/^[0-9.]+$/.test(body)) return bad(`time: missing unit in duration ${shown}`);
  let totalMs = 0;
  let rest = body;
  while (rest !== "") {
    const match = /^([0-9]*(?:\.[0-9]*)?)([^0-9.]*)/.exec(rest);
    const [whole = "", number = "", unit = ""] = match ?? [];
    if (number === "" || number === ".") return bad(`time: invalid duration ${shown}`);
    if (unit === "") return bad(`time: missing unit in duration ${shown}`);
    const unitMs = Object.hasOwn(DURATION_UNITS_MS, unit) ? DURATION_UNITS_MS[unit] : undefined;
    if (unitMs === undefined) return bad(`time: unknown unit ${quoted(unit)} in duration ${shown}`);
    totalMs += Number(number) * unitMs;
    rest = rest.slice(whole.length);
  }
  if (totalMs >= DURATION_MS_MAX) return bad(`time: invalid duration ${shown}`);
  return good(sign * totalMs);
}

/** Prints a duration as Go's Duration.String does: "1m30s", "1h0m0s", "500ms", "1.5s", "0s". */
export function formatDurationMs(durationMs: number): string {
  if (durationMs === 0) return "0s";
  if (durationMs < 0) return `-${formatDurationMs(-durationMs)}`;
  if (durationMs < 1e-3) return `${trimmed(durationMs * 1e6, 0)}ns`;
  if (durationMs < 1) return `${trimmed(durationMs * 1e3, 3)}µs`;
  if (durationMs < 1000) return `${trimmed(durationMs, 6)}ms`;
  const hours = Math.floor(durationMs / 3_600_000);
  const minutes = Math.floor((durationMs % 3_600_000) / 60_000);
  const seconds = `${trimmed((durationMs % 60_000) / 1000, 9)}s`;
  if (hours > 0) return `${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}

/** Reads bytes as Docker does (go-units RAMInBytes): powers of 1024, "64M", "1.5GiB", "4 kb", "1024". */
export function parseBytes(text: string): Parsed<number> {
  const match = /^(-?[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[ ]?(.*)$/s.exec(text);
  const [, number, rest = ""] = match ?? [];
  if (number === undefined) return bad(`invalid size: ${quoted(text)}`);
  const suffix = rest.toLowerCase();
  if (!/^(?:b|[kmgtp](?:i?b)?|)$/.test(suffix)) return bad(`invalid suffix: ${quoted(rest)}`);
  const power = suffix === "b" ? 0 : BYTES_SUFFIXES.indexOf(suffix.slice(0, 1));
  const bytes = Math.trunc(Number(number) * 1024 ** power);
  if (bytes < 0) return bad(`invalid size: ${quoted(text)} is negative`);
  if (!Number.isSafeInteger(bytes)) return bad(`invalid size: ${quoted(text)} is too large`);
  return good(bytes);
}

/** Prints bytes in powers of 1024 with four digits (go-units BytesSize): "64MiB", "1.5GiB". */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4);
}

/** Prints bytes in powers of 1000 with three digits, as `image ls` does: "4.33kB", "142MB". */
export function formatBytesDecimal(bytes: number): string {
  return scaled(bytes, 1000, ["B", "kB", "MB", "GB", "TB", "PB"], 3);
}

/** Reads a number of CPUs ("0.5", "2", "1/4" is refused) into billionths. */
export function parseNanoCpus(text: string): Parsed<number> {
  if (!/^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$/.test(text)) return bad(`failed to parse ${quoted(text)} as a number`);
  const fraction = /\.([0-9]*?)0*$/.exec(text)?.[1] ?? "";
  if (fraction.length > 9) return bad(`value is too precise: ${quoted(text)}`);
  const nanos = Math.round(Number(text) * NANOS_PER_CPU);
  if (!Number.isSafeInteger(nanos)) return bad(`${quoted(text)} is too large`);
  return good(nanos);
}

/** Prints billionths of CPUs as a number of CPUs: "0.5". */
export function formatNanoCpus(nanoCpus: number): string {
  return trimmed(nanoCpus / NANOS_PER_CPU, 9);
}

/** Reads a whole number from `min` to `max`. */
export function parseInteger(text: string, bounds: { readonly min: number; readonly max: number }): Parsed<number> {
  if (!/^[+-]?[0-9]+$/.test(text)) return bad(`invalid value ${quoted(text)}: must be an integer`);
  const value = Number(text);
  if (value < bounds.min || value > bounds.max) {
    return bad(`invalid value ${quoted(text)}: must be from ${bounds.min} to ${bounds.max}`);
  }
  return good(value);
}

/** Reads a ratio from 0 to 1. */
export function parseRatio(text: string): Parsed<number> {
  const value = /^[0-9]*\.?[0-9]+$|^[0-9]+\.$/.test(text) ? Number(text) : Number.NaN;
  return value >= 0 && value <= 1 ? good(value) : bad(`invalid value ${quoted(text)}: must be from 0 to 1`);
}

/** An age or a length of time for people (go-units HumanDuration): "About an hour", "2 weeks". */
export function humanDuration(durationMs: number): string {
  const seconds = Math.trunc(durationMs / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(seconds / 3600 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(hours / 24 / 365)} years`;
}

/** How much of bad input a message repeats; more would flood a terminal or a log. */
const QUOTED_LENGTH_MAX = 128;

/** `text` as JSON, cut short: control characters cannot reach a terminal. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > QUOTED_LENGTH_MAX ? `${text.slice(0, QUOTED_LENGTH_MAX)}…` : text);
}

function scaled(bytes: number, base: number, units: readonly string[], digits: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return `${Number(value.toPrecision(digits))}${units[unit] ?? ""}`;
}

/** A decimal without exponent and without trailing zeros. */
function trimmed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
