/** Bytes as messages carry them: neither a message for each few bytes, nor one that is too large. */

/** The bytes of `source` in pieces of exactly `bytesMax`, the last one apart. What it yields is never written to again. */
export async function* inChunks(
  source: AsyncIterable<Uint8Array>,
  bytesMax: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let chunk = new Uint8Array(bytesMax);
  let used = 0;
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + bytesMax - used);
      chunk.set(part, used);
      used += part.length;
      at += part.length;
      if (used < bytesMax) continue;
      yield chunk;
      chunk = new Uint8Array(bytesMax);
      used = 0;
    }
  }
  if (used > 0) yield chunk.subarray(0, used);
}
