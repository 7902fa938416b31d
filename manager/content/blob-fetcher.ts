/** Brings blobs here that only other managers hold. */
import { abortable, abortReason, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { withinSilence } from "../../common/base/within-silence.ts";
import { decodeImageDocument, MANIFEST_BYTES_MAX } from "../../common/model/oci-image.ts";
import { createClient, type Transport } from "../../common/rpc/service.ts";
import { Content } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Image, ManagerInfo } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";
import type { BlobStore } from "./blob-store.ts";

/** What a fetcher needs. */
export interface BlobFetcherOptions {
  readonly view: View;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly managerId: string;
  /** Opens a way to the manager at "host:port"; the fetcher closes it. */
  readonly connect: (address: string) => Transport;
}

/** Fetches at once; the others wait in line. */
const FETCHES_MAX = 4;
/** A holder that sends nothing for so long is given up. */
const SILENCE_MS_MAX = 30_000;

/**
 * Copies blobs from the managers that hold them, each once however many ask. A fetch goes on when its askers give up:
 * the next one finds the copy. What it takes is bounded by what the image's manifest says, and only content of images
 * that the cluster knows is fetched. A manager that is asked answers from its own disk only: no circles.
 */
export class BlobFetcher implements AsyncDisposable {
  readonly #options: BlobFetcherOptions;
  readonly #fetches = new Map<string, Promise<void>>();
  readonly #closing = new AbortController();
  readonly #line: (() => void)[] = [];
  #running = 0;

  constructor(options: BlobFetcherOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the blob is in the store.
   * @throws not_found when no image of the cluster has it; unavailable when none of its holders gives it.
   */
  async fetch(digest: string, signal: AbortSignal): Promise<void> {
    if (this.#options.blobs.has(digest)) return;
    const image = imageWith(this.#options.view, digest);
    if (!image) throw new SwarmError("not_found", `blob ${digest}: no image in the cluster has it`);
    // Its manifest tells how large the blob is.
    if (digest !== image.manifestDigest) await this.fetch(image.manifestDigest, signal);
    await abortable(this.#fetches.get(digest) ?? this.#start(digest, image), signal);
  }

  /** Stops the fetches that run. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new SwarmError("canceled", "manager is stopping"));
    await Promise.allSettled(this.#fetches.values());
  }

  #start(digest: string, image: Image): Promise<void> {
    const fetch = this.#inTurn(() => this.#fetchFromAny(digest, image)).finally(() => this.#fetches.delete(digest));
    // Those who wait see its failure; when all have given up nobody needs to.
    fetch.catch(() => {});
    this.#fetches.set(digest, fetch);
    return fetch;
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    if (this.#running < FETCHES_MAX) this.#running += 1;
    else await new Promise<void>((resolve) => this.#line.push(resolve));
    try {
      await work();
    } finally {
      const next = this.#line.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  async #fetchFromAny(digest: string, image: Image): Promise<void> {
    const { view, managerId } = this.#options;
    const { signal } = this.#closing;
    const others = holdersOf(view, image).filter(({ id }) => id !== managerId);
    const failures: string[] = [];
    for (const holder of others) {
      if (signal.aborted) throw abortReason(signal);
      try {
        return await this.#fetchFrom(holder, digest, image, signal);
      } catch (reason) {
        failures.push(`${holder.hostname || holder.id}: ${SwarmError.from(reason).message}`);
      }
    }
    const why = failures.length > 0 ? failures.join("; ") : "none of the managers that hold it is there";
    throw new SwarmError("unavailable", `blob ${digest}: ${why}`);
  }

  async #fetchFrom(holder: ManagerInfo, digest: string, image: Image, signal: AbortSignal): Promise<void> {
    const { blobs, connect } = this.#options;
    await using transport = connect(holder.address);
    const parts = this.#parts(
      createClient(Content, transport).getBlob({ digest, localOnly: true }, { signal }),
      signal,
    );
    if (digest !== image.manifestDigest) {
      const sizeBytes = await this.#sizeOf(digest, image, signal);
      await blobs.put({ digest, sizeBytes }, parts, signal);
      return;
    }
    const manifest = await readAll(parts, MANIFEST_BYTES_MAX);
    await blobs.put({ digest, sizeBytes: manifest.length }, once(manifest), signal);
  }

  /** The answer's bytes; a holder that falls silent is given up. */
  async *#parts(answer: AsyncIterable<{ readonly data: Uint8Array }>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const options = { clock: this.#options.clock, timeoutMs: SILENCE_MS_MAX, operation: "wait for more of it" };
    for await (const { data } of withinSilence(answer, options, signal)) yield data;
  }

  /** A blob's size as its image's manifest, which is here, says it. */
  async #sizeOf(digest: string, image: Image, signal: AbortSignal): Promise<number> {
    const bytes = await readAll(this.#options.blobs.open(image.manifestDigest, 0, signal), MANIFEST_BYTES_MAX);
    const document = decodeImageDocument(bytes, undefined);
    if (document.kind !== "manifest") throw new SwarmError("data_loss", `image ${image.id}: no manifest`);
    const { config, layers } = document.manifest;
    const descriptor = [config, ...layers].find((part) => part.digest === digest);
    if (!descriptor) throw new SwarmError("data_loss", `image ${image.id}: its manifest does not name ${digest}`);
    return descriptor.sizeBytes;
  }
}

/** An image of the cluster that is made of the blob; none: undefined. */
function imageWith(view: View, digest: string): Image | undefined {
  return view.images.values().find((image) => blobsOf(image).includes(digest));
}

/** The digests of everything that makes an image. */
export function blobsOf({ manifestDigest, blobDigests }: Image): readonly string[] {
  return [manifestDigest, ...blobDigests];
}

/** The managers that hold the blobs of `image` and are alive. */
export function holdersOf(view: View, image: Image): readonly ManagerInfo[] {
  return image.managerIds.map((id) => view.managers.get(id)).filter((manager) => manager !== undefined);
}

/** Reads what is known to be small. Throws `invalid_argument` above `bytesMax`. */
export async function readAll(parts: AsyncIterable<Uint8Array>, bytesMax: number): Promise<Uint8Array> {
  const read: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of parts) {
    sizeBytes += part.length;
    if (sizeBytes > bytesMax) throw new SwarmError("invalid_argument", `manifest is over ${bytesMax} bytes`);
    read.push(part);
  }
  return Buffer.concat(read);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield bytes;
}
