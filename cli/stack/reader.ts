/** Files as the stages see them: the edge of an otherwise pure pipeline. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { systemMessage } from "../../common/base/error.ts";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";

/** A file of variables, a secret or a config larger than this is the wrong file. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;

/** Reads files. */
export interface StackReader {
  /** The bytes of a file, or why they cannot be had. */
  read(path: string): Parsed<Uint8Array>;
  exists(path: string): boolean;
}

/** The real files. */
export const fileReader: StackReader = {
  read(path) {
    try {
      const { size } = statSync(path);
      if (size > FILE_BYTES_MAX) return bad(`is ${size} bytes long; at most ${FILE_BYTES_MAX}`);
      return good(readFileSync(path));
    } catch (reason) {
      return bad(systemMessage(reason));
    }
  },
  exists: (path) => existsSync(path),
};

/** A file's text. */
export function readText(reader: StackReader, path: string): Parsed<string> {
  const bytes = reader.read(path);
  if (!bytes.ok) return bytes;
  try {
    return good(new TextDecoder("utf-8", { fatal: true }).decode(bytes.value));
  } catch {
    return bad("is not valid UTF-8");
  }
}
