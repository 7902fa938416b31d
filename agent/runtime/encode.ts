/**
 * The shim's binary: little-endian u32 and u64, strings as u32 length, UTF-8 bytes and a NUL (so that C uses them in
 * place), nested parts length-prefixed. `agent/shim/wire.c` reads it.
 */
import { SwarmError } from "../../common/base/error.ts";

/** Appends values to a growing buffer. */
export class Writer {
  #buffer = Buffer.allocUnsafe(4096);
  #used = 0;

  u32(value: number): this {
    // First the room: reserving may move the buffer.
    const at = this.#reserve(4);
    this.#buffer.writeUInt32LE(value >>> 0, at);
    return this;
  }

  u64(value: bigint): this {
    const at = this.#reserve(8);
    this.#buffer.writeBigUInt64LE(BigInt.asUintN(64, value), at);
    return this;
  }

  boolean(value: boolean): this {
    return this.u32(value ? 1 : 0);
  }

  /** A string; one with a NUL in it cannot be said to the kernel and is an `invalid_argument`. */
  string(value: string): this {
    if (value.includes("\0")) throw new SwarmError("invalid_argument", `NUL byte in ${JSON.stringify(value)}`);
    const length = Buffer.byteLength(value);
    this.u32(length);
    const at = this.#reserve(length + 1);
    this.#buffer.write(value, at);
    this.#buffer[at + length] = 0;
    return this;
  }

  bytes(value: Uint8Array): this {
    this.u32(value.length);
    const at = this.#reserve(value.length);
    this.#buffer.set(value, at);
    return this;
  }

  /** A u32 count, then each item as `write` puts it. */
  list<T>(items: readonly T[], write: (item: T) => void): this {
    this.u32(items.length);
    for (const item of items) write(item);
    return this;
  }

  /** A length-prefixed part that `write` fills. */
  part(write: () => void): this {
    const at = this.#reserve(4);
    write();
    this.#buffer.writeUInt32LE(this.#used - at - 4, at);
    return this;
  }

  finish(): Buffer {
    return this.#buffer.subarray(0, this.#used);
  }

  #reserve(length: number): number {
    const at = this.#used;
    this.#used += length;
    if (this.#used > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#used, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    return at;
  }
}

/** u32 length of what follows it, u32 id, u32 kind, payload: a request to the shim, or an answer of it. */
export interface Frame {
  readonly id: number;
  readonly kind: number;
  readonly payload: Buffer;
}

/** A frame's bytes; `write` fills the payload. */
export function encodeFrame(id: number, kind: number, write?: (writer: Writer) => void): Buffer {
  const writer = new Writer();
  return writer
    .part(() => {
      writer.u32(id).u32(kind);
      write?.(writer);
    })
    .finish();
}

/** The largest answer the shim sends; a longer one means that the stream is out of step. */
const FRAME_BYTES_MAX = 17 << 20;

/** Cuts a byte stream into frames. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;

  /** Takes what came and yields the frames that are whole now; throws `data_loss` on a stream that is out of step. */
  *push(chunk: Buffer): Generator<Frame, void, undefined> {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    while (this.#length >= 12) {
      let buffer = this.#chunks[0] ?? chunk;
      if (buffer.length < 12) buffer = this.#join();
      const size = buffer.readUInt32LE(0) + 4;
      if (size < 12 || size > FRAME_BYTES_MAX) throw new SwarmError("data_loss", `shim: frame of ${size} bytes`);
      if (this.#length < size) return;
      if (buffer.length < size) buffer = this.#join();
      const frame = { id: buffer.readUInt32LE(4), kind: buffer.readUInt32LE(8), payload: buffer.subarray(12, size) };
      this.#length -= size;
      if (size === buffer.length) this.#chunks.shift();
      else this.#chunks[0] = buffer.subarray(size);
      yield frame;
    }
  }

  #join(): Buffer {
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = [whole];
    return whole;
  }
}
