/**
 * Reads what `docker save`, `podman save` and `skopeo copy` write, for `swarmctl image load`: docker-save archives
 * (manifest.json, layers as plain tars) and OCI image layouts (index.json, blobs). An archive that is both, as Docker 25
 * and later write, is read as OCI. Every digest is computed from the content; names in the archive prove nothing.
 */
import { createHash } from "node:crypto";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { canonicalName, parseImageReference } from "../../common/model/image-reference.ts";
import {
  CONFIG_BYTES_MAX,
  checkLayers,
  type Descriptor,
  decodeImageConfig,
  decodeImageDocument,
  type ImageManifest,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPE,
  type Platform,
  parseJson,
} from "../../common/model/oci-image.ts";
import { TarFile } from "./tar-file.ts";

/** Content of an archive, to be uploaded if the manager lacks it. */
export interface ArchiveBlob {
  readonly mediaType: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** The content in pieces; may be called again. */
  open(): AsyncIterable<Uint8Array>;
}

/** One image of an archive. */
export interface ArchiveImage {
  /** Canonical names; none for an image saved by id. */
  readonly names: readonly string[];
  readonly platform: Platform;
  /** An OCI or Docker schema 2 manifest. */
  readonly manifest: { readonly mediaType: string; readonly digest: string; readonly bytes: Uint8Array };
  readonly config: ArchiveBlob;
  /** Lowest first. */
  readonly layers: readonly ArchiveBlob[];
}

/** An open archive; its blobs can be read until it is disposed. */
export interface ImageArchive extends AsyncDisposable {
  readonly images: readonly ArchiveImage[];
}

const INDEX_DEPTH_MAX = 3;
const IMAGES_MAX = 1000;
const NAME_ANNOTATIONS = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/**
 * Opens an archive and checks what it holds. Throws `not_found` for a missing file, `invalid_argument` for one that is no
 * image archive, `data_loss` for content that is not what its digest says.
 */
export async function readImageArchive(path: string, signal: AbortSignal): Promise<ImageArchive> {
  const file = await openFile(path, signal);
  try {
    const images = await readImages(file, signal);
    if (images.length === 0) throw new SwarmError("invalid_argument", "holds no image");
    return { images, [Symbol.asyncDispose]: () => file[Symbol.asyncDispose]() };
  } catch (reason) {
    await file[Symbol.asyncDispose]();
    throw SwarmError.wrap(path, reason);
  }
}

async function openFile(path: string, signal: AbortSignal): Promise<TarFile> {
  try {
    return await TarFile.open(path, signal);
  } catch (reason) {
    const errno = errnoOf(reason);
    if (errno === "ENOENT") throw new SwarmError("not_found", `${path}: no such file`, { cause: reason });
    if (errno === "EISDIR") throw new SwarmError("invalid_argument", `${path}: is a directory`, { cause: reason });
    if (errno !== undefined) throw SwarmError.wrap(path, reason, "permission_denied");
    throw reason;
  }
}

function readImages(file: TarFile, signal: AbortSignal): Promise<readonly ArchiveImage[]> {
  if (file.size("index.json") !== undefined && file.size("oci-layout") !== undefined) return readLayout(file, signal);
  if (file.size("manifest.json") !== undefined) return readDockerSave(file, signal);
  throw new SwarmError("invalid_argument", "not an image archive: neither manifest.json nor index.json is in it");
}

