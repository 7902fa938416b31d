/** Blobs on disk, named by their digests: what `swarmctl image load` brought, and copies of what other managers hold. */
import { createHash } from "node:crypto";
import { chmod, type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { abortReason, type Clock } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { untilAborted } from "../../common/base/until-aborted.ts";
import { isDigest } from "../../common/model/image-reference.ts";

/** What a blob store is made of. */
export interface BlobStoreOptions {
  /** Its own directory, which nobody else may write to; made with mode 0700. */
  readonly directory: string;
  readonly clock: Clock;
}

/** What a blob must turn out to be. */
export interface BlobHeader {
  readonly digest: string;
  readonly sizeBytes: number;
}

interface Blob {
  readonly sizeBytes: number;
  /** When it was stored or last asked for, in the clock's monotonic ms. */
  usedMs: number;
}

/** Bytes per part of a blob that is read: far below gRPC's limit, large enough to keep a link busy. */
const PART_BYTES = 256 * 1024;
const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;

/**
 * Content by digest. A blob is there whole and verified or not at all: it is written to `ingest/` while its hash is
 * computed, and renamed into `blobs/` once size and hash agree and its bytes are on the disk. What a crash left in
 * `ingest/` is removed when the store is opened. The list of blobs is held in memory: the directory has one owner.
 */
export class BlobStore {
  readonly #blobsDirectory: string;
  readonly #ingestDirectory: string;
  readonly #clock: Clock;
  readonly #blobs = new Map<string, Blob>();
  #ingestCount = 0;

  private constructor({ directory, clock }: BlobStoreOptions) {
    this.#blobsDirectory = join(directory, "blobs");
    this.#ingestDirectory = join(directory, "ingest");
    this.#clock = clock;
  }

  /** Opens the store in `directory`, making it if need be. */
  static async open(options: BlobStoreOptions): Promise<BlobStore> {
    const store = new BlobStore(options);
    await rm(store.#ingestDirectory, { recursive: true, force: true });
    for (const directory of [options.directory, store.#blobsDirectory, store.#ingestDirectory]) {
      await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE });
      await chmod(directory, DIRECTORY_MODE);
    }
    for (const entry of await readdir(store.#blobsDirectory, { withFileTypes: true })) {
      const digest = entry.name.replace("-", ":");
      if (!entry.isFile() || !isDigest(digest)) continue;
      const { size } = await stat(store.#pathOf(digest));
      store.#blobs.set(digest, { sizeBytes: size, usedMs: options.clock.monotonicMs() });
    }
    return store;
  }

  /** Whether the blob is here. */
  has(digest: string): boolean {
    return this.#blobs.has(digest);
  }

  /** The size in bytes of every blob here, by digest. */
  sizes(): ReadonlyMap<string, number> {
    return new Map([...this.#blobs].map(([digest, { sizeBytes }]) => [digest, sizeBytes]));
  }

  /** Which of `digests` are not here. Those that are count as used now: somebody is about to build on them. */
  async missing(digests: readonly string[]): Promise<readonly string[]> {
    return digests.filter((digest) => !this.#touch(digest));
  }

  /**
   * Stores one blob; one that is here already is not read again.
   * @throws invalid_argument for a bad digest, and unless size and hash agree; resource_exhausted when the disk is full.
   * Whatever it throws, nothing of the blob stays.
   */
  async put(header: BlobHeader, data: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const { digest, sizeBytes } = header;
    const path = this.#pathOf(digest);
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw refused(digest, `${sizeBytes} is not a size`);
    const present = this.#touch(digest);
    if (present) {
      if (present.sizeBytes !== sizeBytes) throw refused(digest, `has ${present.sizeBytes} bytes, not ${sizeBytes}`);
      return;
    }
    const ingest = join(this.#ingestDirectory, String(this.#ingestCount++));
    try {
      await ingestBlob(ingest, header, data, signal);
      await rename(ingest, path);
      await syncDirectory(this.#blobsDirectory);
    } catch (reason) {
      await rm(ingest, { force: true });
      throw putError(digest, reason);
    }
    this.#blobs.set(digest, { sizeBytes, usedMs: this.#clock.monotonicMs() });
  }

  /**
   * A blob's bytes from `offset` on, in parts of 256 KiB.
   * @throws not_found; out_of_range for an offset behind its end; data_loss when the file has become shorter.
   */
  async *open(digest: string, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const blob = this.#touch(digest);
    if (!blob) throw new SwarmError("not_found", `blob ${digest.slice(0, 150)}: not here`);
    const { sizeBytes } = blob;
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > sizeBytes) {
      throw new SwarmError("out_of_range", `blob ${digest}: offset ${offset} of ${sizeBytes} bytes`);
    }
    await using file = await this.#openFile(digest);
    for (let at = offset; at < sizeBytes; ) {
      if (signal.aborted) throw abortReason(signal);
      // A part of its own each time: the reader may keep it.
      const part = Buffer.allocUnsafeSlow(Math.min(PART_BYTES, sizeBytes - at));
      const { bytesRead } = await file.read(part, 0, part.length, at);
      if (bytesRead === 0) throw new SwarmError("data_loss", `blob ${digest}: ends at ${at} of ${sizeBytes} bytes`);
      at += bytesRead;
      yield part.subarray(0, bytesRead);
    }
  }

  /** Forgets a blob; none is no error. Who is reading it reads on. */
  async delete(digest: string): Promise<void> {
    if (!this.#blobs.delete(digest)) return;
    await rm(this.#pathOf(digest), { force: true });
  }

  /** Deletes the blobs that are not in `used` and that nobody has asked for in `unusedMs`; returns their digests. */
  async deleteUnused(used: ReadonlySet<string>, unusedMs: number): Promise<readonly string[]> {
    const beforeMs = this.#clock.monotonicMs() - unusedMs;
    const idle = [...this.#blobs].filter(([digest, { usedMs }]) => !used.has(digest) && usedMs <= beforeMs);
    for (const [digest] of idle) await this.delete(digest);
    return idle.map(([digest]) => digest);
  }

  /** The blob, which counts as used now. */
  #touch(digest: string): Blob | undefined {
    const blob = this.#blobs.get(digest);
    if (blob) blob.usedMs = this.#clock.monotonicMs();
    return blob;
  }

  async #openFile(digest: string): Promise<FileHandle> {
    try {
      return await open(this.#pathOf(digest), "r");
    } catch (reason) {
      if (errnoOf(reason) !== "ENOENT") throw SwarmError.wrap(`open blob ${digest}`, reason);
      // Somebody removed the file behind our back: it can be put again.
      this.#blobs.delete(digest);
      throw new SwarmError("not_found", `blob ${digest}: its file is gone`);
    }
  }

  /** Only the form of a digest, which has no slash, may become part of a path. */
  #pathOf(digest: string): string {
    if (!isDigest(digest)) {
      throw new SwarmError("invalid_argument", `${JSON.stringify(digest.slice(0, 150))} is not a digest`);
    }
    return join(this.#blobsDirectory, digest.replace(":", "-"));
  }
}

/** Writes `data` to `path` and makes sure that it is the blob of the header. */
async function ingestBlob(
  path: string,
  { digest, sizeBytes }: BlobHeader,
  data: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const algorithm = digest.slice(0, digest.indexOf(":"));
  const hash = createHash(algorithm);
  let written = 0;
  await using file = await open(path, "wx", FILE_MODE);
  for await (const part of untilAborted(data, signal)) {
    written += part.length;
    if (written > sizeBytes) throw refused(digest, `more than the ${sizeBytes} bytes that it should have`);
    const writing = file.writeFile(part);
    hash.update(part);
    await writing;
  }
  if (written !== sizeBytes) throw refused(digest, `${written} of ${sizeBytes} bytes came`);
  const actual = `${algorithm}:${hash.digest("hex")}`;
  if (actual !== digest) throw refused(digest, `its content is ${actual}`);
  await file.datasync();
}

/** A rename is on the disk when its directory is. */
async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, "r");
  await directory.sync();
}

function refused(digest: string, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `blob ${digest}: ${problem}`);
}

function putError(digest: string, reason: unknown): SwarmError {
  if (reason instanceof SwarmError) return reason;
  const errno = errnoOf(reason);
  const full = errno === "ENOSPC" || errno === "EDQUOT";
  return SwarmError.wrap(`store blob ${digest}`, reason, full ? "resource_exhausted" : "unavailable");
}
