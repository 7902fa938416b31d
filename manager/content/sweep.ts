import type { Clock } from "../../common/base/clock.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { View } from "../store/view.ts";
import type { BlobStore } from "./blob-store.ts";

/** What the sweeper needs. */
export interface BlobSweepOptions {
  readonly view: View;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

const PERIOD_MS = 10 * 60_000;
/** Blobs come before the image that names them: an upload has this long to be named after its last question. */
const UNUSED_MS = 60 * 60_000;

/**
 * Deletes, until `signal` aborts, blobs that no image names any more: those of uploads that broke off, and those of
 * images that were removed at another manager.
 */
export async function sweepBlobs({ view, blobs, clock, logger }: BlobSweepOptions, signal: AbortSignal): Promise<void> {
  while (true) {
    await clock.sleep(PERIOD_MS, signal);
    // A view that has not seen the store names no image at all.
    if (view.revision === 0) continue;
    const used = new Set(view.images.values().flatMap((image) => [image.manifestDigest, ...image.blobDigests]));
    const digests = await blobs.deleteUnused(used, UNUSED_MS);
    if (digests.length > 0) logger.info({ digests }, "deleted blobs that no image names");
  }
}
