/** `--since`: a point in time, or a length of time before now. Pure. */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parseDurationMs, quoted } from "../../common/model/units.ts";

/** Ms since the epoch for "2026-01-02T13:23:37Z", "2026-01-02", "1136073600.5" (Unix seconds) or "42m". */
export function parseSinceMs(text: string, nowMs: number): Parsed<number> {
  if (/^\d{9,}(?:\.\d+)?$/.test(text)) return good(Number(text) * 1000);
  const ago = parseDurationMs(text);
  if (ago.ok) return good(nowMs - ago.value);
  const atMs = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(atMs) ? bad(`${quoted(text)} is neither a time nor a duration`) : good(atMs);
}