/** OCI image-layout v1.1: index.json names manifests, or indexes of them. */
async function readLayout(file: TarFile, signal: AbortSignal): Promise<readonly ArchiveImage[]> {
  const bytes = await file.read("index.json", MANIFEST_BYTES_MAX);
  const images = new Map<string, ArchiveImage>();
  const visit = async (
    manifests: readonly Descriptor[],
    inherited: readonly string[],
    depth: number,
  ): Promise<void> => {
    if (depth > INDEX_DEPTH_MAX)
      throw new SwarmError("invalid_argument", `index is nested deeper than ${INDEX_DEPTH_MAX}`);
    for (const descriptor of manifests) {
      if (images.size > IMAGES_MAX) throw new SwarmError("resource_exhausted", `more than ${IMAGES_MAX} images`);
      const names = [...inherited, ...namesOf(descriptor)];
      // `docker save` names all platforms of an image but holds only some; attestations are no images.
      if (file.size(blobPath(descriptor.digest)) === undefined || descriptor.platform?.os === "unknown") continue;
      const content = await readChecked(file, descriptor, MANIFEST_BYTES_MAX);
      const document = decodeImageDocument(content, descriptor.mediaType);
      if (document.kind === "index") {
        await visit(document.manifests, names, depth + 1);
        continue;
      }
      const others = images.get(descriptor.digest)?.names ?? [];
      const image = await layoutImage(file, descriptor, content, document.manifest, signal);
      images.set(descriptor.digest, { ...image, names: [...new Set([...others, ...names])] });
    }
  };
  const index = decodeImageDocument(bytes, MEDIA_TYPE.ociIndex);
  if (index.kind !== "index") throw new SwarmError("invalid_argument", "index.json is no index");
  await visit(index.manifests, [], 1);
  return [...images.values()];
}

async function layoutImage(
  file: TarFile,
  descriptor: Descriptor,
  bytes: Uint8Array,
  manifest: ImageManifest,
  signal: AbortSignal,
): Promise<Omit<ArchiveImage, "names">> {
  const config = decodeImageConfig(await readChecked(file, manifest.config, CONFIG_BYTES_MAX));
  checkLayers(manifest, config);
  for (const layer of manifest.layers) await verify(file, layer, signal);
  const blob = ({ mediaType, digest, sizeBytes }: Descriptor): ArchiveBlob => {
    return { mediaType, digest, sizeBytes, open: () => file.stream(blobPath(digest)) };
  };
  const { mediaType, digest } = descriptor;
  const layers = manifest.layers.map(blob);
  return { platform: config.platform, manifest: { mediaType, digest, bytes }, config: blob(manifest.config), layers };
}

/** Docker's own format: manifest.json lists {Config, RepoTags, Layers}; there is no manifest, so one is made. */
async function readDockerSave(file: TarFile, signal: AbortSignal): Promise<readonly ArchiveImage[]> {
  const list = parseJson(await file.read("manifest.json", MANIFEST_BYTES_MAX), "manifest.json");
  if (!Array.isArray(list)) throw new SwarmError("invalid_argument", "manifest.json is not a list");
  if (list.length > IMAGES_MAX) throw new SwarmError("resource_exhausted", `more than ${IMAGES_MAX} images`);
  const images: ArchiveImage[] = [];
  for (const item of list) images.push(await dockerImage(file, item, signal));
  return images;
}

async function dockerImage(file: TarFile, item: unknown, signal: AbortSignal): Promise<ArchiveImage> {
  const record = (typeof item === "object" && item !== null ? item : {}) as Readonly<Record<string, unknown>>;
  const configPath = record.Config;
  const layerPaths = texts(record.Layers, "Layers");
  if (typeof configPath !== "string") throw new SwarmError("invalid_argument", "manifest.json: Config is not text");
  const configBytes = await file.read(configPath, CONFIG_BYTES_MAX);
  const config = decodeImageConfig(configBytes);
  const layers: ArchiveBlob[] = [];
  for (const [position, path] of layerPaths.entries()) {
    const layer = await dockerLayer(file, path, signal);
    const diffId = config.diffIds[position];
    if (layer.mediaType === MEDIA_TYPE.ociLayer && layer.digest !== diffId) {
      throw new SwarmError("data_loss", `digest mismatch: ${path} is ${layer.digest}, not ${diffId}`);
    }
    layers.push(layer);
  }
  const digest = digestOf(configBytes);
  const one = async function* () {
    yield configBytes;
  };
  const configBlob = { mediaType: MEDIA_TYPE.ociConfig, digest, sizeBytes: configBytes.length, open: one };
  const document = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPE.ociManifest,
    config: wireDescriptor(configBlob),
    layers: layers.map(wireDescriptor),
  };
  const bytes = Buffer.from(JSON.stringify(document));
  const decoded = decodeImageDocument(bytes, MEDIA_TYPE.ociManifest);
  if (decoded.kind === "manifest") checkLayers(decoded.manifest, config);
  return {
    names: texts(record.RepoTags ?? [], "RepoTags").flatMap(canonical),
    platform: config.platform,
    manifest: { mediaType: MEDIA_TYPE.ociManifest, digest: digestOf(bytes), bytes },
    config: configBlob,
    layers,
  };
}

