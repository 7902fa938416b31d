/**
 * What the shim's copying operations say on their standard output, as values: see agent/shim/copy.c. Paths and texts are byte
 * strings, as in common/model/tar.ts.
 */
import { SwarmError } from "../../common/base/error.ts";
import type { TarKind } from "../../common/model/tar.ts";

/** What a file system says of a file. */
export interface FileState {
  readonly kind: Extract<TarKind, string> | "socket";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly sizeBytes: number;
  /** The same for all names of one file. */
  readonly identity: string;
  readonly links: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** One record. After an `entry` that is a file, its content follows. */
export type CopyRecord =
  | { readonly record: "entry"; readonly path: string; readonly state: FileState; readonly link: string }
  /** A file that was an entry before, under another name. */
  | { readonly record: "linked"; readonly path: string; readonly state: FileState }
  | { readonly record: "skipped"; readonly path: string }
  /** The content of the file before is zeros in its last `missingBytes`. */
  | { readonly record: "shrunk"; readonly path: string; readonly missingBytes: number }
  | PlaceRecord
  /** The last record: `operation` of unpack-op.ts went wrong, or the reading of `path`. */
  | { readonly record: "failure"; readonly path: string; readonly errno: number; readonly operation: number }
  | { readonly record: "end" };

/** What is at a path. */
export interface PlaceRecord {
  readonly record: "place";
  readonly path: string;
  /** Undefined: nothing. */
  readonly state: FileState | undefined;
  readonly link: string;
  /** Of the mount that it is on. */
  readonly readOnly: boolean;
  /** Whether that mount is the container's root. */
  readonly inRoot: boolean;
}

/** A record, or a piece of the content of the one before. */
export type CopyEvent = CopyRecord | { readonly record: "data"; readonly bytes: Uint8Array };

const HEADER_BYTES = 72;
const READ_ONLY = 1;
const IN_ROOT = 2;

/** S_IFMT and its values (inode(7)). */
const KINDS: ReadonlyMap<number, FileState["kind"]> = new Map([
  [0o010000, "fifo"],
  [0o020000, "character"],
  [0o040000, "directory"],
  [0o060000, "block"],
  [0o100000, "file"],
  [0o120000, "symlink"],
  [0o140000, "socket"],
]);

/** Cuts what comes into records and content. Content is handed on as views of what came. */
export class RecordReader {
  #held = Buffer.alloc(0);
  #contentLeft = 0;

  /** Throws `data_loss` on what is no record: the stream is out of step. */
  *push(chunk: Buffer): Generator<CopyEvent, void, undefined> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#contentLeft > 0) {
        const bytes = rest.subarray(0, this.#contentLeft);
        this.#contentLeft -= bytes.length;
        rest = rest.subarray(bytes.length);
        yield { record: "data", bytes };
        continue;
      }
      // Records are small: what is held of one is copied, content never is.
      const all = this.#held.length > 0 ? Buffer.concat([this.#held, rest]) : rest;
      const length = recordLength(all);
      if (length === undefined || all.length < length) {
        this.#held = Buffer.from(all);
        return;
      }
      const record = decode(all.subarray(0, length));
      rest = all.subarray(length);
      this.#held = Buffer.alloc(0);
      if (record.record === "entry" && record.state.kind === "file") this.#contentLeft = record.state.sizeBytes;
      yield record;
    }
  }
}

function recordLength(bytes: Buffer): number | undefined {
  return bytes.length < HEADER_BYTES ? undefined : HEADER_BYTES + bytes.readUInt16LE(2) + bytes.readUInt16LE(4);
}

function decode(bytes: Buffer): CopyRecord {
  const pathEnd = HEADER_BYTES + bytes.readUInt16LE(2);
  const path = bytes.toString("latin1", HEADER_BYTES, pathEnd);
  const link = bytes.toString("latin1", pathEnd);
  const mode = bytes.readUInt32LE(8);
  switch (bytes[0]) {
    case 1:
      return { record: "entry", path, state: stateOf(bytes), link };
    case 2:
      return { record: "linked", path, state: stateOf(bytes) };
    case 3:
      return { record: "skipped", path };
    case 4:
      return { record: "shrunk", path, missingBytes: Number(bytes.readBigUInt64LE(32)) };
    case 5: {
      const flags = bytes[1] ?? 0;
      const state = mode === 0 ? undefined : stateOf(bytes);
      const [readOnly, inRoot] = [(flags & READ_ONLY) !== 0, (flags & IN_ROOT) !== 0];
      return { record: "place", path, state, link, readOnly, inRoot };
    }
    case 6:
      return { record: "failure", path, errno: mode, operation: Number(bytes.readBigUInt64LE(40)) };
    case 7:
      return { record: "end" };
    default:
      throw new SwarmError("data_loss", `shim: copy record of kind ${bytes[0]}`);
  }
}

function stateOf(bytes: Buffer): FileState {
  const mode = bytes.readUInt32LE(8);
  const kind = KINDS.get(mode & 0o170000);
  if (kind === undefined) throw new SwarmError("data_loss", `shim: copy record of mode ${mode.toString(8)}`);
  return {
    kind,
    mode: mode & 0o7777,
    uid: bytes.readUInt32LE(12),
    gid: bytes.readUInt32LE(16),
    mtimeSeconds: Number(bytes.readBigInt64LE(24)),
    sizeBytes: Number(bytes.readBigUInt64LE(32)),
    identity: `${bytes.readBigUInt64LE(40)}:${bytes.readBigUInt64LE(48)}`,
    links: bytes.readUInt32LE(56),
    deviceMajor: bytes.readUInt32LE(60),
    deviceMinor: bytes.readUInt32LE(64),
  };
}
