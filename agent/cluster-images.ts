/**
 * Images that were loaded into the cluster, as a source for the image store: asked before any registry. A manager says
 * which image a reference names and who holds its blobs; the blobs then come from any of the holders, over connections
 * of their own so that a large layer never holds up heartbeats.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { withinSilence } from "../common/base/within-silence.ts";
import { canonicalName, type ImageReference } from "../common/model/image-reference.ts";
import { type Descriptor, MEDIA_TYPE, type Platform } from "../common/model/oci-image.ts";
import type { ImageSource, RemoteImage } from "../common/registry/source.ts";
import { type Client, createClient, type Transport } from "../common/rpc/service.ts";
import { Content, type ResolveImageResponse } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Connect, ManagerList } from "./session.ts";

/** A holder that sends nothing for this long is given up for the next: a task must not prepare for ever. */
const SILENCE_MS_MAX = 30_000;

/** What the source needs. */
export interface ClusterImagesOptions {
  readonly clock: Clock;
  readonly connect: Connect;
  readonly managers: ManagerList;
  readonly platform: Platform;
}

/** An ImageSource over the managers' Content service. Disposal closes its connections. */
export class ClusterImages implements ImageSource, AsyncDisposable {
  readonly #options: ClusterImagesOptions;
  readonly #transports = new Map<string, Transport>();

  constructor(options: ClusterImagesOptions) {
    this.#options = options;
  }

  /**
   * Asks the managers in turn until one answers. Undefined when the cluster has no such image; throws `unavailable` when
   * no manager could be asked (a registry must not answer in place of a loaded image).
   */
  async resolve(reference: ImageReference, signal: AbortSignal): Promise<RemoteImage | undefined> {
    const { architecture, os } = this.#options.platform;
    const request = { reference: canonicalName(reference), platform: { architecture, os } };
    let failure = new SwarmError("unavailable", "no manager is known");
    for (const address of this.#options.managers.all) {
      try {
        const answer = await this.#content(address).resolveImage(request, { signal });
        return this.#remote(answer, address);
      } catch (reason) {
        if (signal.aborted) throw reason;
        failure = SwarmError.from(reason);
        if (failure.code === "not_found" || failure.code === "unimplemented") return undefined;
      }
    }
    throw SwarmError.wrap(`ask the managers for image ${canonicalName(reference)}`, failure, "unavailable");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const transports = [...this.#transports.values()];
    this.#transports.clear();
    await Promise.all(transports.map((transport) => transport[Symbol.asyncDispose]()));
  }

  #remote(answer: ResolveImageResponse, resolver: string): RemoteImage {
    const holders = answer.holders.length > 0 ? answer.holders.map(({ address }) => address) : [resolver];
    return {
      origin: "the cluster",
      content: {
        bytes: answer.manifest,
        digest: `sha256:${createHash("sha256").update(answer.manifest).digest("hex")}`,
        mediaType: mediaTypeOf(answer.manifest),
      },
      fetch: (descriptor, signal) => this.#fetch(holders, descriptor, signal),
      stream: (descriptor, offset, signal) => this.#stream(holders, descriptor, offset, signal),
    };
  }

  async #fetch(holders: readonly string[], descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of this.#stream(holders, descriptor, 0, signal)) {
      size += part.length;
      if (size > descriptor.sizeBytes) {
        throw new SwarmError(
          "resource_exhausted",
          `blob ${descriptor.digest} is over its ${descriptor.sizeBytes} bytes`,
        );
      }
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  /** Goes on with the next holder, from where the last one broke off. */
  async *#stream(
    holders: readonly string[],
    descriptor: Descriptor,
    offset: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const silence = { clock: this.#options.clock, timeoutMs: SILENCE_MS_MAX, operation: "wait for more of it" };
    let at = offset;
    let failure: SwarmError | undefined;
    for (const holder of holders) {
      try {
        const request = { digest: descriptor.digest, offset: BigInt(at) };
        const parts = this.#content(holder).getBlob(request, { signal });
        for await (const { data } of withinSilence(parts, silence, signal)) {
          at += data.length;
          yield data;
        }
        return;
      } catch (reason) {
        if (signal.aborted) throw reason;
        failure = SwarmError.from(reason);
      }
    }
    throw SwarmError.wrap(`get blob ${descriptor.digest} from the cluster`, failure ?? "no holder", "unavailable");
  }

  #content(address: string): Client<typeof Content> {
    const transport = this.#transports.get(address) ?? this.#options.connect(address);
    this.#transports.set(address, transport);
    return createClient(Content, transport);
  }
}

/** What the manifest says of itself; OCI manifests need not say it. */
function mediaTypeOf(manifest: Uint8Array): string {
  try {
    const document: unknown = JSON.parse(new TextDecoder().decode(manifest));
    if (typeof document === "object" && document !== null && "mediaType" in document) {
      if (typeof document.mediaType === "string") return document.mediaType;
    }
  } catch {
    // The image store says what is wrong with it.
  }
  return MEDIA_TYPE.ociManifest;
}
