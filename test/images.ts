/** Makes small images for tests and the demo: OCI layouts and docker-save archives, byte for byte the same each time. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { file, hardlink, symlink, type TarItem, writeTar } from "./tar.ts";

/** One layer of an image to be. */
export interface LayerPlan {
  readonly files?: readonly TarItem[];
  /** A tar made elsewhere, instead of files. */
  readonly tar?: Buffer;
  /** Default gzip. docker-save archives always hold plain tars. */
  readonly compression?: "none" | "gzip" | "zstd";
}

/** An image to be. */
export interface ImagePlan {
  /** Familiar name with a tag: `demo/web:1`. */
  readonly name: string;
  readonly layers: readonly LayerPlan[];
  /** The `config` part of the image's config, in Docker's words: Cmd, Entrypoint, Env, User, … */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Default this machine's. */
  readonly architecture?: string;
  /** Default `oci`. */
  readonly format?: "oci" | "docker";
  /** Where the archive goes; default a new temporary directory. */
  readonly directory?: string;
}

/** Content with what names it. */
export interface BuiltBlob {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Buffer;
}

/** All parts of an image, lowest layer first. */
export interface BuiltImage {
  readonly manifest: BuiltBlob;
  readonly config: BuiltBlob;
  readonly layers: readonly BuiltBlob[];
}

const OCI = "application/vnd.oci.image";

/** `sha256:…` of `bytes`. */
export function sha256(bytes: string | Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** A blob of JSON. */
export function jsonBlob(mediaType: string, document: unknown): BuiltBlob {
  const bytes = Buffer.from(JSON.stringify(document));
  return { mediaType, digest: sha256(bytes), bytes };
}

/** The descriptor that names a blob. */
export function descriptorOf({ mediaType, digest, bytes }: BuiltBlob) {
  return { mediaType, digest, size: bytes.length };
}

/** The parts of an image, for a registry in a test. */
export function buildParts(plan: ImagePlan): BuiltImage {
  const tars = plan.layers.map(tarOf);
  const layers = tars.map((tar, position) => compressed(tar, plan.layers[position]?.compression ?? "gzip"));
  const config = jsonBlob(`${OCI}.config.v1+json`, {
    architecture: plan.architecture ?? (process.arch === "x64" ? "amd64" : process.arch),
    os: "linux",
    config: plan.config ?? {},
    rootfs: { type: "layers", diff_ids: tars.map(sha256) },
    history: tars.map(() => ({ created_by: "test" })),
  });
  const mediaType = `${OCI}.manifest.v1+json`;
  const manifest = jsonBlob(mediaType, {
    schemaVersion: 2,
    mediaType,
    config: descriptorOf(config),
    layers: layers.map(descriptorOf),
  });
  return { manifest, config, layers };
}

function tarOf({ files = [], tar }: LayerPlan): Buffer {
  return tar ?? writeTar(files);
}

/** Writes an image as an archive that `swarmctl image load`, `docker load` and `skopeo` read; returns its path. */
export function buildImage(plan: ImagePlan): string {
  const directory = plan.directory ?? mkdtempSync(join(tmpdir(), "swarm-image-"));
  const path = join(directory, `${plan.name.replaceAll(/[^a-z0-9.]+/g, "-")}.tar`);
  writeFileSync(path, plan.format === "docker" ? dockerArchive(plan) : ociArchive(plan));
  return path;
}

/** The files of a root that holds Debian's static busybox and links for all its programs. */
export function busyboxFiles(): readonly TarItem[] {
  const programs = [
    "sh",
    "cat",
    "chown",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "nc",
    "ps",
    "sleep",
    "stat",
    "su",
    "tail",
    "touch",
    "true",
    "wget",
  ];
  const folders = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];
  return [
    ...folders.map((path) => ({ path, type: "5", mode: path === "tmp" ? 0o1777 : path === "root" ? 0o700 : 0o755 })),
    file("bin/busybox", readFileSync("/bin/busybox"), 0o755),
    ...programs.map((name) => hardlink("bin/busybox", `bin/${name}`, 0o755)),
    symlink("../bin", "etc/bin"),
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    file("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
  ];
}

function compressed(tar: Buffer, compression: "none" | "gzip" | "zstd"): BuiltBlob {
  const bytes = compression === "gzip" ? gzipSync(tar) : compression === "zstd" ? zstdCompressSync(tar) : tar;
  const mediaType = `${OCI}.layer.v1.tar${compression === "none" ? "" : `+${compression}`}`;
  return { mediaType, digest: sha256(bytes), bytes };
}

function ociArchive(plan: ImagePlan): Buffer {
  const { manifest, config, layers } = buildParts(plan);
  const annotations = { "org.opencontainers.image.ref.name": plan.name, "io.containerd.image.name": plan.name };
  const blobs = new Map([manifest, config, ...layers].map((blob) => [blob.digest, blob.bytes]));
  return writeTar([
    file("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" })),
    file("index.json", JSON.stringify({ schemaVersion: 2, manifests: [{ ...descriptorOf(manifest), annotations }] })),
    ...[...blobs].map(([digest, bytes]) => file(`blobs/${digest.replace(":", "/")}`, bytes)),
  ]);
}

function dockerArchive(plan: ImagePlan): Buffer {
  const plain = { ...plan, layers: plan.layers.map((layer) => ({ ...layer, compression: "none" as const })) };
  const { config, layers } = buildParts(plain);
  const hex = ({ digest }: BuiltBlob) => digest.slice("sha256:".length);
  const unique = new Map(layers.map((layer) => [`${hex(layer)}/layer.tar`, layer.bytes]));
  const manifest = [
    { Config: `${hex(config)}.json`, RepoTags: [plan.name], Layers: layers.map((layer) => `${hex(layer)}/layer.tar`) },
  ];
  return writeTar([
    ...[...unique].map(([path, bytes]) => file(path, bytes)),
    file(`${hex(config)}.json`, config.bytes),
    file("manifest.json", JSON.stringify(manifest)),
  ]);
}
