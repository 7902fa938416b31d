/** DNS over TCP: each message behind its length in two bytes (RFC 1035 §4.2.2). */
import type { Readable, Writable } from "node:stream";

/** The messages of a connection, until it ends. Throws what the connection failed with. */
export async function* readFrames(stream: Readable): AsyncGenerator<Uint8Array, void, undefined> {
  let data = Buffer.alloc(0);
  for await (const chunk of stream) {
    data = data.length === 0 ? chunk : Buffer.concat([data, chunk]);
    while (data.length >= 2 && data.length >= 2 + data.readUInt16BE(0)) {
      const end = 2 + data.readUInt16BE(0);
      yield data.subarray(2, end);
      data = data.subarray(end);
    }
  }
}

export function writeFrame(stream: Writable, message: Uint8Array): void {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  stream.write(Buffer.concat([length, message]));
}
