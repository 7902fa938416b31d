/**
 * The images of one host. Owns <data-dir>/images and nothing beside it; knows nothing of tasks. Containers mount the layer
 * directories it names as overlay lowerdirs; nobody writes to them.
 *
 * Compressed layers are not kept: they are unpacked as they arrive. That halves disk and writes; the price is that a pull
 * which is cut by a crash starts that layer again.
 */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { canonicalName, familiarName, type ImageReference } from "../../common/model/image-reference.ts";
import { decodeImageConfig, type ImageConfig, type Platform } from "../../common/model/oci-image.ts";
import type { ImageSource, RemoteImage } from "../../common/registry/source.ts";
import { ImageIndex, type ImageRecord } from "./image-index.ts";
import type { CapturedFile, LayerFacts } from "./layer.ts";
import { hexOf, LayerStore, storageError } from "./layer-store.ts";
import { type ChosenImage, chooseImage, resumedLayer } from "./pull.ts";
import { SharedWork, Turnstile } from "./shared-work.ts";
import { DEFAULT_UNPACK_LIMITS, type UnpackLimits } from "./unpack.ts";

/** What a store needs. */
export interface ImageStoreOptions {
  /** `<data-dir>/images`: made if it is missing; must be on one file system. */
  readonly directory: string;
  /** The swarm-shim program. */
  readonly shimPath: string;
  /** What images are chosen for; see `hostPlatform`. */
  readonly platform: Platform;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly limits?: UnpackLimits;
}

/** An image that is there, whole. */
export interface ImageInfo {
  /** Canonical name it was asked for by. */
  readonly reference: string;
  readonly manifestDigest: string;
  readonly config: ImageConfig;
  /** Overlay lowerdirs, lowest first; at least one, none twice. */
  readonly layerDirs: readonly string[];
  /** Texts of the image's /etc/passwd and /etc/group, if it has them as files. */
  readonly passwd: string | undefined;
  readonly group: string | undefined;
}

/** One image of `list`. */
export interface ImageSummary {
  readonly manifestDigest: string;
  /** Canonical names; none when only tasks still need it. */
  readonly references: readonly string[];
  readonly layers: number;
}

/** More at a time only share the same line and two cores; Docker's number. */
const LAYERS_AT_ONCE = 3;

/** The image store. One instance, in one process, owns its directory. */
export class ImageStore {
  readonly #options: ImageStoreOptions;
  readonly #layers: LayerStore;
  readonly #index: ImageIndex;
  readonly #pulls = new SharedWork<ImageRecord>();
  readonly #unpacks = new SharedWork<void>();
  readonly #turnstile = new Turnstile(LAYERS_AT_ONCE);
  /** Digests that a pull relies on while its record is not yet written, counted. */
  readonly #busy = new Map<string, number>();

  private constructor(options: ImageStoreOptions, layers: LayerStore, index: ImageIndex) {
    this.#options = options;
    this.#layers = layers;
    this.#index = index;
  }

  /** Opens the store; what a crash left half-done is removed. Throws `failed_precondition` when the directory cannot be used. */
  static async open(options: ImageStoreOptions): Promise<ImageStore> {
    const { directory, shimPath, clock, random, log } = options;
    const limits = options.limits ?? DEFAULT_UNPACK_LIMITS;
    const layers = await LayerStore.open({ directory, shimPath, clock, random, log, limits });
    const { ingestDirectory } = layers;
    const index = await ImageIndex.open({ directory, ingestDirectory, random, log }, (diffId) => layers.has(diffId));
    return new ImageStore(options, layers, index);
  }

  /**
   * Brings what the reference means now: one with a digest is taken from this host if it can be, else `source` is asked; a tag
   * is asked for each time (`present` tells what is there without). Concurrent calls share pulls and layers. Throws
   * `not_found`, `unauthenticated`, `permission_denied`, `unavailable`, `data_loss`, `invalid_argument` or
   * `resource_exhausted` with a message for `service ps`.
   */
  async ensureImage(reference: ImageReference, source: ImageSource, signal: AbortSignal): Promise<ImageInfo> {
    const name = canonicalName(reference);
    const pinned = reference.digest === undefined ? undefined : await this.present(reference);
    if (pinned) return pinned;
    try {
      const pull = (pullSignal: AbortSignal) => this.#pull(reference, source, pullSignal);
      return await this.#info(name, await this.#pulls.join(name, pull, signal));
    } catch (reason) {
      throw SwarmError.wrap(`image ${familiarName(reference)}`, storageError(reason));
    }
  }

