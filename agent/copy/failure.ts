/** What went wrong with a copy in the container, in words that name the path there. */
import { getSystemErrorMap } from "node:util";
import { type ErrorCode, SwarmError } from "../../common/base/error.ts";
import { unpackOpName } from "../image/unpack-op.ts";

/** How paths of an archive are called in the container. */
export interface CopyFailure {
  shown(path: string): string;
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "not_found",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  ENOSPC: "resource_exhausted",
  EDQUOT: "resource_exhausted",
  EFBIG: "resource_exhausted",
  EMFILE: "resource_exhausted",
};

/** Where an errno's own words would not tell. */
const WORDS: Readonly<Record<string, string>> = {
  ENAMETOOLONG: "the path is too long or too deep",
  ELOOP: "a symbolic link is in the way",
  EROFS: "read-only file system",
  EBUSY: "something is mounted there",
};

/** Docker's words for what may not take the place of what. */
const CONFLICTS: Readonly<Record<string, string>> = {
  EISDIR: "cannot overwrite directory with non-directory",
  ENOTDIR: "cannot overwrite non-directory with directory",
};

/** The error of a failed step. */
export function copyFailure(
  { path, errno, operation }: { readonly path: string; readonly errno: number; readonly operation: number },
  { shown }: CopyFailure,
): SwarmError {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, "failed"];
  const code = CODES[name] ?? "failed_precondition";
  const place = shown(path);
  const step = operation === 0 ? "copy" : unpackOpName(operation);
  if (name === "ENOENT" && (step === "copy" || step === "go-into")) {
    const what = step === "copy" ? "the file" : "the directory";
    return new SwarmError(code, `could not find ${what} ${place} in the task`);
  }
  const conflict = operation === 0 || step === "look" || step === "go-into" ? undefined : CONFLICTS[name];
  return new SwarmError(code, `${place}: ${conflict ?? WORDS[name] ?? text} (${name})`);
}
