/** For tests of images: a store in a temporary directory, and a source that serves built images from memory. */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { type ImageReference, parseImageReference } from "../../common/model/image-reference.ts";
import type { ImageSource } from "../../common/registry/source.ts";
import type { BuiltBlob, BuiltImage } from "../../test/images.ts";
import { buildShim } from "../runtime/test-root.ts";
import { hostPlatform, ImageStore, type ImageStoreOptions } from "./store.ts";

/** A signal that never aborts: a test's own time-out bounds it. */
export const NEVER = new AbortController().signal;

/** A store's options in a new directory; disposal removes it. */
export class TestDirectory implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "swarm-images-"));
  readonly images = join(this.path, "images");

  options(overrides: Partial<ImageStoreOptions> = {}): ImageStoreOptions {
    return {
      directory: this.images,
      shimPath: buildShim(),
      platform: hostPlatform(),
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      ...overrides,
    };
  }

  open(overrides: Partial<ImageStoreOptions> = {}): Promise<ImageStore> {
    return ImageStore.open(this.options(overrides));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** Parses what a test knows to be good. */
export function reference(text: string): ImageReference {
  const parsed = parseImageReference(text);
  if (!parsed.ok) throw new Error(parsed.problem);
  return parsed.reference;
}

/** Serves images from memory and counts what it streamed. */
export class MemorySource implements ImageSource {
  readonly blobs = new Map<string, BuiltBlob>();
  readonly streamed: string[] = [];
  readonly #tops = new Map<string, BuiltBlob>();
  /** Size of the pieces of a stream. */
  pieceBytes = 64 * 1024;
  /** Called before each piece. */
  beforePiece: (signal: AbortSignal) => Promise<void> = async () => {};

  /** Offers an image under a familiar name. */
  add(name: string, image: BuiltImage, top: BuiltBlob = image.manifest): this {
    for (const blob of [image.manifest, image.config, ...image.layers, top]) this.blobs.set(blob.digest, blob);
    this.#tops.set(name, top);
    return this;
  }

  async resolve(asked: ImageReference) {
    const name = `${asked.path.replace(/^library\//, "")}:${asked.tag}`;
    const top = asked.digest === undefined ? this.#tops.get(name) : this.blobs.get(asked.digest);
    if (!top) return undefined;
    const { bytes, digest, mediaType } = top;
    return {
      origin: "memory",
      content: { bytes, digest, mediaType },
      fetch: async ({ digest: wanted }: { readonly digest: string }) => this.#blob(wanted).bytes,
      stream: (wanted: { readonly digest: string }, offset: number, signal: AbortSignal) =>
        this.#stream(wanted.digest, offset, signal),
    };
  }

  async *#stream(digest: string, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    this.streamed.push(digest);
    const { bytes } = this.#blob(digest);
    for (let at = offset; at < bytes.length; at += this.pieceBytes) {
      await this.beforePiece(signal);
      signal.throwIfAborted();
      yield bytes.subarray(at, at + this.pieceBytes);
    }
  }

  #blob(digest: string): BuiltBlob {
    const blob = this.blobs.get(digest);
    if (!blob) throw new SwarmError("not_found", `no blob ${digest}`);
    return blob;
  }
}
