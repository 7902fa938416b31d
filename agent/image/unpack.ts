/**
 * Unpacks one layer while it arrives:
 *
 *   content -> size, digest -> decompress -> diff id, bomb limits -> tar -> decisions -> swarm-shim unpack
 *
 * Nothing is kept in memory beyond a few pieces. Whether the layer is what it was said to be is known only at the end, so
 * the directory is to be thrown away unless `unpackLayer` returns.
 */
import { createHash, type Hash } from "node:crypto";
import { SwarmError } from "../../common/base/error.ts";
import { algorithmOf } from "../../common/model/digest.ts";
import { type Descriptor, layerCompression } from "../../common/model/oci-image.ts";
import { TarParser } from "../../common/model/tar.ts";
import { decompress } from "./decompress.ts";
import { type EntryDecision, type LayerFacts, LayerTranslator, NO_DECISION } from "./layer.ts";
import { UnpackProcess } from "./unpack-process.ts";

/** How large a layer may become. */
export interface UnpackLimits {
  /** Of the uncompressed layer. Default 10 GiB. */
  readonly expandedBytesMax: number;
  /** Uncompressed to compressed. Default 100: beyond it is a bomb. */
  readonly ratioMax: number;
  /** Layers that expand to less are never bombs, whatever their ratio. Default 64 MiB. */
  readonly ratioFromBytes: number;
}

/** Raising them lets one image fill a disk; lowering them refuses large images of databases and models. */
export const DEFAULT_UNPACK_LIMITS: UnpackLimits = {
  expandedBytesMax: 10 * 1024 ** 3,
  ratioMax: 100,
  ratioFromBytes: 64 * 1024 ** 2,
};

/** What to unpack, and where to. */
export interface UnpackOptions {
  readonly shimPath: string;
  /** Exists, is empty and private. */
  readonly directory: string;
  readonly layer: Descriptor;
  /** Digest that the uncompressed layer must have. */
  readonly diffId: string;
  readonly limits: UnpackLimits;
}

/**
 * Unpacks `content` and checks sizes and both digests. Throws `data_loss` for content that is not what its digests say,
 * `invalid_argument` for a malformed or forbidden layer, `resource_exhausted` beyond a limit or on a full disk, and what
 * `content` throws. When it returns, all of it is on disk.
 */
export async function unpackLayer(
  options: UnpackOptions,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<LayerFacts> {
  const { layer, diffId } = options;
  try {
    const stored = new Checked(layer.digest, layer.sizeBytes);
    const tar = new Checked(diffId, undefined);
    const translator = new LayerTranslator();
    await using process = new UnpackProcess(
      { shimPath: options.shimPath, directory: options.directory, fileBytesMax: options.limits.expandedBytesMax },
      signal,
    );
    const parser = new TarParser();
    let current: EntryDecision = NO_DECISION;
    for await (const bytes of decompress(stored.pass(content), layerCompression(layer))) {
      tar.add(bytes);
      refuseBomb(tar.sizeBytes, stored.sizeBytes, options);
      for (const event of parser.push(bytes)) {
        if (event.event === "data") {
          translator.content(event.bytes);
          if (current.takesContent) await process.content(event.bytes);
          continue;
        }
        await process.send(current.opsAfter);
        current = translator.decide(event.entry);
        await process.send(current.ops);
      }
    }
    parser.finish();
    await process.send(current.opsAfter);
    stored.verify("layer");
    tar.verify("uncompressed layer");
    await process.send(translator.finish());
    await process.finish();
    return translator.facts();
  } catch (reason) {
    throw SwarmError.wrap(`layer ${layer.digest}`, reason);
  }
}

function refuseBomb(expandedBytes: number, storedBytes: number, { limits }: UnpackOptions): void {
  const isTooLarge = expandedBytes > limits.expandedBytesMax;
  const isBomb = expandedBytes > limits.ratioFromBytes && expandedBytes > limits.ratioMax * storedBytes;
  if (!isTooLarge && !isBomb) return;
  const limit = isTooLarge ? `${limits.expandedBytesMax} bytes` : `${limits.ratioMax} times its compressed size`;
  throw new SwarmError("resource_exhausted", `expands beyond ${limit}`);
}

/** Counts and hashes bytes on their way, and stops them at the first one too many. */
export class Checked {
  readonly #hash: Hash;
  readonly #digest: string;
  readonly #sizeBytesStated: number | undefined;
  #sizeBytes = 0;

  constructor(digest: string, sizeBytesStated: number | undefined) {
    this.#digest = digest;
    this.#sizeBytesStated = sizeBytesStated;
    this.#hash = createHash(algorithmOf(digest));
  }

  /** Bytes so far. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Throws `data_loss` as soon as there is more than stated. */
  add(bytes: Uint8Array): void {
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytesStated !== undefined && this.#sizeBytes > this.#sizeBytesStated) {
      throw new SwarmError("data_loss", `size mismatch: more than the stated ${this.#sizeBytesStated} bytes`);
    }
    this.#hash.update(bytes);
  }

  async *pass(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const bytes of content) {
      this.add(bytes);
      yield bytes;
    }
  }

  /** Throws `data_loss` unless size and digest are as stated. */
  verify(what: string): void {
    if (this.#sizeBytesStated !== undefined && this.#sizeBytes !== this.#sizeBytesStated) {
      throw new SwarmError(
        "data_loss",
        `size mismatch: ${what} of ${this.#sizeBytes} bytes, not ${this.#sizeBytesStated}`,
      );
    }
    const actual = `${algorithmOf(this.#digest)}:${this.#hash.digest("hex")}`;
    if (actual !== this.#digest)
      throw new SwarmError("data_loss", `digest mismatch: ${what} is ${actual}, not ${this.#digest}`);
  }
}
