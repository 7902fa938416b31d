/** Docker's log drivers as far as a node keeps logs itself: where a task's output goes, and how much of it is kept. */
import { SwarmError } from "../common/base/error.ts";
import type { Parsed } from "../common/model/parsed.ts";
import { parseBytes, parseInteger } from "../common/model/units.ts";
import type { LogDriver } from "../proto/gen/swarm/v1/types_pb.js";

/** Docker's `local` driver: 5 files of 20 MB. Without a bound one talkative task fills the node's disk. */
const MAX_BYTES_DEFAULT = 20 * 1024 * 1024;
const MAX_FILES_DEFAULT = 5;
/** More files than these are only slow to rotate. */
const MAX_FILES_MAX = 99;

/** How much of a task's output is kept. */
export type LogRetention =
  | { readonly kind: "none" }
  | { readonly kind: "files"; readonly maxBytes: number; readonly maxFiles: number };

/**
 * `json-file` and `local` keep files (max-size, max-file), `none` drops the output; all files are in CRI form. Throws
 * `invalid_argument` for other drivers and options.
 */
export function logRetention(driver: LogDriver | undefined): LogRetention {
  const name = driver?.name || "local";
  const options = new Map(Object.entries(driver?.options ?? {}));
  if (name === "none") return { kind: "none" };
  if (name !== "json-file" && name !== "local") throw bad(`log driver ${JSON.stringify(name)} is not supported`);
  let [maxBytes, maxFiles] = [MAX_BYTES_DEFAULT, MAX_FILES_DEFAULT];
  for (const [key, text] of options) {
    // Docker's -1 means no bound.
    if (key === "max-size") maxBytes = text === "-1" ? 0 : option(key, parseBytes(text));
    else if (key === "max-file") maxFiles = option(key, parseInteger(text, { min: 1, max: MAX_FILES_MAX }));
    else throw bad(`log option ${JSON.stringify(key)} is not supported by ${name}`);
  }
  return { kind: "files", maxBytes, maxFiles };
}

function option(key: string, parsed: Parsed<number>): number {
  if (!parsed.ok) throw bad(`log option ${key}: ${parsed.problem}`);
  return parsed.value;
}

function bad(problem: string): SwarmError {
  return new SwarmError("invalid_argument", problem);
}