async function dockerLayer(file: TarFile, path: string, signal: AbortSignal): Promise<ArchiveBlob> {
  const sizeBytes = file.size(path);
  if (sizeBytes === undefined) throw new SwarmError("invalid_argument", `layer ${path} is missing`);
  const hash = createHash("sha256");
  let magic: Uint8Array | undefined;
  for await (const bytes of file.stream(path)) {
    signal.throwIfAborted();
    magic ??= bytes.subarray(0, 4);
    hash.update(bytes);
  }
  const isGzip = magic?.[0] === 0x1f && magic[1] === 0x8b;
  const mediaType = isGzip ? MEDIA_TYPE.ociLayerGzip : MEDIA_TYPE.ociLayer;
  return { mediaType, digest: `sha256:${hash.digest("hex")}`, sizeBytes, open: () => file.stream(path) };
}

async function verify(file: TarFile, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
  const path = blobPath(descriptor.digest);
  const sizeBytes = file.size(path);
  if (sizeBytes === undefined) throw new SwarmError("invalid_argument", `layer ${descriptor.digest} is missing`);
  if (sizeBytes !== descriptor.sizeBytes) {
    throw new SwarmError(
      "data_loss",
      `size mismatch: ${descriptor.digest} has ${sizeBytes} bytes, not ${descriptor.sizeBytes}`,
    );
  }
  const hash = createHash(algorithmOf(descriptor.digest));
  for await (const bytes of file.stream(path)) {
    signal.throwIfAborted();
    hash.update(bytes);
  }
  const actual = `${algorithmOf(descriptor.digest)}:${hash.digest("hex")}`;
  if (actual !== descriptor.digest) throw new SwarmError("data_loss", `digest mismatch: ${path} is ${actual}`);
}

async function readChecked(file: TarFile, descriptor: Descriptor, bytesMax: number): Promise<Uint8Array> {
  const bytes = await file.read(blobPath(descriptor.digest), bytesMax);
  const actual = digestOf(bytes, algorithmOf(descriptor.digest));
  if (bytes.length !== descriptor.sizeBytes || actual !== descriptor.digest) {
    throw new SwarmError("data_loss", `digest mismatch: ${descriptor.digest} holds ${actual}`);
  }
  return bytes;
}

/** The best name an index entry gives; a bare tag (`ref.name` of podman and skopeo) names no repository. */
function namesOf({ annotations }: Descriptor): readonly string[] {
  for (const key of NAME_ANNOTATIONS) {
    const name = annotations.get(key);
    if (name !== undefined && /[:/]/.test(name)) return canonical(name);
  }
  return [];
}

function canonical(name: string): readonly string[] {
  const parsed = parseImageReference(name);
  return parsed.ok ? [canonicalName(parsed.reference)] : [];
}

function blobPath(digest: string): string {
  return `blobs/${digest.replace(":", "/")}`;
}

function wireDescriptor({ mediaType, digest, sizeBytes }: ArchiveBlob) {
  return { mediaType, digest, size: sizeBytes };
}

function digestOf(bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

function algorithmOf(digest: string): "sha256" | "sha512" {
  return digest.startsWith("sha512:") ? "sha512" : "sha256";
}

function texts(value: unknown, what: string): readonly string[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new SwarmError("invalid_argument", `manifest.json: ${what} is not a list of text`);
  }
  return value;
}
