/** What is at a path of this machine, as docker cp looks at it. Paths are byte strings inside, text where people read them. */
import type { Stats } from "node:fs";
import { lstat, readlink, realpath, stat } from "node:fs/promises";
import { posix } from "node:path";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { bytesOfText, pathOf, textOfBytes } from "./byte-path.ts";
import { localError } from "./pack.ts";
import { type CopyDestination, type CopySource, saysDirectory, sourceName } from "./rules.ts";

/** Links at the end of a destination that are followed (docker cp's number). */
const LINKS_MAX = 10;

/** A source on this machine: where it is, what it is called, and what it is. */
export interface LocalSource extends CopySource {
  readonly path: string;
}

/** An absolute path that still says what its end said. */
export function absolutePath(text: string): string {
  const path = posix.resolve(text);
  if (text === "." || text.endsWith("/.")) return `${path === "/" ? "" : path}/.`;
  return text.endsWith("/") && path !== "/" ? `${path}/` : path;
}

/** Links above the last part are followed; at the last part only when it is asked for, or a slash follows. */
export async function localSource(text: string, followLink: boolean): Promise<LocalSource> {
  const path = absolutePath(text);
  const whole = followLink || saysDirectory(path);
  const bytes = bytesOfText(path);
  try {
    const real = async (each: string) => await realpath(pathOf(each), { encoding: "latin1" });
    const last = posix.basename(bytes);
    const found = whole ? await real(bytes) : `${(await real(posix.dirname(bytes))).replace(/\/$/, "")}/${last}`;
    const state = await lstat(pathOf(found));
    if (saysDirectory(path) && !state.isDirectory()) throw new SwarmError("failed_precondition", `${text}: ENOTDIR`);
    return { path: found, name: bytesOfText(sourceName(path)), isDirectory: state.isDirectory() };
  } catch (reason) {
    throw localError(bytes, reason);
  }
}

/** Links at its end are followed, even to where nothing is; what lies above must exist. */
export async function localDestination(text: string): Promise<CopyDestination> {
  const written = absolutePath(text);
  const suffix = /\/\.?$/.exec(written)?.[0] ?? "";
  let path = bytesOfText(posix.resolve(text));
  await requireDirectory(posix.dirname(path));
  for (let links = 0; links <= LINKS_MAX; links++) {
    const state = await stateOf(path);
    if (state === undefined) return { path: `${path}${suffix}`, exists: false, isDirectory: false };
    if (state.isSymbolicLink()) {
      path = posix.resolve(posix.dirname(path), await readlink(pathOf(path), { encoding: "latin1" }));
      continue;
    }
    if (!state.isDirectory() && !state.isFile()) {
      throw new SwarmError("failed_precondition", `destination ${text} must be a directory or a regular file`);
    }
    if (suffix !== "" && !state.isDirectory()) throw new SwarmError("failed_precondition", `${text}: not a directory`);
    return { path, exists: true, isDirectory: state.isDirectory() };
  }
  throw new SwarmError("failed_precondition", `too many symbolic links in ${text}`);
}

async function stateOf(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(pathOf(path));
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw localError(path, reason);
  }
}

async function requireDirectory(path: string): Promise<void> {
  const state = await stat(pathOf(path)).catch(() => undefined);
  if (state?.isDirectory()) return;
  throw new SwarmError(
    "not_found",
    `invalid output path: directory ${JSON.stringify(textOfBytes(path))} does not exist`,
  );
}
