/**
 * The documents that make an image: descriptor, index, manifest, config (OCI image-spec v1.1, and Docker's schema 2, which
 * differs only in media types). Strict decoders of untrusted bytes; pure, shared by the agent and swarmctl.
 *
 * From a config only what a container needs is taken: labels and annotations of an image never become ours.
 */
import { SwarmError } from "../base/error.ts";
import { isDigest } from "./image-reference.ts";

/** Media types that are understood; schema 1 of Docker is not one of them. */
export const MEDIA_TYPE = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  dockerLayerZstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
} as const;

/** A manifest or index larger than this is refused (containerd: 4 MiB): it is held in memory. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** The same for a config. */
export const CONFIG_BYTES_MAX = 4 * 1024 * 1024;
/** More layers than overlayfs mounts well; Docker stops at 125, containerd at 128. */
const LAYERS_MAX = 128;
/** Entries of an index; more only waste time. */
const INDEX_ENTRIES_MAX = 1000;

/** How a layer's tar is stored. */
export type LayerCompression = "none" | "gzip" | "zstd";

/** A machine that an image is for. */
export interface Platform {
  readonly os: string;
  /** Go's name: `amd64`, `arm64`, … */
  readonly architecture: string;
  readonly variant?: string;
}

/** Names content by digest; its size bounds what may be read for it. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** Only in an index. */
  readonly platform?: Platform;
  readonly annotations: ReadonlyMap<string, string>;
}

/** What a manifest's bytes turn out to be. */
export type ImageDocument =
  | { readonly kind: "index"; readonly manifests: readonly Descriptor[] }
  | { readonly kind: "manifest"; readonly manifest: ImageManifest };

/** One image: a config and its layers, lowest first. */
export interface ImageManifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** How to check a container's health (Docker's extension of the config). Durations in ms; absent = default. */
export interface ImageHealthcheck {
  /** `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`. */
  readonly test: readonly string[];
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly startPeriodMs?: number;
  readonly startIntervalMs?: number;
  readonly retries?: number;
}

/** How a container of the image runs unless its service says otherwise. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly user: string;
  /** Names of `port/protocol`. */
  readonly exposedPorts: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  /** Paths inside the container. */
  readonly volumes: readonly string[];
  readonly workingDirectory: string;
  readonly stopSignal?: string;
  readonly healthcheck?: ImageHealthcheck;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
}

/** Media types of manifests and indexes, in the order we like them best: the Accept header of a pull. */
export const MANIFEST_MEDIA_TYPES: readonly string[] = [
  MEDIA_TYPE.ociIndex,
  MEDIA_TYPE.dockerIndex,
  MEDIA_TYPE.ociManifest,
  MEDIA_TYPE.dockerManifest,
];

const COMPRESSIONS: ReadonlyMap<string, LayerCompression> = new Map([
  [MEDIA_TYPE.ociLayer, "none"],
  [MEDIA_TYPE.ociLayerGzip, "gzip"],
  [MEDIA_TYPE.ociLayerZstd, "zstd"],
  [MEDIA_TYPE.dockerLayer, "none"],
  [MEDIA_TYPE.dockerLayerGzip, "gzip"],
  [MEDIA_TYPE.dockerLayerZstd, "zstd"],
]);

/**
 * How the layer is stored by its media type. Throws `unimplemented` for foreign layers (their URLs could make us carry
 * credentials anywhere, CVE-2020-15157) and unknown types.
 */
export function layerCompression(layer: Descriptor): LayerCompression {
  const compression = COMPRESSIONS.get(layer.mediaType);
  if (!compression) {
    throw new SwarmError(
      "unimplemented",
      `layer ${layer.digest}: media type ${quote(layer.mediaType)} is not supported`,
    );
  }
  return compression;
}

/**
 * Reads a manifest or index. `mediaType` is what its source calls it (Content-Type, or the descriptor's), and must agree
 * with what the document says of itself; one with both `layers` and `manifests` is refused (CVE-2021-41190).
 * Throws `invalid_argument`.
 */
