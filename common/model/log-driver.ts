/**
 * Docker's log drivers as far as a node keeps logs itself: where a task's output goes, and how much of it is kept. The
 * manager refuses, and the node obeys, by this one table.
 */
import type { LogDriver } from "../../proto/gen/swarm/v1/types_pb.js";
import type { FieldProblem } from "../base/error.ts";
import type { Parsed } from "./parsed.ts";
import { parseBytes, parseInteger, quoted } from "./units.ts";

/** Docker's `local` driver: 5 files of 20 MB. Without a bound one talkative task fills the node's disk. */
const MAX_BYTES_DEFAULT = 20 * 1024 * 1024;
const MAX_FILES_DEFAULT = 5;
/** More files than these are only slow to rotate. */
const MAX_FILES_MAX = 99;

/** How much of a task's output is kept. */
export type LogRetention =
  | { readonly kind: "none" }
  /** `maxBytes` of each file; 0 means no bound. */
  | { readonly kind: "files"; readonly maxBytes: number; readonly maxFiles: number };

/** Either what is kept, or every bad field by its name in a stack file. */
export type ReadLogDriver =
  | { readonly ok: true; readonly retention: LogRetention }
  | { readonly ok: false; readonly problems: readonly FieldProblem[] };

/**
 * `json-file` and `local` (the default) keep files of `max-size` bytes, `max-file` of them; `none` drops the output, and
 * takes the same options as Docker's does. All files are in CRI form.
 */
export function readLogDriver(driver: LogDriver | undefined): ReadLogDriver {
  const name = driver?.name || "local";
  if (name !== "json-file" && name !== "local" && name !== "none") {
    const problem = `log driver ${quoted(name)} is not supported: json-file, local or none`;
    return { ok: false, problems: [{ field: "logging.driver", problem }] };
  }
  const problems: FieldProblem[] = [];
  let [maxBytes, maxFiles] = [MAX_BYTES_DEFAULT, MAX_FILES_DEFAULT];
  for (const [key, text] of Object.entries(driver?.options ?? {})) {
    const field = `logging.options.${quoted(key)}`;
    const take = (parsed: Parsed<number>) => {
      if (!parsed.ok) problems.push({ field, problem: parsed.problem });
      return parsed.ok ? parsed.value : 0;
    };
    if (key === "max-size") maxBytes = take(parseMaxSize(text));
    else if (key === "max-file") maxFiles = take(parseInteger(text, { min: 1, max: MAX_FILES_MAX }));
    else problems.push({ field, problem: "is not supported: only max-size and max-file are" });
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, retention: name === "none" ? { kind: "none" } : { kind: "files", maxBytes, maxFiles } };
}

/** Docker's -1 means no bound; 0 is refused there too. */
function parseMaxSize(text: string): Parsed<number> {
  if (text === "-1") return { ok: true, value: 0 };
  const size = parseBytes(text);
  return size.ok && size.value === 0 ? { ok: false, problem: "must be a positive number of bytes, or -1" } : size;
}
