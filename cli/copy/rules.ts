/** The rules of `docker cp`: how its words are read, and which name comes to lie where. Pure. */
import { posix } from "node:path";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";

/** One side of a copy, as it was written. */
export type CopyEnd =
  | { readonly kind: "local"; readonly path: string }
  | { readonly kind: "task"; readonly reference: string; readonly path: string }
  /** `-`: a tar on standard input or output. */
  | { readonly kind: "stream" };

/** `web.1:/etc/hosts`, `./local:file`, `/abs`, `-`. */
export function parseCopyEnd(text: string): Parsed<CopyEnd> {
  if (text === "-") return good({ kind: "stream" });
  const colon = text.indexOf(":");
  if (text === "") return bad("must not be empty");
  // A path that begins with a slash or a dot is this machine's, whatever follows.
  if (colon < 0 || text.startsWith("/") || text.startsWith(".")) return good({ kind: "local", path: text });
  const [reference, path] = [text.slice(0, colon), text.slice(colon + 1)];
  if (reference === "" || path === "") return bad(`${JSON.stringify(text.slice(0, 128))} is not TASK:PATH`);
  return good({ kind: "task", reference, path });
}

/** The last part of a source's path: what it is called in the archive. `.`: its content, without a name of its own. */
export function sourceName(path: string): string {
  if (saysContent(path)) return ".";
  const name = posix.basename(posix.normalize(path));
  return name === "" ? "." : name;
}

/** Whether a path says that it is a directory: by a slash or a dot at its end. */
export function saysDirectory(path: string): boolean {
  return path.endsWith("/") || saysContent(path);
}

function saysContent(path: string): boolean {
  return path === "." || path.endsWith("/.");
}

/** What is to be copied. */
export interface CopySource {
  readonly name: string;
  readonly isDirectory: boolean;
}

/** Where to, with the links at its end followed. */
export interface CopyDestination {
  readonly path: string;
  readonly exists: boolean;
  readonly isDirectory: boolean;
}

/** The existing directory that it goes into, and what it is called there. `.`: its content goes right into it. */
export interface CopyPlacement {
  readonly directory: string;
  readonly name: string;
}

/**
 * docker cp's table:
 *
 *     destination      a file as source              a directory as source
 *     a directory      into it, by its name          into it, by its name, or its content
 *     a file           in its place                  refused
 *     nothing          by that name; refused         by that name
 *                      if that says a directory
 */
export function placeCopy(source: CopySource, destination: CopyDestination): Parsed<CopyPlacement> {
  const { path } = destination;
  if (destination.exists && destination.isDirectory) return good({ directory: path, name: source.name });
  if (destination.exists && source.isDirectory) return bad("cannot copy a directory to where a file is");
  if (!destination.exists && !source.isDirectory && saysDirectory(path)) return bad(`no such directory: ${path}`);
  const clean = posix.normalize(path).replace(/(?<=.)\/$/, "");
  if (saysContent(path)) return good({ directory: clean, name: "." });
  return good({ directory: posix.dirname(clean), name: posix.basename(clean) });
}