export function decodeImageDocument(bytes: Uint8Array, mediaType: string | undefined): ImageDocument {
  if (bytes.length > MANIFEST_BYTES_MAX) throw bad(`manifest of ${bytes.length} bytes is over ${MANIFEST_BYTES_MAX}`);
  const document = asRecord(parseJson(bytes, "manifest"), "manifest");
  if (document.schemaVersion !== 2) throw bad("manifest: only schemaVersion 2 is supported");
  if (document.layers !== undefined && document.manifests !== undefined) {
    throw bad("manifest has both layers and manifests");
  }
  const own = optionalText(document.mediaType, "manifest.mediaType");
  const stated = own ?? mediaType;
  if (own !== undefined && mediaType !== undefined && own !== mediaType) {
    throw bad(`manifest says it is ${quote(own)} but came as ${quote(mediaType)}`);
  }
  const isIndex = stated === MEDIA_TYPE.ociIndex || stated === MEDIA_TYPE.dockerIndex;
  const isManifest = stated === MEDIA_TYPE.ociManifest || stated === MEDIA_TYPE.dockerManifest;
  if (!isIndex && !isManifest) throw bad(`manifest of media type ${quote(stated ?? "")} is not supported`);
  if (isIndex) return { kind: "index", manifests: decodeIndex(document) };
  return { kind: "manifest", manifest: decodeManifest(document) };
}

/** Reads an image's config. Throws `invalid_argument`. */
export function decodeImageConfig(bytes: Uint8Array): ImageConfig {
  if (bytes.length > CONFIG_BYTES_MAX) throw bad(`image config of ${bytes.length} bytes is over ${CONFIG_BYTES_MAX}`);
  const document = asRecord(parseJson(bytes, "image config"), "image config");
  const config = asRecord(document.config ?? {}, "config");
  const rootfs = asRecord(document.rootfs, "rootfs");
  const stopSignal = optionalText(config.StopSignal, "config.StopSignal");
  const healthcheck = decodeHealthcheck(config.Healthcheck);
  return {
    platform: decodePlatform(document, "image config"),
    user: optionalText(config.User, "config.User") ?? "",
    exposedPorts: keysOf(config.ExposedPorts, "config.ExposedPorts"),
    env: texts(config.Env, "config.Env"),
    entrypoint: texts(config.Entrypoint, "config.Entrypoint"),
    command: texts(config.Cmd, "config.Cmd"),
    volumes: keysOf(config.Volumes, "config.Volumes"),
    workingDirectory: optionalText(config.WorkingDir, "config.WorkingDir") ?? "",
    ...(stopSignal ? { stopSignal } : {}),
    ...(healthcheck ? { healthcheck } : {}),
    diffIds: texts(rootfs.diff_ids, "rootfs.diff_ids").map((diffId) => asDigest(diffId, "rootfs.diff_ids")),
  };
}

/** Checks that manifest and config speak of the same layers. Throws `invalid_argument`. */
export function checkLayers(manifest: ImageManifest, config: ImageConfig): void {
  if (manifest.layers.length !== config.diffIds.length) {
    throw bad(`manifest has ${manifest.layers.length} layers but its config names ${config.diffIds.length}`);
  }
}

/**
 * The entry of an index for `wanted`: same os and architecture, the same variant before any other. Undefined when there
 * is none.
 */
export function choosePlatform(manifests: readonly Descriptor[], wanted: Platform): Descriptor | undefined {
  const fitting = manifests.filter(
    ({ platform }) => platform?.os === wanted.os && platform.architecture === wanted.architecture,
  );
  return fitting.find(({ platform }) => platform?.variant === wanted.variant) ?? fitting[0];
}

/** `linux/amd64`, `linux/arm/v7`. */
export function platformText(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** Parses JSON of untrusted origin: UTF-8 only. Throws `invalid_argument`. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new SwarmError("invalid_argument", `${what} is not JSON`, { cause });
  }
}

function decodeIndex(document: JsonRecord): readonly Descriptor[] {
  const manifests = asList(document.manifests ?? [], "manifests");
  if (manifests.length > INDEX_ENTRIES_MAX)
    throw bad(`index of ${manifests.length} entries is over ${INDEX_ENTRIES_MAX}`);
  return manifests.map((entry) => decodeDescriptor(entry, "manifests"));
}

