import { createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { familiarName, parseImageReference } from "../../common/model/image-reference.ts";
import type { PutBlobRequestSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command, ControlClient, Invocation } from "../command.ts";
import { type ArchiveBlob, type ArchiveImage, readImageArchive } from "../image-archive/read.ts";
import type { Io } from "../io.ts";
import { UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "image load [OPTIONS] [FILE]",
  summary: "Load an image into the cluster from a tar archive or STDIN (docker save and OCI archives)",
  flags: {
    input: { kind: "text", short: "i", value: "string", help: "Read from tar archive file, instead of STDIN" },
    quiet: { kind: "boolean", short: "q", help: "Suppress the load output" },
  },
  words: { min: 0, max: 1 },
  run,
};

/** Bytes per message: far below what a server takes, large enough to keep the wire busy. */
const PART_BYTES = 256 * 1024;

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, signal } = invocation;
  const path = flags.text("input") ?? words[0];
  if (path !== undefined && path !== "-") return await load(path, invocation);
  if (io.stdin.isTTY) throw new UsageError("requested load from stdin, but stdin is empty: name a file");
  await using spool = await spoolStdin(io, signal);
  try {
    return await load(spool.path, invocation);
  } catch (reason) {
    if (!(reason instanceof SwarmError)) throw reason;
    throw new SwarmError(reason.code, reason.message.replaceAll(spool.path, "stdin"), { cause: reason });
  }
}

async function load(path: string, { flags, io, signal, connect }: Invocation): Promise<number> {
  await using archive = await readImageArchive(path, signal);
  const client = await connect();
  for (const image of archive.images) {
    await upload(client, image, signal);
    if (flags.on("quiet")) continue;
    const names = image.names.map(shownName);
    for (const name of names) io.out(`Loaded image: ${name}\n`);
    if (names.length === 0) io.out(`Loaded image ID: ${image.manifest.digest}\n`);
  }
  return 0;
}

/** Sends what the manager lacks, then names the image. */
async function upload(client: ControlClient, image: ArchiveImage, signal: AbortSignal): Promise<void> {
  const blobs = new Map([image.config, ...image.layers].map((blob) => [blob.digest, blob]));
  const missing = await client.missingBlobs({ digests: [...blobs.keys()] }, { signal });
  for (const digest of missing.digests) {
    const blob = blobs.get(digest);
    if (blob !== undefined) await client.putBlob(partsOf(blob), { signal });
  }
  const request = { manifest: image.manifest.bytes, names: [...image.names] };
  await client.putImage(request, { signal, timeoutMs: 30_000 });
}

async function* partsOf(blob: ArchiveBlob): AsyncGenerator<MessageInitShape<typeof PutBlobRequestSchema>> {
  yield { part: { case: "header", value: { digest: blob.digest, sizeBytes: BigInt(blob.sizeBytes) } } };
  for await (const chunk of blob.open()) {
    for (let at = 0; at < chunk.length; at += PART_BYTES) {
      yield { part: { case: "data", value: chunk.subarray(at, at + PART_BYTES) } };
    }
  }
}

function shownName(name: string): string {
  const parsed = parseImageReference(name);
  return parsed.ok ? familiarName(parsed.reference) : name;
}

/** An archive's table of contents may stand at its end, so it is read twice: a pipe goes to a file first. */
async function spoolStdin(io: Io, signal: AbortSignal): Promise<AsyncDisposable & { readonly path: string }> {
  const folder = await mkdtemp(join(tmpdir(), "swarmctl-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const path = join(folder, "archive.tar");
    await pipeline(io.stdin, createWriteStream(path, { mode: 0o600 }), { signal });
    return { path, [Symbol.asyncDispose]: remove };
  } catch (reason) {
    await remove();
    throw reason;
  }
}
