/**
 * Turns a stored layer into its tar: gzip (of one member or more), zstd (of one frame or more) or nothing. In-process, so
 * that no program of an image or of PATH has a hand in it.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { SwarmError } from "../../common/base/error.ts";
import type { LayerCompression } from "../../common/model/oci-image.ts";
import { splitZstdFrames } from "./zstd-frames.ts";

/** Larger pieces cost memory (each layer in flight holds a few), smaller ones cost turns of the event loop. */
const PIECE_BYTES = 256 * 1024;
/** RFC 8878 advises 8 MiB; 128 MiB (2^27) is what `zstd --ultra` writes and its default decoder takes. */
const ZSTD_WINDOW_LOG_MAX = 27;

/**
 * The uncompressed bytes of `content`. Throws `invalid_argument` when the first bytes are not what `stated` says, and
 * when the stream is damaged, cut short or followed by anything else.
 */
export async function* decompress(
  content: AsyncIterable<Uint8Array>,
  stated: LayerCompression,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { first, all } = await peek(content);
  const actual = compressionOf(first);
  if (actual !== stated) throw new SwarmError("invalid_argument", `labelled ${stated} but is ${actual}`);
  switch (stated) {
    case "none":
      return yield* all;
    case "gzip":
      return yield* gunzip(all);
    case "zstd":
      for await (const frame of splitZstdFrames(all)) yield* unzstd(frame);
  }
}

/** What the magic number at the start of `bytes` says. */
function compressionOf(bytes: Uint8Array): LayerCompression {
  const [a, b, c, d] = bytes;
  if (a === 0x1f && b === 0x8b) return "gzip";
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return "zstd";
  if (a !== undefined && a >= 0x50 && a <= 0x5f && b === 0x2a && c === 0x4d && d === 0x18) return "zstd";
  return "none";
}

async function* gunzip(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let givenBytes = 0;
  const engine = createGunzip({ chunkSize: PIECE_BYTES });
  const counted = async function* () {
    for await (const bytes of content) {
      givenBytes += bytes.length;
      yield bytes;
    }
  };
  yield* run(engine, counted());
  // Node stops in silence at what follows the last member.
  if (engine.bytesWritten !== givenBytes)
    throw damaged(`${givenBytes - engine.bytesWritten} bytes follow the gzip stream`);
}

function unzstd(frame: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const params = { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX };
  return run(createZstdDecompress({ chunkSize: PIECE_BYTES, params }), frame);
}

async function* run(
  engine: ReturnType<typeof createGunzip>,
  content: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const feeding = pipeline(Readable.from(content, { objectMode: true, highWaterMark: 2 }), engine);
  // Its failure destroys the engine, whose iterator then throws the same error.
  feeding.catch(() => {});
  try {
    yield* engine as AsyncIterable<Buffer>;
    await feeding;
  } catch (reason) {
    if (reason instanceof SwarmError) throw reason;
    throw damaged(reason instanceof Error ? reason.message : String(reason), reason);
  } finally {
    engine.destroy();
  }
}

/** The first four bytes (fewer at the end of input), and the whole stream again. */
async function peek(
  content: AsyncIterable<Uint8Array>,
): Promise<{ readonly first: Uint8Array; readonly all: AsyncIterable<Uint8Array> }> {
  const iterator = content[Symbol.asyncIterator]();
  let first = new Uint8Array(0);
  while (first.length < 4) {
    const next = await iterator.next();
    if (next.done) break;
    first = first.length === 0 ? new Uint8Array(next.value) : Buffer.concat([first, next.value]);
  }
  const all = async function* () {
    try {
      if (first.length > 0) yield first;
      while (true) {
        const next = await iterator.next();
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  };
  return { first, all: all() };
}

function damaged(problem: string, cause?: unknown): SwarmError {
  return new SwarmError("invalid_argument", `compressed data is damaged: ${problem}`, { cause });
}