  /** What is on this host under a reference, without asking anybody. It counts as used. */
  async present(reference: ImageReference): Promise<ImageInfo | undefined> {
    const name = canonicalName(reference);
    const record = reference.digest === undefined ? this.#index.byName(name) : this.#index.byDigest(reference.digest);
    if (record === undefined) return undefined;
    this.#use(record);
    if (reference.digest !== undefined) await this.#index.putName(name, record.manifestDigest);
    return this.#info(name, record);
  }

  list(): readonly ImageSummary[] {
    return this.#index.images().map(({ manifestDigest, diffIds }) => ({
      manifestDigest,
      references: this.#index.namesOf(manifestDigest),
      layers: diffIds.length,
    }));
  }

  /** Forgets a name; the image goes once it was unused for long enough. False when there is no such name. */
  remove(reference: ImageReference): Promise<boolean> {
    return this.#index.removeName(canonicalName(reference));
  }

  /**
   * Removes images that neither `inUse` (manifest digests that containers hold) nor `ensureImage` has named for
   * `retentionMs`, with their names; then layers and blobs that no image and no running pull needs. Nobody may rely on an
   * image for `retentionMs` after `ensureImage` without being in `inUse`.
   */
  async collect(inUse: ReadonlySet<string>, retentionMs: number): Promise<void> {
    for (const image of this.#index.images()) {
      const { manifestDigest } = image;
      if (inUse.has(manifestDigest) || this.#busy.has(manifestDigest)) this.#use(image);
      // Judged and forgotten in one turn of the event loop: `ensureImage` comes before, or pulls it again.
      const unusedMs = this.#options.clock.nowMs() - this.#index.usedMs(manifestDigest);
      if (unusedMs < retentionMs) {
        await this.#index.recordUse(manifestDigest);
        continue;
      }
      this.#options.log.info(
        { image: manifestDigest, names: this.#index.namesOf(manifestDigest) },
        "removing an unused image",
      );
      await this.#index.removeImage(image);
    }
    const needed = () =>
      new Set([...this.#index.images().flatMap(({ diffIds }) => diffIds), ...this.#busy.keys()].map(hexOf));
    for (const hex of this.#layers.list()) {
      if (!needed().has(hex)) await this.#layers.remove(hex);
    }
    await this.#index.removeUnusedBlobs((digest) => this.#busy.has(digest));
  }

  async #pull(reference: ImageReference, source: ImageSource, signal: AbortSignal): Promise<ImageRecord> {
    const name = canonicalName(reference);
    const local = this.#index.byName(name);
    if (local) this.#use(local);
    const remote = (await source.resolve(reference, signal)) ?? missing(reference);
    const chosen = await chooseImage(remote, this.#options.platform, familiarName(reference), signal);
    const { manifestDigest, manifest, config } = chosen;
    const digests = [manifestDigest, manifest.config.digest, ...config.diffIds];
    this.#hold(digests);
    try {
      const known = this.#index.byDigest(manifestDigest);
      if (!known) await this.#bring(remote, chosen, signal);
      const image = await this.#record(chosen, remote.content.digest, known);
      await this.#index.putName(name, manifestDigest);
      this.#use(image);
      return image;
    } finally {
      this.#release(digests);
    }
  }

  /** Brings all layers that are not here; the first failure stops the others. */
  async #bring(remote: RemoteImage, { manifest, config }: ChosenImage, signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const work = new Map(config.diffIds.map((diffId, position) => [diffId, manifest.layers[position]] as const));
    const results = await Promise.allSettled(
      [...work].map(async ([diffId, layer]) => {
        if (!layer) return;
        try {
          const unpack = (unpackSignal: AbortSignal) => this.#unpack(remote, layer, diffId, unpackSignal);
          await this.#unpacks.join(diffId, unpack, either);
        } catch (reason) {
          failed.abort(SwarmError.from(reason));
          throw reason;
        }
      }),
    );
    if (failed.signal.aborted) throw failed.signal.reason;
    if (results.some(({ status }) => status === "rejected"))
      throw new SwarmError("internal", "a layer failed without a reason");
  }

  async #unpack(
    remote: RemoteImage,
    layer: ChosenImage["manifest"]["config"],
    diffId: string,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#turnstile.run(async () => {
      if (this.#layers.has(diffId)) return;
      const { clock, log } = this.#options;
      const startedMs = clock.monotonicMs();
      await this.#layers.add(layer, diffId, resumedLayer(remote, layer, this.#options, signal), signal);
      const tookMs = Math.round(clock.monotonicMs() - startedMs);
      log.debug({ layer: layer.digest, sizeBytes: layer.sizeBytes, tookMs, origin: remote.origin }, "layer unpacked");
    }, signal);
  }

  async #record(chosen: ChosenImage, resolvedDigest: string, known: ImageRecord | undefined): Promise<ImageRecord> {
    const { manifestDigest, manifest, config } = chosen;
    const others = known?.indexDigests ?? [];
    const isKnown = resolvedDigest === manifestDigest || others.includes(resolvedDigest);
    if (known && isKnown) return known;
    if (!known) {
      await this.#index.putBlob(manifestDigest, chosen.manifestBytes);
      await this.#index.putBlob(manifest.config.digest, chosen.configBytes);
    }
    const image: ImageRecord = {
      manifestDigest,
      configDigest: manifest.config.digest,
      diffIds: config.diffIds,
      indexDigests: isKnown ? others : [...others, resolvedDigest],
    };
    await this.#index.putImage(image);
    return image;
  }

  async #info(reference: string, image: ImageRecord): Promise<ImageInfo> {
    const config = decodeImageConfig(await this.#index.blob(image.configDigest));
    const stack = await this.#stack(image.diffIds);
    const directories = stack.map(({ diffId }) => this.#layers.filesDirectory(diffId)).reverse();
    return {
      reference,
      manifestDigest: image.manifestDigest,
      config,
      layerDirs: directories.length === 0 ? [this.#layers.emptyDirectory] : directories,
      passwd: topmost(stack.map(({ facts }) => facts.passwd)),
      group: topmost(stack.map(({ facts }) => facts.group)),
    };
  }

  /**
   * The layers that show, topmost first: nothing below one that hides all, and of a layer that comes twice only the upper
   * copy, which covers the lower one wholly (overlayfs refuses a directory twice).
   */
  async #stack(
    diffIds: readonly string[],
  ): Promise<readonly { readonly diffId: string; readonly facts: LayerFacts }[]> {
    const stack: { readonly diffId: string; readonly facts: LayerFacts }[] = [];
    for (const diffId of new Set(diffIds.toReversed())) {
      const facts = await this.#layers.facts(diffId);
      stack.push({ diffId, facts });
      if (facts.isRootOpaque) break;
    }
    return stack;
  }

  #use({ manifestDigest }: ImageRecord): void {
    this.#index.use(manifestDigest, this.#options.clock.nowMs());
  }

  #hold(digests: readonly string[]): void {
    for (const digest of digests) this.#busy.set(digest, (this.#busy.get(digest) ?? 0) + 1);
  }

  #release(digests: readonly string[]): void {
    for (const digest of digests) {
      const left = (this.#busy.get(digest) ?? 1) - 1;
      if (left > 0) this.#busy.set(digest, left);
      else this.#busy.delete(digest);
    }
  }
}

/** This machine as images name it. */
export function hostPlatform(): Platform {
  const architecture = { x64: "amd64", ia32: "386", arm: "arm" }[process.arch as string] ?? process.arch;
  return { os: "linux", architecture };
}

function topmost(files: readonly CapturedFile[]): string | undefined {
  const file = files.find(({ state }) => state !== "untouched");
  return file?.state === "brought" ? file.text : undefined;
}

function missing(reference: ImageReference): never {
  throw new SwarmError("not_found", `No such image: ${familiarName(reference)}`);
}
