/** What a tar's entries come to in a container: operations for the shim. Pure; decides, and resolves no path. */
import { SwarmError } from "../../common/base/error.ts";
import { cleanTarPath, type TarEntry, tarPathText } from "../../common/model/tar.ts";
import type { UnpackMetadata, UnpackOp } from "../image/unpack-op.ts";

/** What to do about an entry. */
export interface EntryOps {
  readonly ops: readonly UnpackOp[];
  /** Whether its content is to be sent after `ops`. */
  readonly takesContent: boolean;
  readonly warning?: string;
}

interface OpenDirectory {
  readonly path: string;
  readonly metadata: UnpackMetadata;
}

/** setuid, setgid: what a file must not keep when its owner is another. */
const SET_ID = 0o6000;

/** Translates one archive's entries, in order. */
export class EntryTranslator {
  readonly #keepOwners: boolean;
  /** Those that the last entry lies in: a directory gets its time when nothing more is put into it. */
  readonly #open: OpenDirectory[] = [];

  /** Without `keepOwners` everything is root's. */
  constructor({ keepOwners }: { readonly keepOwners: boolean }) {
    this.#keepOwners = keepOwners;
  }

  /** Throws `invalid_argument` for what must not be: a device, a name beyond the limits, a file without a name. */
  decide(entry: TarEntry): EntryOps {
    const { kind } = entry;
    const path = cleanTarPath(entry.path);
    if (typeof kind === "object") {
      const warning = `${tarPathText(entry.path)}: an entry of unknown type ${JSON.stringify(kind.other)}, left out`;
      return { ops: [], takesContent: false, warning };
    }
    // The directory that everything goes into is there, and stays as it is.
    if (path === "" && kind === "directory") return { ops: [], takesContent: false };
    if (path === "") throw refused(entry, "has no name");
    const left = this.#leave(path);
    const metadata = this.#metadata(entry);
    switch (kind) {
      case "directory":
        this.#open.push({ path, metadata });
        return { ops: [...left, { op: "directory", path, metadata }], takesContent: false };
      case "file": {
        const { sizeBytes } = entry;
        return { ops: [...left, { op: "file", path, metadata, sizeBytes }], takesContent: sizeBytes > 0 };
      }
      case "symlink":
        return { ops: [...left, { op: "symlink", path, metadata, target: entry.link }], takesContent: false };
      case "hardlink": {
        const target = cleanTarPath(entry.link);
        if (target === "") throw refused(entry, "is a link to nothing");
        return { ops: [...left, { op: "hardlink", path, target }], takesContent: false };
      }
      case "fifo":
        return { ops: [...left, { op: "fifo", path, metadata }], takesContent: false };
      case "character":
      case "block":
        throw refused(entry, "is a device node, and none is copied into a task");
    }
  }

  /** After the last entry. */
  finish(): readonly UnpackOp[] {
    return [...this.#leave(""), { op: "end" }];
  }

  /** Times of the directories that `path` does not lie in. */
  #leave(path: string): UnpackOp[] {
    const left: UnpackOp[] = [];
    while (true) {
      const last = this.#open.at(-1);
      if (last === undefined || path.startsWith(`${last.path}/`)) return left;
      this.#open.pop();
      left.push({ op: "time", ...last });
    }
  }

  #metadata({ kind, mode, uid, gid, mtimeSeconds, mtimeNanoseconds }: TarEntry): UnpackMetadata {
    const times = { mtimeSeconds, mtimeNanoseconds };
    if (this.#keepOwners) return { mode, uid, gid, ...times };
    return { mode: kind === "directory" ? mode : mode & ~SET_ID, uid: 0, gid: 0, ...times };
  }
}

function refused(entry: TarEntry, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `tar entry ${tarPathText(entry.path)} ${problem}`);
}
