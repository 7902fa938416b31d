/** FILE|-: a text from a file, or from stdin. */
import { SwarmError } from "../common/base/error.ts";
import type { Io } from "./io.ts";

/** A context or an invite has some kilobytes. */
const BYTES_MAX = 1024 * 1024;

export async function readTextArgument(
  file: string,
  { stdin, readFile }: Pick<Io, "stdin" | "readFile">,
): Promise<string> {
  if (file !== "-") return readFile(file);
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of stdin) {
    bytes += part.length;
    if (bytes > BYTES_MAX) throw new SwarmError("invalid_argument", `stdin: larger than ${BYTES_MAX} bytes`);
    parts.push(Buffer.from(part));
  }
  return Buffer.concat(parts).toString("utf8");
}
