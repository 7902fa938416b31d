/**
 * A tar that comes from a container, as files on this machine. The archive is not trusted: everything comes to lie at or below
 * the one path that was meant, each entry in a directory that stands right above it in the archive, and through no link.
 */
import { constants, type Stats } from "node:fs";
import {
  chmod,
  type FileHandle,
  lchown,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  symlink,
  unlink,
  utimes,
} from "node:fs/promises";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { FirstFew } from "../../common/base/first-few.ts";
import { cleanTarPath, type TarEntry, TarParser, tarPathText } from "../../common/model/tar.ts";
import { pathOf, textOfBytes } from "./byte-path.ts";
import { localError } from "./pack.ts";

/** Where it goes. */
export interface UnpackOptions {
  /** A byte string: what the archive's first name becomes. What lies above it exists. */
  readonly path: string;
  /** The archive's first name, a byte string; `.` for content without one. */
  readonly name: string;
  /** Owners and set-id bits as in the archive; that takes root. */
  readonly keepOwners: boolean;
}

interface OpenDirectory {
  readonly path: string;
  readonly entry: TarEntry;
  /** It was there before: then its metadata may be somebody else's to change. */
  readonly existed: boolean;
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly path: string;
  readonly entry: TarEntry;
  at: number;
}

/** Warnings that are told one by one: an archive may hold a million devices. */
const WARNINGS_MAX = 100;
/** Zeros of at least this length are not written: a sparse file stays one. */
const HOLE_BYTES_MIN = 4096;

/** Feed it with `push`, then call `finish`; disposal closes what is open and leaves what is written. */
export class Unpacker implements AsyncDisposable {
  /** What was left out. */
  readonly warnings = new FirstFew(WARNINGS_MAX);
  readonly #options: UnpackOptions;
  readonly #parser = new TarParser();
  readonly #open: OpenDirectory[] = [];
  #file: OpenFile | undefined;

  constructor(options: UnpackOptions) {
    this.#options = options;
  }

  /** Throws `invalid_argument` for an archive that is malformed or not what was asked for, and what the disk refuses. */
  async push(chunk: Uint8Array): Promise<void> {
    for (const event of this.#parser.push(chunk)) {
      if (event.event === "entry") await this.#entry(event.entry);
      else if (this.#file) await this.#content(this.#file, event.bytes);
    }
  }

  async finish(): Promise<void> {
    this.#parser.finish();
    await this.#closeFile();
    await this.#leave("");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.handle.close();
    this.#file = undefined;
  }

  async #entry(entry: TarEntry): Promise<void> {
    await this.#closeFile();
    const path = this.#pathOf(entry, entry.path);
    await this.#leave(path);
    const above = path.slice(0, path.lastIndexOf("/"));
    if (path !== this.#options.path && this.#open.at(-1)?.path !== above) {
      throw refused(entry, "comes before the directory that it is in");
    }
    await touching(path, () => this.#put(entry, path));
  }

  async #put(entry: TarEntry, path: string): Promise<void> {
    switch (entry.kind) {
      case "directory":
        return await this.#directory(entry, path);
      case "file": {
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
        const handle = await this.#replace(entry, path, () => open(pathOf(path), flags, 0o600));
        this.#file = { handle, path, entry, at: 0 };
        if (entry.sizeBytes === 0) await this.#closeFile();
        return;
      }
      case "symlink":
        await this.#replace(entry, path, () => symlink(pathOf(entry.link), pathOf(path)));
        if (this.#options.keepOwners) await lchown(pathOf(path), entry.uid, entry.gid);
        return await lutimes(pathOf(path), entry.mtimeSeconds, entry.mtimeSeconds);
      case "hardlink": {
        const target = this.#pathOf(entry, entry.link);
        await this.#requirePlain(entry, target);
        return await this.#replace(entry, path, () => link(pathOf(target), pathOf(path)));
      }
      default: {
        const what =
          typeof entry.kind === "object" ? "of an unknown type" : entry.kind === "fifo" ? "a pipe" : "a device";
        this.warnings.add(`${textOfBytes(path)}: ${what}, left out`);
      }
    }
  }

  async #directory(entry: TarEntry, path: string): Promise<void> {
    // Until it is left it must be open to us, whatever it is to become.
    const made = await mkdir(pathOf(path), 0o700).then(
      () => true,
      (reason: unknown) => {
        if (errnoOf(reason) === "EEXIST") return false;
        throw reason;
      },
    );
    if (!made && !(await lstat(pathOf(path))).isDirectory()) {
      throw conflict(`cannot overwrite non-directory ${textOfBytes(path)} with directory`);
    }
    this.#open.push({ path, entry, existed: !made });
  }

