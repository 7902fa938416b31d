/** Finds in a source the one image for this machine, and brings its layers: checked, resumed, three at a time. */
import { Backoff } from "../../common/base/backoff.ts";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Random } from "../../common/base/random.ts";
import { digestOf } from "../../common/model/digest.ts";
import {
  checkLayers,
  choosePlatform,
  type Descriptor,
  decodeImageConfig,
  decodeImageDocument,
  type ImageConfig,
  type ImageManifest,
  type Platform,
  platformText,
} from "../../common/model/oci-image.ts";
import type { RemoteImage } from "../../common/registry/source.ts";

/** A manifest chosen and checked, with its config; its layers are still to come. */
export interface ChosenImage {
  readonly manifestDigest: string;
  readonly manifestBytes: Uint8Array;
  readonly manifest: ImageManifest;
  readonly configBytes: Uint8Array;
  readonly config: ImageConfig;
}

/** Indexes of indexes are rare; deeper ones are a trap. */
const INDEX_DEPTH_MAX = 3;
/** Tries of a layer's download that bring less than `PROGRESS_BYTES` each. */
const TRIES_MAX = 3;
/** A try that brought this much does not count: a bad line may cut a large layer many times. */
const PROGRESS_BYTES = 1024 * 1024;
const BACKOFF = { delayMsMin: 500, delayMsMax: 10_000 };

/**
 * Chooses the image for `platform`. `name` is how people call it. Throws `not_found` ("no matching manifest for linux/amd64
 * in …"), `data_loss` for content that is not what its digest says, `invalid_argument` for documents that are no image.
 */
export async function chooseImage(
  remote: RemoteImage,
  platform: Platform,
  name: string,
  signal: AbortSignal,
): Promise<ChosenImage> {
  let { bytes, digest, mediaType } = remote.content;
  for (let depth = 0; ; depth++) {
    const document = decodeImageDocument(bytes, mediaType);
    if (document.kind === "manifest") {
      const { manifest } = document;
      const configBytes = await fetchChecked(remote, manifest.config, signal);
      const config = decodeImageConfig(configBytes);
      if (!choosePlatform([{ ...manifest.config, platform: config.platform }], platform)) throw noMatch(platform, name);
      checkLayers(manifest, config);
      return { manifestDigest: digest, manifestBytes: bytes, manifest, configBytes, config };
    }
    if (depth === INDEX_DEPTH_MAX)
      throw new SwarmError("invalid_argument", `index of ${name} is nested deeper than ${INDEX_DEPTH_MAX}`);
    const chosen = choosePlatform(document.manifests, platform);
    if (!chosen) throw noMatch(platform, name);
    bytes = await fetchChecked(remote, chosen, signal);
    digest = chosen.digest;
    mediaType = chosen.mediaType;
  }
}

/** A layer's stored bytes, taken up again where the connection was cut. Whoever reads them checks size and digest. */
export async function* resumedLayer(
  remote: RemoteImage,
  layer: Descriptor,
  parts: { readonly clock: Clock; readonly random: Random },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const backoff = new Backoff(BACKOFF, parts.random);
  let offset = 0;
  for (let tries = 1; ; tries++) {
    const startedAt = offset;
    try {
      for await (const bytes of remote.stream(layer, offset, signal)) {
        offset += bytes.length;
        yield bytes;
      }
      if (offset >= layer.sizeBytes) return;
      throw new SwarmError("unavailable", `${remote.origin}: ended after ${offset} of ${layer.sizeBytes} bytes`);
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "unavailable") throw reason;
      if (offset - startedAt >= PROGRESS_BYTES) {
        tries = 1;
        backoff.reset();
      }
      if (tries >= TRIES_MAX) throw SwarmError.wrap(`given up after ${tries} tries`, reason);
    }
    await parts.clock.sleep(backoff.nextDelayMs(), signal);
  }
}

async function fetchChecked(remote: RemoteImage, descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = await remote.fetch(descriptor, signal);
  if (bytes.length !== descriptor.sizeBytes) {
    throw new SwarmError(
      "data_loss",
      `size mismatch: ${descriptor.digest} of ${bytes.length} bytes, not ${descriptor.sizeBytes}`,
    );
  }
  const digest = digestOf(bytes, descriptor.digest);
  if (digest !== descriptor.digest)
    throw new SwarmError("data_loss", `digest mismatch: got ${digest}, not ${descriptor.digest}`);
  return bytes;
}

function noMatch(platform: Platform, name: string): SwarmError {
  return new SwarmError("not_found", `no matching manifest for ${platformText(platform)} in ${name}`);
}
