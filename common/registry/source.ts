/** Where images come from: what a registry and the cluster's own store of loaded images both answer. */

import type { ImageReference } from "../model/image-reference.ts";
import type { Descriptor } from "../model/oci-image.ts";

/** A manifest or index as it came, with its true digest. */
export interface ImageContent {
  readonly bytes: Uint8Array;
  /** Of the bytes: computed, never only told. */
  readonly digest: string;
  /** What the source calls it; undefined when it does not say. */
  readonly mediaType: string | undefined;
}

/** One repository of a source, opened for one pull. */
export interface RemoteImage {
  /** For messages: `registry localhost:5000`, `the cluster`. */
  readonly origin: string;
  /** What the reference names: a manifest, or an index to choose from. */
  readonly content: ImageContent;
  /**
   * The whole of a small blob: a manifest of an index, or a config. The caller checks the digest. Throws `not_found`,
   * `unavailable`, or `resource_exhausted` when it is larger than its descriptor says.
   */
  fetch(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array>;
  /**
   * A blob's bytes from `offset` on. May end early or throw `unavailable`: the caller asks again from where it got to,
   * and checks the digest of the whole.
   */
  stream(descriptor: Descriptor, offset: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** A place to pull images from. */
export interface ImageSource {
  /**
   * Finds what `reference` names, by its digest if it has one. Undefined: this source does not have it (the next one may);
   * throws `unavailable` when it could not be asked, `permission_denied` or `unauthenticated` when it refuses.
   */
  resolve(reference: ImageReference, signal: AbortSignal): Promise<RemoteImage | undefined>;
}

/** Asks each source in turn: images loaded into the cluster win over a registry's. */
export function firstSource(sources: readonly ImageSource[]): ImageSource {
  return {
    async resolve(reference, signal) {
      for (const source of sources) {
        const image = await source.resolve(reference, signal);
        if (image) return image;
      }
      return undefined;
    },
  };
}
