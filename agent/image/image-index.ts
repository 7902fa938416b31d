/**
 * Which images are whole, and by what names they go. Small JSON files, each replaced by a rename:
 *
 *   blobs/<algorithm>/<hex>            manifests and configs, as they came
 *   images/<hex of manifest>.json      an image whose layers are all unpacked
 *   references/<hash of name>.json     a name that points to one
 */
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { SwarmError } from "../../common/base/error.ts";
import { newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { digestOf } from "../../common/model/digest.ts";
import { isDigest } from "../../common/model/image-reference.ts";
import { hexOf, syncDirectory, writeDurably } from "./layer-store.ts";

/** An image whose layers are all unpacked. */
export interface ImageRecord {
  readonly manifestDigest: string;
  readonly configDigest: string;
  /** Lowest first. */
  readonly diffIds: readonly string[];
  /** Digests of indexes it was chosen from: pinned references name these. */
  readonly indexDigests: readonly string[];
}

interface ReferenceRecord {
  readonly name: string;
  readonly manifestDigest: string;
}

/** Where the index lives. */
export interface ImageIndexOptions {
  readonly directory: string;
  /** On the same file system; files are made there and renamed. */
  readonly ingestDirectory: string;
  readonly random: Random;
  readonly log: Logger;
}

/** The images and names of one host, held in memory and on disk alike. */
export class ImageIndex {
  readonly #options: ImageIndexOptions;
  readonly #images = new Map<string, ImageRecord>();
  readonly #references = new Map<string, string>();
  /** When each image was used last, in wall time: over a restart the modification time of its record. */
  readonly #usedMs = new Map<string, number>();

  private constructor(options: ImageIndexOptions) {
    this.#options = options;
  }

  /** Reads the index. A damaged record is logged and forgotten: its image is pulled again. */
  static async open(options: ImageIndexOptions, hasLayer: (diffId: string) => boolean): Promise<ImageIndex> {
    const index = new ImageIndex(options);
    for (const name of ["images", "references", "blobs/sha256", "blobs/sha512"]) {
      await mkdir(join(options.directory, name), { recursive: true, mode: 0o700 });
    }
    await index.#load("images", (value, modifiedMs) => {
      const image = decodeImageRecord(value);
      if (!image.diffIds.every(hasLayer)) throw new SwarmError("data_loss", "a layer is missing");
      index.#images.set(image.manifestDigest, image);
      index.#usedMs.set(image.manifestDigest, modifiedMs);
    });
    await index.#load("references", (value) => {
      const { name, manifestDigest } = decodeReferenceRecord(value);
      if (!index.#images.has(manifestDigest)) throw new SwarmError("data_loss", "its image is missing");
      index.#references.set(name, manifestDigest);
    });
    return index;
  }

  images(): readonly ImageRecord[] {
    return [...this.#images.values()];
  }

  /** The image with this digest, its own or that of an index it came from. */
  byDigest(digest: string): ImageRecord | undefined {
    return this.#images.get(digest) ?? this.images().find(({ indexDigests }) => indexDigests.includes(digest));
  }

  /** The image that a canonical name points to. */
  byName(name: string): ImageRecord | undefined {
    const digest = this.#references.get(name);
    return digest === undefined ? undefined : this.#images.get(digest);
  }

  /** Canonical names that point to an image. */
  namesOf(manifestDigest: string): readonly string[] {
    return [...this.#references].filter(([, digest]) => digest === manifestDigest).map(([name]) => name);
  }

  /** When an image was used last, in wall time. */
  usedMs(manifestDigest: string): number {
    return this.#usedMs.get(manifestDigest) ?? 0;
  }

  /** Says that an image is used now; `recordUse` brings that to the disk. */
  use(manifestDigest: string, nowMs: number): void {
    this.#usedMs.set(manifestDigest, nowMs);
  }

  async recordUse(manifestDigest: string): Promise<void> {
    const seconds = this.usedMs(manifestDigest) / 1_000;
    await utimes(this.#imagePath(manifestDigest), seconds, seconds);
  }

  async putImage(image: ImageRecord): Promise<void> {
    await this.#replace(this.#imagePath(image.manifestDigest), JSON.stringify(image));
    this.#images.set(image.manifestDigest, image);
  }

  async putName(name: string, manifestDigest: string): Promise<void> {
    if (this.#references.get(name) === manifestDigest) return;
    await this.#replace(this.#referencePath(name), JSON.stringify({ name, manifestDigest } satisfies ReferenceRecord));
    this.#references.set(name, manifestDigest);
  }

  /** False when there is no such name. */
  async removeName(name: string): Promise<boolean> {
    if (!this.#references.delete(name)) return false;
    await rm(this.#referencePath(name), { force: true });
    return true;
  }

  async removeImage({ manifestDigest }: ImageRecord): Promise<void> {
    this.#images.delete(manifestDigest);
    this.#usedMs.delete(manifestDigest);
    for (const name of this.namesOf(manifestDigest)) await this.removeName(name);
    await rm(this.#imagePath(manifestDigest), { force: true });
  }

  /** Keeps a manifest or config under its digest, which the caller has checked. */
  async putBlob(digest: string, bytes: Uint8Array): Promise<void> {
    await this.#replace(this.#blobPath(digest), bytes);
  }

  /** Throws `data_loss` when it is gone or no longer what its digest says. */
  async blob(digest: string): Promise<Uint8Array> {
    const bytes = await readFile(this.#blobPath(digest)).catch(() => undefined);
    if (!bytes || digestOf(bytes, digest) !== digest)
      throw new SwarmError("data_loss", `image store: ${digest} is missing or damaged`);
    return bytes;
  }

  /** Removes blobs that no image needs. */
  async removeUnusedBlobs(isBusy: (digest: string) => boolean): Promise<void> {
    const used = new Set(this.images().flatMap(({ manifestDigest, configDigest }) => [manifestDigest, configDigest]));
    for (const algorithm of ["sha256", "sha512"]) {
      for (const hex of await readdir(join(this.#options.directory, "blobs", algorithm))) {
        const digest = `${algorithm}:${hex}`;
        if (!used.has(digest) && !isBusy(digest)) await rm(this.#blobPath(digest), { force: true });
      }
    }
  }

  async #load(name: string, take: (value: unknown, modifiedMs: number) => void): Promise<void> {
    const directory = join(this.#options.directory, name);
    for (const file of await readdir(directory)) {
      const path = join(directory, file);
      try {
        take(JSON.parse(await readFile(path, "utf8")), (await stat(path)).mtimeMs);
      } catch (err) {
        this.#options.log.warn({ err, path }, "forgetting a damaged image record");
        await rm(path, { force: true });
      }
    }
  }

  async #replace(path: string, content: string | Uint8Array): Promise<void> {
    const temporary = join(this.#options.ingestDirectory, newId(this.#options.random));
    try {
      await writeDurably(temporary, content);
      await rename(temporary, path);
    } catch (reason) {
      await rm(temporary, { force: true });
      throw reason;
    }
    await syncDirectory(join(path, ".."));
  }

  #imagePath(digest: string): string {
    return join(this.#options.directory, "images", `${hexOf(digest)}.json`);
  }

  #referencePath(name: string): string {
    return join(this.#options.directory, "references", `${hexOf(digestOf(Buffer.from(name)))}.json`);
  }

  #blobPath(digest: string): string {
    return join(this.#options.directory, "blobs", digest.startsWith("sha512:") ? "sha512" : "sha256", hexOf(digest));
  }
}

function decodeImageRecord(value: unknown): ImageRecord {
  const record = value as Readonly<Record<keyof ImageRecord, unknown>>;
  return {
    manifestDigest: digest(record.manifestDigest),
    configDigest: digest(record.configDigest),
    diffIds: (record.diffIds as readonly unknown[]).map(digest),
    indexDigests: (record.indexDigests as readonly unknown[]).map(digest),
  };
}

function decodeReferenceRecord(value: unknown): ReferenceRecord {
  const { name, manifestDigest } = value as Readonly<Record<keyof ReferenceRecord, unknown>>;
  if (typeof name !== "string") throw new SwarmError("data_loss", "not a reference record");
  return { name, manifestDigest: digest(manifestDigest) };
}

function digest(value: unknown): string {
  if (typeof value !== "string" || !isDigest(value)) throw new SwarmError("data_loss", "not a digest");
  return value;
}
