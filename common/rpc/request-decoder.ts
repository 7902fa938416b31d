/**
 * Takes the place of grpc-js's own decoder of a call's requests, which holds every DATA frame as it came until a message is whole: of
 * a million frames of one byte each it would keep a hundred times what was sent (as in grpc-go, CVE-2026-84304). This one copies
 * them together, and refuses a message by its announced length, which may differ from method to method.
 */

/** Compressed flag and length, which stand before each message (gRPC over HTTP/2, "Length-Prefixed-Message"). */
const PREFIX_BYTES = 5;

/** What is held of a message before more has come than that: its length is only a claim. */
const FIRST_BYTES = 512;

/** The decoder of one call. */
export class RequestDecoder {
  readonly #bytesMax: number;
  #held = Buffer.allocUnsafe(FIRST_BYTES);
  #count = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The messages that `data` completes, each with its prefix. Throws for one that is too large; grpc-js makes RESOURCE_EXHAUSTED of it. */
  write(data: Buffer): Buffer[] {
    const messages: Buffer[] = [];
    let read = 0;
    while (read < data.length) {
      const wanted = this.#wanted();
      const taken = Math.min(wanted - this.#count, data.length - read);
      this.#append(data.subarray(read, read + taken), wanted);
      read += taken;
      if (this.#count < PREFIX_BYTES || this.#count < this.#wanted()) continue;
      messages.push(this.#held.subarray(0, this.#count));
      this.#held = Buffer.allocUnsafe(FIRST_BYTES);
      this.#count = 0;
    }
    return messages;
  }

  /** Of the message that has begun: its prefix, then the whole of it. */
  #wanted(): number {
    if (this.#count < PREFIX_BYTES) return PREFIX_BYTES;
    const bytes = this.#held.readUInt32BE(1);
    if (bytes > this.#bytesMax) {
      throw new Error(`received message larger than max (${bytes} vs. ${this.#bytesMax})`);
    }
    return PREFIX_BYTES + bytes;
  }

  #append(part: Buffer, wanted: number): void {
    const count = this.#count + part.length;
    if (count > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.min(wanted, Math.max(count, 2 * this.#held.length)));
      this.#held.copy(grown, 0, 0, this.#count);
      this.#held = grown;
    }
    part.copy(this.#held, this.#count);
    this.#count = count;
  }
}

/**
 * Bounds the requests of a call that has begun, which is grpc-js's innermost: of its decoder and of what a compressed message may
 * become. Both are its own, and no option of its says them by method.
 */
export function boundRequests(call: object, bytesMax: number): void {
  Reflect.set(call, "decoder", new RequestDecoder(bytesMax));
  Reflect.set(call, "maxReceiveMessageSize", bytesMax);
}
