/**
 * Gives agents the images that were loaded into the cluster. Any manager answers for all. A reference that no loaded
 * image bears is NOT_FOUND: the agent then asks the registry.
 */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { architecture } from "../../common/model/constraints.ts";
import { canonicalName, isDigest, parseImageReference } from "../../common/model/image-reference.ts";
import { MANIFEST_BYTES_MAX } from "../../common/model/oci-image.ts";
import type { ServiceImplementation, Transport } from "../../common/rpc/service.ts";
import type {
  Content as ContentService,
  GetBlobRequest,
  ResolveImageRequest,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Image, ManagerInfo } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Platform } from "../../proto/gen/swarm/v1/types_pb.js";
import { loadedImage } from "../store/loaded-image.ts";
import type { View } from "../store/view.ts";
import { BlobFetcher, blobsOf, holdersOf, readAll } from "./blob-fetcher.ts";
import type { BlobStore } from "./blob-store.ts";

/** What the content service stands on. */
export interface ContentOptions {
  readonly view: View;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly managerId: string;
  /** Opens a way to another manager ("host:port"); it is closed after each use. */
  readonly connect: (address: string) => Transport;
}

const SWEEP_PERIOD_MS = 10 * 60_000;
/** Blobs come before the image that names them: an upload has this long to be named after its last question. */
const UNUSED_MS = 60 * 60_000;

/** The Content service of one manager: serve `implementation`, run `run`. */
export class Content {
  readonly implementation: ServiceImplementation<typeof ContentService>;
  readonly #options: ContentOptions;
  readonly #fetcher: BlobFetcher;

  constructor(options: ContentOptions) {
    this.#options = options;
    this.#fetcher = new BlobFetcher(options);
    this.implementation = {
      resolveImage: (request, { signal }) => this.#resolveImage(request, signal),
      getBlob: (request, { signal }) => this.#getBlob(request, signal),
    };
  }

  /**
   * Deletes blobs that no image names any more, those of uploads that broke off and of images that were removed at
   * another manager, until `signal` aborts; then stops what is being fetched.
   */
  async run(signal: AbortSignal): Promise<void> {
    await using _fetcher = this.#fetcher;
    const { view, blobs, clock, logger } = this.#options;
    while (true) {
      await clock.sleep(SWEEP_PERIOD_MS, signal);
      // A view that has not seen the store names no image at all.
      if (view.revision === 0) continue;
      const used = new Set(view.images.values().flatMap(blobsOf));
      const digests = await blobs.deleteUnused(used, UNUSED_MS);
      if (digests.length > 0) logger.info({ digests }, "deleted blobs that no image names");
    }
  }

  async #resolveImage(request: ResolveImageRequest, signal: AbortSignal) {
    const { view, blobs } = this.#options;
    const image = findImage(view, request);
    const { manifestDigest } = image;
    await this.#fetcher.fetch(manifestDigest, signal);
    const manifest = await readAll(blobs.open(manifestDigest, 0, signal), MANIFEST_BYTES_MAX);
    return { manifestDigest, manifest, holders: this.#holders(image) };
  }

  async *#getBlob({ digest, offset, localOnly }: GetBlobRequest, signal: AbortSignal) {
    if (!isDigest(digest)) throw new SwarmError("invalid_argument", "digest: not a digest");
    if (!localOnly) await this.#fetcher.fetch(digest, signal);
    for await (const data of this.#options.blobs.open(digest, Number(offset), signal)) yield { data };
  }

  /**
   * Whom the agent should ask, best first: this manager, which it is connected to, when everything is here; else those
   * that hold the image, and this manager last, which may reach them where the agent cannot.
   */
  #holders(image: Image): ManagerInfo[] {
    const { view, blobs, managerId } = this.#options;
    const self = view.managers.get(managerId);
    const others = holdersOf(view, image).filter(({ id }) => id !== managerId);
    if (!self) return others;
    return blobsOf(image).every((digest) => blobs.has(digest)) ? [self, ...others] : [...others, self];
  }
}

/** The image of a reference for a platform; a digest decides, whatever name stands before it. */
function findImage(view: View, request: ResolveImageRequest): Image {
  const parsed = parseImageReference(request.reference);
  if (!parsed.ok) throw new SwarmError("invalid_argument", `reference: ${parsed.problem}`);
  const name = canonicalName(parsed.reference);
  const image = loadedImage(view, parsed.reference);
  if (!image) throw new SwarmError("not_found", `no such image in the cluster: ${name}`);
  if (!fits(image.platform, request.platform)) {
    const { os = "", architecture: machine = "" } = image.platform ?? {};
    throw new SwarmError("not_found", `image ${name} in the cluster is for ${os}/${machine} only`);
  }
  return image;
}

function fits(has: Platform | undefined, wanted: Platform | undefined): boolean {
  if (!has || !wanted) return true;
  return has.os === wanted.os && architecture(has.architecture) === architecture(wanted.architecture);
}
