/** Images that live in the cluster: their blobs come in one by one, then a name is put on them. */
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { canonicalName, familiarName, isDigest, parseImageReference } from "../../common/model/image-reference.ts";
import {
  CONFIG_BYTES_MAX,
  decodeImageConfig,
  decodeImageDocument,
  type ImageManifest,
  MANIFEST_BYTES_MAX,
} from "../../common/model/oci-image.ts";
import { quoted } from "../../common/model/units.ts";
import type {
  ListImagesRequest,
  PutBlobRequest,
  PutImageRequest,
  RemoveImageRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type Image, ImageSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { PlatformSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import type { ControlDependencies } from "./dependencies.ts";

const DIGESTS_MAX = 1000;
const NAMES_MAX = 100;
/** A blob larger than any layer that we would unpack. */
const BLOB_BYTES_MAX = 64 * 1024 ** 3;
/** How often a write is tried again when somebody else named or removed an image meanwhile. */
const ATTEMPTS_MAX = 5;
const ID_PREFIX = /^(?:sha256:)?([a-f0-9]{4,64})$/;

/** Images by name or id prefix, or all, newest first. */
export function listImages({ store }: ControlDependencies, request: ListImagesRequest): Image[] {
  const { view } = store;
  const images = request.references.length === 0 ? view.images.values() : request.references.map(find(view));
  const createdS = (image: Image) => Number(image.meta?.createdAt?.seconds ?? 0n);
  return [...new Set(images)].sort((left, right) => createdS(right) - createdS(left));
}

/** Which blobs this manager lacks. */
export async function missingBlobs({ blobs }: ControlDependencies, digests: readonly string[]): Promise<string[]> {
  if (digests.length > DIGESTS_MAX) throw new SwarmError("invalid_argument", `digests: at most ${DIGESTS_MAX}`);
  digests.forEach(requireDigest);
  return [...(await blobs.missing(digests))];
}

/** Takes one blob: a header, then its bytes. */
export async function putBlob(
  { blobs }: ControlDependencies,
  requests: AsyncIterable<PutBlobRequest>,
  signal: AbortSignal,
): Promise<void> {
  const parts = requests[Symbol.asyncIterator]();
  const first = await parts.next();
  const header = first.done ? undefined : first.value.part;
  if (header?.case !== "header") throw new SwarmError("invalid_argument", "put blob: a header must come first");
  const { digest, sizeBytes } = header.value;
  requireDigest(digest);
  if (sizeBytes > BLOB_BYTES_MAX) throw new SwarmError("invalid_argument", `size_bytes: at most ${BLOB_BYTES_MAX}`);
  await blobs.put({ digest, sizeBytes: Number(sizeBytes) }, dataOf(parts), signal);
}

/** Names an image whose blobs are all here. A name that another image has moves to this one, as `docker tag` does. */
export async function putImage(
  dependencies: ControlDependencies,
  request: PutImageRequest,
  signal: AbortSignal,
): Promise<Image> {
  const { store, blobs, managerId } = dependencies;
  const names = request.names.map(requireName);
  if (names.length > NAMES_MAX) throw new SwarmError("invalid_argument", `names: at most ${NAMES_MAX}`);
  const manifest = decodeManifest(request.manifest);
  const digest = `sha256:${createHash("sha256").update(request.manifest).digest("hex")}`;
  const parts = [manifest.config, ...manifest.layers];
  const digests = [...new Set(parts.map((part) => part.digest))];
  const absent = await blobs.missing(digests);
  if (absent.length > 0) throw new SwarmError("failed_precondition", `put image: missing blobs ${absent.join(", ")}`);
  await blobs.put({ digest, sizeBytes: request.manifest.length }, once(request.manifest), signal);
  const config = decodeImageConfig(await readAll(blobs.open(manifest.config.digest, 0, signal), CONFIG_BYTES_MAX));
  const id = digest.slice("sha256:".length);
  const sizes = new Map(parts.map((part) => [part.digest, part.sizeBytes]));
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const present = store.view.images.get(id);
    const image = create(ImageSchema, {
      ...(present?.meta ? { meta: present.meta } : {}),
      id,
      names: [...new Set([...(present?.names ?? []), ...names])],
      manifestDigest: digest,
      platform: create(PlatformSchema, { os: config.platform.os, architecture: config.platform.architecture }),
      sizeBytes: BigInt([...sizes.values()].reduce((sum, size) => sum + size, 0)),
      blobDigests: digests,
      managerIds: [...new Set([...(present?.managerIds ?? []), managerId])],
    });
    const group: readonly Proposal[] = [
      present ? { type: "update", kind: "image", object: image } : { type: "create", kind: "image", object: image },
      ...renamed(store.view, id, names),
    ];
    const { conflicts } = await store.commit([group], { signal });
    if (conflicts.length === 0) return store.view.images.get(id) ?? image;
  }
  throw new SwarmError("aborted", "put image: the store keeps changing, try again");
}

/** Takes a name off an image, or the image away with all its names; blobs that no other image has go too. */
export async function removeImage(
  { store, blobs }: ControlDependencies,
  request: RemoveImageRequest,
  signal: AbortSignal,
): Promise<{ readonly untagged: string[]; readonly deleted: string[] }> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const { view } = store;
    const image = find(view)(request.reference);
    const named = nameFor(request.reference);
    const untagged = named !== undefined && image.names.includes(named) ? [named] : image.names;
    const names = image.names.filter((name) => !untagged.includes(name));
    const shown = untagged.map(shortName);
    if (names.length > 0) {
      const { conflicts } = await store.commit([{ type: "update", kind: "image", object: { ...image, names } }], {
        signal,
      });
      if (conflicts.length === 0) return { untagged: shown, deleted: [] };
      continue;
    }
    const version = image.meta?.version;
    const { conflicts } = await store.commit([{ type: "delete", kind: "image", id: image.id, version }], { signal });
    if (conflicts.length > 0) continue;
    const used = new Set(view.images.values().flatMap(({ blobDigests }) => blobDigests));
    for (const digest of [image.manifestDigest, ...image.blobDigests])
      if (!used.has(digest)) await blobs.delete(digest);
    return { untagged: shown, deleted: [image.manifestDigest] };
  }
  throw new SwarmError("aborted", `remove image ${request.reference}: the store keeps changing, try again`);
}

