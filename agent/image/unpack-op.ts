/**
 * The operations of `swarm-shim unpack` and of copying into a container, and their form on the wire: see agent/shim/unpack.c. Paths are byte strings, as in
 * common/model/tar.ts, relative to the layer's root (empty for the root itself).
 */

/** Who owns an entry, what its mode is, and when it changed. */
export interface UnpackMetadata {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

/** One file operation. After `file`, exactly `sizeBytes` of content follow on the wire. */
export type UnpackOp =
  | { readonly op: "directory"; readonly path: string; readonly metadata: UnpackMetadata }
  | { readonly op: "file"; readonly path: string; readonly metadata: UnpackMetadata; readonly sizeBytes: number }
  | { readonly op: "symlink"; readonly path: string; readonly metadata: UnpackMetadata; readonly target: string }
  | { readonly op: "hardlink"; readonly path: string; readonly target: string }
  | { readonly op: "fifo"; readonly path: string; readonly metadata: UnpackMetadata }
  /** On the directory or file made just before. */
  | { readonly op: "xattr"; readonly path: string; readonly name: string; readonly value: Uint8Array }
  | { readonly op: "whiteout"; readonly path: string }
  | { readonly op: "opaque"; readonly path: string }
  | { readonly op: "remove"; readonly path: string }
  | { readonly op: "time"; readonly path: string; readonly metadata: UnpackMetadata }
  | { readonly op: "end" }
  /** In a running container only: says what is at a path, from the container's root. */
  | { readonly op: "look"; readonly path: string }
  /** In a running container only: the directory, from the container's root, that all paths begin at afterwards. */
  | { readonly op: "go-into"; readonly path: string };

const OPS = [
  "enter",
  "directory",
  "file",
  "symlink",
  "hardlink",
  "fifo",
  "xattr",
  "whiteout",
  "opaque",
  "remove",
  "time",
  "end",
  "look",
  "go-into",
] as const satisfies readonly (UnpackOp["op"] | "enter")[];

const HEADER_LENGTH = 40;

/** The name of the operation with number `kind`; 0 is the shim's own entering of the directory. */
export function unpackOpName(kind: number): string {
  return OPS[kind] ?? "unknown operation";
}

/** The bytes of an operation; a file's content is sent after them by the caller. */
export function encodeUnpackOp(operation: UnpackOp): Buffer {
  const path = Buffer.from("path" in operation ? operation.path : "", "latin1");
  const argument = Buffer.from(argumentOf(operation), "latin1");
  const value = operation.op === "xattr" ? operation.value : undefined;
  const bytes = Buffer.alloc(HEADER_LENGTH + path.length + argument.length + (value?.length ?? 0));
  bytes.writeUInt8(OPS.indexOf(operation.op), 0);
  bytes.writeUInt16LE(path.length, 2);
  bytes.writeUInt16LE(argument.length, 4);
  if ("metadata" in operation) {
    const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds } = operation.metadata;
    bytes.writeUInt32LE(mode, 8);
    bytes.writeUInt32LE(uid, 12);
    bytes.writeUInt32LE(gid, 16);
    bytes.writeUInt32LE(mtimeNanoseconds, 20);
    bytes.writeBigInt64LE(BigInt(mtimeSeconds), 24);
  }
  bytes.writeBigUInt64LE(BigInt(operation.op === "file" ? operation.sizeBytes : (value?.length ?? 0)), 32);
  path.copy(bytes, HEADER_LENGTH);
  argument.copy(bytes, HEADER_LENGTH + path.length);
  if (value) bytes.set(value, HEADER_LENGTH + path.length + argument.length);
  return bytes;
}

function argumentOf(operation: UnpackOp): string {
  if (operation.op === "xattr") return operation.name;
  return operation.op === "symlink" || operation.op === "hardlink" ? operation.target : "";
}
