/** Paths as byte strings (one character for each byte, as in common/model/tar.ts), and back. Pure. */

/** For calls of Node's, which take a path's bytes as they are. */
export function pathOf(bytes: string): Buffer {
  return Buffer.from(bytes, "latin1");
}

export function bytesOfText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** For people: what is no UTF-8 shows as replacement characters. */
export function textOfBytes(bytes: string): string {
  return pathOf(bytes).toString("utf8");
}