  /** Makes something where nothing is, or something that is no directory, which gives way. */
  async #replace<T>(entry: TarEntry, path: string, make: () => Promise<T>): Promise<T> {
    try {
      return await make();
    } catch (reason) {
      if (errnoOf(reason) !== "EEXIST") throw reason;
    }
    if ((await lstat(pathOf(path))).isDirectory()) {
      throw conflict(`cannot overwrite directory ${textOfBytes(path)} with non-directory ${tarPathText(entry.path)}`);
    }
    await unlink(pathOf(path));
    return await make();
  }

  /** A hard link's target is reached through plain directories only, and is none itself. */
  async #requirePlain(entry: TarEntry, target: string): Promise<void> {
    const { path: top } = this.#options;
    for (let end = target.length; end >= top.length; end = target.lastIndexOf("/", end - 1)) {
      const state: Stats = await lstat(pathOf(target.slice(0, end)));
      const plain = end === target.length ? !state.isDirectory() : state.isDirectory();
      if (!plain) throw refused(entry, "is a link to what is not below it");
    }
  }

  async #content(file: OpenFile, bytes: Uint8Array): Promise<void> {
    await touching(file.path, async () => {
      const isHole = bytes.length >= HOLE_BYTES_MIN && bytes.every((byte) => byte === 0);
      for (let done = isHole ? bytes.length : 0; done < bytes.length; ) {
        done += (await file.handle.write(bytes, done, bytes.length - done, file.at + done)).bytesWritten;
      }
      file.at += bytes.length;
    });
    if (file.at === file.entry.sizeBytes) await this.#closeFile();
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    if (!file) return;
    this.#file = undefined;
    const { handle, entry } = file;
    const { keepOwners } = this.#options;
    try {
      await touching(file.path, async () => {
        if (file.at > 0) await handle.truncate(file.at);
        if (keepOwners) await handle.chown(entry.uid, entry.gid);
        await handle.chmod(entry.mode & (keepOwners ? 0o7777 : 0o777));
        await handle.utimes(entry.mtimeSeconds, entry.mtimeSeconds);
      });
    } finally {
      await handle.close();
    }
  }

  /** Directories that `path` does not lie in get what the archive says of them. */
  async #leave(path: string): Promise<void> {
    while (true) {
      const last = this.#open.at(-1);
      if (last === undefined || path.startsWith(`${last.path}/`)) return;
      this.#open.pop();
      await touching(last.path, () => this.#settle(last));
    }
  }

  async #settle({ path, entry, existed }: OpenDirectory): Promise<void> {
    const { keepOwners, name, path: top } = this.#options;
    // Content goes into a directory that stays as it is.
    if (existed && name === "." && path === top) return;
    try {
      if (keepOwners) await lchown(pathOf(path), entry.uid, entry.gid);
      await chmod(pathOf(path), entry.mode & (keepOwners ? 0o7777 : 0o1777));
      await utimes(pathOf(path), entry.mtimeSeconds, entry.mtimeSeconds);
    } catch (reason) {
      if (!existed || errnoOf(reason) !== "EPERM") throw reason;
    }
  }

  /** Where an entry's name leads on this machine. */
  #pathOf(entry: TarEntry, name: string): string {
    const { path, name: first } = this.#options;
    const clean = cleanTarPath(name);
    if (first === ".") return clean === "" ? path : `${path}/${clean}`;
    if (clean === first) return path;
    if (clean.startsWith(`${first}/`)) return `${path}${clean.slice(first.length)}`;
    throw refused(entry, "is not what was asked for");
  }
}

async function touching<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (reason) {
    throw localError(path, reason);
  }
}

function refused(entry: TarEntry, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `the archive's entry ${tarPathText(entry.path)} ${problem}`);
}

function conflict(problem: string): SwarmError {
  return new SwarmError("failed_precondition", problem);
}
