/** A local file or tree, as a tar in pieces. Paths and names are byte strings. */
import { constants, type Stats } from "node:fs";
import { lstat, open, opendir, readlink } from "node:fs/promises";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { TAR_END, type TarMember, tarHeader, tarPadding } from "../../common/model/tar-writer.ts";
import { pathOf, textOfBytes } from "./byte-path.ts";

/** What is to be packed. */
export interface PackOptions {
  /** A byte string; its own last link has been followed where it is to be. */
  readonly path: string;
  /** What it is called in the archive, a byte string; `.` for its content. */
  readonly name: string;
}

/** Files with several names that are remembered: beyond, a file's content is sent for each of its names. */
const LINKED_MAX = 48 * 1024;
const READ_BYTES = 256 * 1024;

interface OpenDirectory {
  readonly entries: AsyncIterator<{ readonly name: string }>;
  readonly path: string;
  readonly name: string;
}

/** Packs one source. What could not be packed as it is stands in `warnings` afterwards. */
export class Packer {
  readonly warnings: string[] = [];
  readonly #linked = new Map<string, string>();
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);

  /** The archive. A piece is only good until the next one is asked for. Throws what cannot be read, by its path. */
  async *pack({ path, name }: PackOptions): AsyncGenerator<Uint8Array, void, undefined> {
    const above: OpenDirectory[] = [];
    try {
      yield* this.#member(path, name, above);
      for (let last = above.at(-1); last !== undefined; last = above.at(-1)) {
        const { entries, path: directory, name: called } = last;
        const { value, done } = await reading(directory, () => entries.next());
        if (done) above.pop();
        else yield* this.#member(`${directory}/${value.name}`, `${called}/${value.name}`, above);
      }
      yield TAR_END;
    } finally {
      for (const { entries } of above) await entries.return?.();
    }
  }

  async *#member(path: string, name: string, above: OpenDirectory[]): AsyncGenerator<Uint8Array, void, undefined> {
    const state = await reading(path, () => lstat(pathOf(path)));
    if (state.isDirectory()) {
      yield tarHeader(memberOf(state, "directory", name));
      // The byte string is Node's "latin1": each byte a character.
      const directory = await reading(path, () => opendir(pathOf(path), { encoding: "latin1" }));
      above.push({ entries: directory[Symbol.asyncIterator](), path, name });
    } else if (state.isFile()) yield* this.#file(path, name);
    else if (state.isSymbolicLink()) {
      const target = await reading(path, () => readlink(pathOf(path), { encoding: "latin1" }));
      yield tarHeader({ ...memberOf(state, "symlink", name), link: target });
    } else if (state.isFIFO()) yield tarHeader(memberOf(state, "fifo", name));
    else this.warnings.push(`${textOfBytes(path)}: ${state.isSocket() ? "a socket" : "a device"}, left out`);
  }

  async *#file(path: string, name: string): AsyncGenerator<Uint8Array, void, undefined> {
    // Not blocking: it may have become a pipe meanwhile.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    await using file = await reading(path, () => open(pathOf(path), flags));
    const state = await reading(path, () => file.stat());
    const identity = `${state.dev}:${state.ino}`;
    const first = state.nlink > 1 ? this.#linked.get(identity) : undefined;
    if (first !== undefined) return yield tarHeader({ ...memberOf(state, "hardlink", name), link: first });
    if (state.nlink > 1 && this.#linked.size < LINKED_MAX) this.#linked.set(identity, name);
    yield tarHeader({ ...memberOf(state, "file", name), sizeBytes: state.size });
    let left = state.size;
    while (left > 0) {
      const length = Math.min(left, READ_BYTES);
      const { bytesRead } = await reading(path, () => file.read(this.#buffer, 0, length, null));
      if (bytesRead === 0) break;
      left -= bytesRead;
      yield this.#buffer.subarray(0, bytesRead);
    }
    if (left > 0) {
      const lost = `${left} bytes`;
      this.warnings.push(`${textOfBytes(path)}: became ${lost} shorter while it was read, zeros stand for them`);
      this.#buffer.fill(0);
    }
    for (; left > 0; left -= READ_BYTES) yield this.#buffer.subarray(0, left);
    yield tarPadding(state.size);
  }
}

function memberOf(state: Stats, kind: TarMember["kind"], path: string): TarMember {
  const { mode, uid, gid } = state;
  return {
    kind,
    path,
    link: "",
    mode: mode & 0o7777,
    uid,
    gid,
    mtimeSeconds: Math.floor(state.mtimeMs / 1000),
    sizeBytes: 0,
  };
}

async function reading<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (reason) {
    throw localError(path, reason);
  }
}

/** What this machine's file system refused. */
export function localError(path: string, reason: unknown): unknown {
  const errno = errnoOf(reason);
  if (errno === undefined) return reason;
  const code = errno === "ENOENT" ? "not_found" : errno === "EACCES" ? "permission_denied" : "failed_precondition";
  return new SwarmError(code, `${textOfBytes(path)}: ${errno}`, { cause: reason });
}
