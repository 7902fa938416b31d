/**
 * Finds where each frame of a zstd stream ends, from its headers alone (RFC 8878 §3.1). Needed because Node's decoder stops
 * in silence after the first frame, while images of `zstd:chunked` are made of thousands.
 */
import { SwarmError } from "../../common/base/error.ts";

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;

/**
 * Splits a stream into its frames, skippable ones left out. Each frame must be read to its end before the next is asked
 * for. Throws `invalid_argument` for what is no frame and for a stream cut short.
 */
export async function* splitZstdFrames(
  content: AsyncIterable<Uint8Array>,
): AsyncGenerator<AsyncIterable<Uint8Array>, void, undefined> {
  const reader = new Reader(content[Symbol.asyncIterator]());
  while (await reader.hasMore()) {
    const magic = (await reader.take(4)).readUInt32LE();
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      for await (const _ of reader.pass((await reader.take(4)).readUInt32LE()));
    } else if (magic === FRAME_MAGIC) {
      yield readFrame(reader);
    } else {
      throw damaged("something follows that is no zstd frame");
    }
  }
}

async function* readFrame(reader: Reader): AsyncGenerator<Uint8Array, void, undefined> {
  const descriptor = (await reader.take(1)).readUInt8();
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const header = await reader.take((isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes);
  yield Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, descriptor]), header]);
  for (let isLast = false; !isLast; ) {
    const block = await reader.take(3);
    const bits = block.readUIntLE(0, 3);
    isLast = (bits & 1) === 1;
    const type = (bits >> 1) & 3;
    if (type === 3) throw damaged("reserved block type");
    yield block;
    yield* reader.pass(type === 1 ? 1 : bits >> 3);
  }
  if ((descriptor & 4) !== 0) yield await reader.take(4);
}

/** Takes an exact number of bytes from a stream of pieces. */
class Reader {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #piece: Uint8Array = new Uint8Array(0);

  constructor(pieces: AsyncIterator<Uint8Array>) {
    this.#pieces = pieces;
  }

  async hasMore(): Promise<boolean> {
    while (this.#piece.length === 0) {
      const next = await this.#pieces.next();
      if (next.done) return false;
      this.#piece = next.value;
    }
    return true;
  }

  async take(length: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const part of this.pass(length)) parts.push(part);
    return Buffer.concat(parts);
  }

  async *pass(length: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (let left = length; left > 0; ) {
      if (!(await this.hasMore())) throw damaged("zstd stream is cut short");
      const part = this.#piece.subarray(0, left);
      this.#piece = this.#piece.subarray(part.length);
      left -= part.length;
      yield part;
    }
  }
}

function damaged(problem: string): SwarmError {
  return new SwarmError("invalid_argument", `compressed data is damaged: ${problem}`);
}