/** Finds an image by a name, or by the beginning of its id. */
function find(view: View): (reference: string) => Image {
  return (reference) => {
    const canonical = nameFor(reference);
    const named = canonical === undefined ? undefined : view.imageByName(canonical);
    if (named !== undefined) return named;
    const prefix = ID_PREFIX.exec(reference)?.[1];
    if (canonical === undefined && prefix === undefined) {
      throw new SwarmError("invalid_argument", `${quoted(reference)} is not an image's name or id`);
    }
    const found = prefix === undefined ? [] : [...view.images.values()].filter(({ id }) => id.startsWith(prefix));
    const [first, second] = found;
    if (first === undefined) throw new SwarmError("not_found", `no such image: ${reference}`);
    if (second === undefined) return first;
    const ids = found.map(({ id }) => id.slice(0, 12)).join(", ");
    throw new SwarmError("invalid_argument", `image ${reference} is ambiguous: multiple matches: ${ids}`);
  };
}

/** Other images that lose `names`. */
function renamed(view: View, id: string, names: readonly string[]): readonly Proposal[] {
  const losers = [...view.images.values()].filter(
    (image) => image.id !== id && image.names.some((name) => names.includes(name)),
  );
  return losers.map((image) => ({
    type: "update",
    kind: "image",
    object: { ...image, names: image.names.filter((name) => !names.includes(name)) },
  }));
}

function nameFor(reference: string): string | undefined {
  const parsed = parseImageReference(reference);
  return parsed.ok ? canonicalName(parsed.reference) : undefined;
}

function shortName(canonical: string): string {
  const parsed = parseImageReference(canonical);
  return parsed.ok ? familiarName(parsed.reference) : canonical;
}

function requireName(name: string): string {
  const parsed = parseImageReference(name);
  if (!parsed.ok) throw new SwarmError("invalid_argument", `names: ${parsed.problem}`);
  if (parsed.reference.digest !== undefined) {
    throw new SwarmError("invalid_argument", `names: ${quoted(name)} has a digest, which only content can have`);
  }
  return canonicalName(parsed.reference);
}

function requireDigest(digest: string): void {
  if (!isDigest(digest)) throw new SwarmError("invalid_argument", `digest: ${quoted(digest)} is not a digest`);
}

function decodeManifest(bytes: Uint8Array): ImageManifest {
  if (bytes.length > MANIFEST_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `manifest: is ${bytes.length} bytes long; at most ${MANIFEST_BYTES_MAX}`);
  }
  const document = decodeImageDocument(bytes, undefined);
  if (document.kind === "manifest") return document.manifest;
  throw new SwarmError("invalid_argument", "manifest: is an index; choose one platform's image");
}

async function* dataOf(parts: AsyncIterator<PutBlobRequest>): AsyncGenerator<Uint8Array, void, undefined> {
  while (true) {
    const next = await parts.next();
    if (next.done) return;
    const { part } = next.value;
    if (part.case !== "data") throw new SwarmError("invalid_argument", "put blob: only data may follow the header");
    yield part.value;
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield bytes;
}

async function readAll(chunks: AsyncIterable<Uint8Array>, bytesMax: number): Promise<Uint8Array> {
  const read: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > bytesMax) throw new SwarmError("invalid_argument", `image config: larger than ${bytesMax} bytes`);
    read.push(chunk);
  }
  return Buffer.concat(read);
}