function decodeManifest(document: JsonRecord): ImageManifest {
  const layers = asList(document.layers, "layers");
  if (layers.length > LAYERS_MAX) throw bad(`image of ${layers.length} layers is over ${LAYERS_MAX}`);
  const config = decodeDescriptor(document.config, "config");
  if (config.sizeBytes > CONFIG_BYTES_MAX)
    throw bad(`image config of ${config.sizeBytes} bytes is over ${CONFIG_BYTES_MAX}`);
  return { config, layers: layers.map((layer) => decodeDescriptor(layer, "layers")) };
}

/** Reads a descriptor; `what` names it in errors. Throws `invalid_argument`. */
function decodeDescriptor(value: unknown, what: string): Descriptor {
  const record = asRecord(value, what);
  const sizeBytes = record.size;
  if (typeof sizeBytes !== "number" || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0)
    throw bad(`${what}.size is not a size`);
  const annotations = Object.entries(asRecord(record.annotations ?? {}, `${what}.annotations`));
  const platform = record.platform === undefined ? undefined : asRecord(record.platform, `${what}.platform`);
  return {
    mediaType: asText(record.mediaType, `${what}.mediaType`),
    digest: asDigest(record.digest, `${what}.digest`),
    sizeBytes,
    ...(platform ? { platform: decodePlatform(platform, `${what}.platform`) } : {}),
    annotations: new Map(annotations.map(([key, text]) => [key, asText(text, `${what}.annotations`)])),
  };
}

function decodePlatform(record: JsonRecord, what: string): Platform {
  const variant = optionalText(record.variant, `${what}.variant`);
  return {
    os: asText(record.os, `${what}.os`),
    architecture: asText(record.architecture, `${what}.architecture`),
    ...(variant ? { variant } : {}),
  };
}

function decodeHealthcheck(value: unknown): ImageHealthcheck | undefined {
  if (value === undefined || value === null) return undefined;
  const record = asRecord(value, "config.Healthcheck");
  const test = texts(record.Test, "config.Healthcheck.Test");
  if (test.length === 0) return undefined;
  const retries = nonNegative(record.Retries, "config.Healthcheck.Retries");
  return {
    test,
    ...milliseconds(record, "Interval", "intervalMs"),
    ...milliseconds(record, "Timeout", "timeoutMs"),
    ...milliseconds(record, "StartPeriod", "startPeriodMs"),
    ...milliseconds(record, "StartInterval", "startIntervalMs"),
    ...(retries ? { retries } : {}),
  };
}

/** Go writes durations in nanoseconds; 0 means the default. */
function milliseconds<Key extends string>(
  record: JsonRecord,
  from: string,
  to: Key,
): { readonly [key in Key]?: number } {
  const nanoseconds = nonNegative(record[from], `config.Healthcheck.${from}`);
  return nanoseconds ? ({ [to]: nanoseconds / 1e6 } as { [key in Key]: number }) : {};
}

type JsonRecord = Readonly<Record<string, unknown>>;

function asRecord(value: unknown, what: string): JsonRecord {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad(`${what} is not an object`);
  return value as JsonRecord;
}

function asList(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw bad(`${what} is not a list`);
  return value;
}

function asText(value: unknown, what: string): string {
  if (typeof value !== "string") throw bad(`${what} is not text`);
  if (value.includes("\0")) throw bad(`${what} holds a NUL byte`);
  return value;
}

function optionalText(value: unknown, what: string): string | undefined {
  return value === undefined || value === null ? undefined : asText(value, what);
}

function asDigest(value: unknown, what: string): string {
  if (typeof value !== "string" || !isDigest(value)) throw bad(`${what} is not a digest`);
  return value;
}

function texts(value: unknown, what: string): readonly string[] {
  return value === undefined || value === null ? [] : asList(value, what).map((item) => asText(item, what));
}

function keysOf(value: unknown, what: string): readonly string[] {
  return value === undefined || value === null
    ? []
    : Object.keys(asRecord(value, what)).map((key) => asText(key, what));
}

function nonNegative(value: unknown, what: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) throw bad(`${what} is not a number above 0`);
  return value;
}

function bad(problem: string): SwarmError {
  return new SwarmError("invalid_argument", problem);
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
