/**
 * Blobs on this manager's disk, by what they hash to. A blob is there whole or not at all: it is written under another
 * name, its size and sha256 are checked as it comes, and only then is it renamed into place.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { abortReason } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { newId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";

/** What a blob must turn out to be. */
export interface BlobHeader {
  /** "sha256:" and 64 hex digits. */
  readonly digest: string;
  readonly sizeBytes: number;
}

/** Read at once: large enough for the disk, small enough for a message (4 MiB) and for many readers. */
const CHUNK_BYTES = 256 * 1024;

const DIGEST = /^sha256:([a-f0-9]{64})$/;

export class BlobStore {
  readonly #folder: string;
  readonly #temporary: string;
  readonly #random: Random;
  /** Blobs being written now, so that two callers who bring the same one share the work of the first. */
  readonly #arriving = new Map<string, Promise<void>>();

  private constructor(folder: string, random: Random) {
    this.#folder = join(folder, "sha256");
    this.#temporary = join(folder, "incoming");
    this.#random = random;
  }

  /** Opens (or makes, 0700) the store in `folder`; what an interrupted run left half-written is removed. */
  static async open(folder: string, random: Random): Promise<BlobStore> {
    const store = new BlobStore(folder, random);
    await mkdir(store.#folder, { recursive: true, mode: 0o700 });
    await rm(store.#temporary, { recursive: true, force: true });
    await mkdir(store.#temporary, { mode: 0o700 });
    return store;
  }

  /** Which of `digests` are not here, in their order. */
  async missing(digests: readonly string[]): Promise<readonly string[]> {
    const missing: string[] = [];
    for (const digest of digests) if (!(await this.has(digest))) missing.push(digest);
    return missing;
  }

  async has(digest: string): Promise<boolean> {
    try {
      await stat(this.#pathOf(digest));
      return true;
    } catch (reason) {
      if (errnoOf(reason) === "ENOENT") return false;
      throw SwarmError.wrap(`look for blob ${digest}`, reason);
    }
  }

  /**
   * Stores one blob; one that is here already costs nothing, and its data is not read.
   * @throws invalid_argument unless size and sha256 agree, resource_exhausted when the disk is full; nothing stays then.
   */
  async put(blob: BlobHeader, data: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const path = this.#pathOf(blob.digest);
    const other = this.#arriving.get(blob.digest);
    // The other one may still fail; then this caller's data counts.
    if (other) await other.catch(() => {});
    if (await this.has(blob.digest)) return;
    const arrival = this.#receive(blob, data, path, signal);
    this.#arriving.set(blob.digest, arrival);
    try {
      await arrival;
    } finally {
      if (this.#arriving.get(blob.digest) === arrival) this.#arriving.delete(blob.digest);
    }
  }

  /** A blob's bytes from `offset`. @throws not_found; out_of_range for an offset past its end. */
  async *open(digest: string, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const file = await this.#openFile(digest);
    try {
      const { size } = await file.stat();
      if (offset > size) throw new SwarmError("out_of_range", `blob ${digest}: offset ${offset} is past its ${size} bytes`);
      let at = offset;
      while (at < size) {
        if (signal.aborted) throw abortReason(signal);
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - at)), 0, null, at);
        if (bytesRead === 0) throw new SwarmError("data_loss", `blob ${digest}: ends early`);
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }

  /** Forgets a blob; none is no error. Readers that have it open read on. */
  async delete(digest: string): Promise<void> {
    await rm(this.#pathOf(digest), { force: true });
  }

  /** The digests of all blobs here. */
  async list(): Promise<string[]> {
    return (await readdir(this.#folder)).map((hex) => `sha256:${hex}`);
  }

  async #receive(blob: BlobHeader, data: AsyncIterable<Uint8Array>, path: string, signal: AbortSignal): Promise<void> {
    const temporary = join(this.#temporary, newId(this.#random));
    try {
      const file = await open(temporary, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
      try {
        await writeChecked(file, blob, data, signal);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (reason) {
      await rm(temporary, { force: true });
      if (errnoOf(reason) === "ENOSPC" || errnoOf(reason) === "EDQUOT") {
        throw SwarmError.wrap(`store blob ${blob.digest}`, reason, "resource_exhausted");
      }
      throw SwarmError.wrap(`store blob ${blob.digest}`, reason);
    }
  }

  async #openFile(digest: string): Promise<FileHandle> {
    try {
      return await open(this.#pathOf(digest), constants.O_RDONLY);
    } catch (reason) {
      if (errnoOf(reason) === "ENOENT") throw new SwarmError("not_found", `no blob ${digest} here`);
      throw SwarmError.wrap(`open blob ${digest}`, reason);
    }
  }

  /** Digests become file names: nothing else may pass. */
  #pathOf(digest: string): string {
    const hex = DIGEST.exec(digest)?.[1];
    if (!hex) throw new SwarmError("invalid_argument", "digest: must be sha256: and 64 hex digits");
    return join(this.#folder, hex);
  }
}

async function writeChecked(
  file: FileHandle,
  { digest, sizeBytes }: BlobHeader,
  data: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of data) {
    if (signal.aborted) throw abortReason(signal);
    size += chunk.length;
    if (size > sizeBytes) throw new SwarmError("invalid_argument", `larger than its stated ${sizeBytes} bytes`);
    hash.update(chunk);
    await writeAll(file, chunk);
  }
  if (size !== sizeBytes) throw new SwarmError("invalid_argument", `has ${size} bytes, ${sizeBytes} were stated`);
  const found = `sha256:${hash.digest("hex")}`;
  if (found !== digest) throw new SwarmError("invalid_argument", `its content is ${found}`);
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let written = 0;
  while (written < chunk.length) written += (await file.write(chunk, written)).bytesWritten;
}
