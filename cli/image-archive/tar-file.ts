/** A tar file on disk as a table: where each file's content lies, so that layers are read in place and never copied. */
import { type FileHandle, open } from "node:fs/promises";
import { SwarmError } from "../../common/base/error.ts";
import { cleanTarPath, TarParser } from "../../common/model/tar.ts";

interface Place {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Large enough that a scan is bound by the disk. */
const READ_BYTES = 1024 * 1024;
/** An archive of thousands of images has fewer members. */
const LINKS_MAX = 16;

/** An open tar file; dispose it when done. */
export class TarFile implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #places: ReadonlyMap<string, Place>;
  readonly #links: ReadonlyMap<string, string>;

  private constructor(
    file: FileHandle,
    path: string,
    places: ReadonlyMap<string, Place>,
    links: ReadonlyMap<string, string>,
  ) {
    this.#file = file;
    this.#path = path;
    this.#places = places;
    this.#links = links;
  }

  /** Opens and scans. Throws `not_found` or `permission_denied` for a file that cannot be read, `invalid_argument` for no tar. */
  static async open(path: string, signal: AbortSignal): Promise<TarFile> {
    const file = await open(path, "r");
    try {
      const { places, links } = await scan(file, signal);
      return new TarFile(file, path, places, links);
    } catch (reason) {
      await file.close();
      // A system error goes on as it is: its errno says what to tell the user.
      throw reason instanceof SwarmError ? SwarmError.wrap(path, reason) : reason;
    }
  }

  /** Length in bytes of a member, or undefined when there is no such file. Symbolic links in old archives are followed. */
  size(name: string): number | undefined {
    return this.#find(name)?.sizeBytes;
  }

  /** A member's content in pieces. Throws `not_found`. */
  async *stream(name: string): AsyncGenerator<Uint8Array, void, undefined> {
    const place = this.#find(name);
    if (!place) throw new SwarmError("not_found", `${this.#path}: ${name} is missing`);
    for (let done = 0; done < place.sizeBytes; ) {
      const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, place.sizeBytes - done));
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, place.offset + done);
      if (bytesRead === 0) throw new SwarmError("data_loss", `${this.#path}: shrank while it was read`);
      done += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** A small member whole. Throws `not_found`, or `resource_exhausted` beyond `bytesMax`. */
  async read(name: string, bytesMax: number): Promise<Buffer> {
    const sizeBytes = this.size(name) ?? 0;
    if (sizeBytes > bytesMax)
      throw new SwarmError("resource_exhausted", `${this.#path}: ${name} is over ${bytesMax} bytes`);
    return Buffer.concat(await Array.fromAsync(this.stream(name)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  #find(name: string): Place | undefined {
    let current = cleanTarPath(name);
    for (let followed = 0; followed < LINKS_MAX; followed++) {
      const target = this.#links.get(current);
      if (target === undefined) break;
      current = cleanTarPath(target.startsWith("/") ? target : `${current}/../${target}`);
    }
    return this.#places.get(current);
  }
}

async function scan(file: FileHandle, signal: AbortSignal) {
  const places = new Map<string, Place>();
  const links = new Map<string, string>();
  const parser = new TarParser();
  let position = 0;
  let current: { readonly path: string; readonly sizeBytes: number } | undefined;
  while (true) {
    signal.throwIfAborted();
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const { bytesRead } = await file.read(buffer, 0, READ_BYTES, position);
    if (bytesRead === 0) break;
    if (position === 0 && buffer[0] === 0x1f && buffer[1] === 0x8b) {
      throw new SwarmError("invalid_argument", "is compressed: unpack it with gunzip first");
    }
    for (const event of parser.push(buffer.subarray(0, bytesRead))) {
      if (event.event === "data") {
        const offset = position + (event.bytes.byteOffset - buffer.byteOffset);
        if (current) places.set(current.path, { offset, sizeBytes: current.sizeBytes });
        current = undefined;
        continue;
      }
      const { entry } = event;
      const path = cleanTarPath(entry.path);
      current = entry.kind === "file" ? { path, sizeBytes: entry.sizeBytes } : undefined;
      if (entry.kind === "file" && entry.sizeBytes === 0) places.set(path, { offset: 0, sizeBytes: 0 });
      if (entry.kind === "symlink") links.set(path, entry.link);
      if (entry.kind === "hardlink") links.set(path, `/${entry.link}`);
    }
    position += bytesRead;
  }
  parser.finish();
  return { places, links };
}
