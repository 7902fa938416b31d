/** Out of a container: what the shim reads there, as a tar in pieces. */
import { posix } from "node:path";
import { inChunks } from "../../common/rpc/chunks.ts";
import type { CopyFrom } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ContainerPath, CopyOutOp } from "../runtime/op.ts";
import type { OutputPart } from "../runtime/session-process.ts";
import { Archive, MORE_WARNINGS } from "./archive.ts";
import type { CopyFailure } from "./failure.ts";
import { type CopyEvent, type FileState, RecordReader } from "./records.ts";

/** Bytes of the tar in one message. */
export const COPY_CHUNK_BYTES = 64 * 1024;

/** A part of what comes out. The first is `state`. */
export type CopiedOut =
  | { readonly kind: "state"; readonly state: FileState }
  | { readonly kind: "data"; readonly bytes: Uint8Array }
  | { readonly kind: "warning"; readonly text: string };

/** The shim's operation for a request. Pure. */
export function copyOutOp({ path, followLink }: Pick<CopyFrom, "path" | "followLink">): CopyOutOp {
  return { op: "copy-out", path: fromRoot(path) as ContainerPath, name: archiveName(path), follow: followLink };
}

/** A path in a container: it begins at the root, written so or not. A slash at its end stays: it says "a directory". */
export function fromRoot(path: string): string {
  return `/${path.replace(/^\/+/, "")}`;
}

/** What the archive calls what is at `path`: its last part, or `.` for the root and for what ends in `/.`: its content. */
export function archiveName(path: string): string {
  const whole = fromRoot(path);
  if (/\/\.$/.test(whole)) return ".";
  const name = posix.basename(posix.normalize(whole));
  return name === "" || name === ".." ? "." : name;
}

/**
 * Reads an operation's output to its end, at the pace of who reads this.
 * @throws not_found: nothing is there. unavailable: the container ended meanwhile.
 */
export async function* copyOut(
  op: CopyOutOp,
  output: AsyncIterable<OutputPart>,
): AsyncGenerator<CopiedOut, void, undefined> {
  const archive = new Archive(failureOf(op));
  const events = recordsOf(output)[Symbol.asyncIterator]();
  const { value: first } = await events.next();
  if (first?.record === "entry") yield { kind: "state", state: first.state };
  async function* bytes() {
    if (first) yield* archive.take(first);
    for await (const event of { [Symbol.asyncIterator]: () => events }) yield* archive.take(event);
  }
  for await (const chunk of inChunks(bytes(), COPY_CHUNK_BYTES)) {
    yield { kind: "data", bytes: chunk };
    for (const text of archive.warnings.take()) yield { kind: "warning", text };
  }
  for (const text of archive.warnings.takeAll(MORE_WARNINGS)) yield { kind: "warning", text };
  archive.finish();
}

/** Everything that a copying operation says. */
export async function* recordsOf(output: AsyncIterable<OutputPart>): AsyncGenerator<CopyEvent, void, undefined> {
  const reader = new RecordReader();
  for await (const { stream, data } of output) if (stream === "stdout") yield* reader.push(data);
}

/** Names of the archive as paths of the container: the archive's first name is the path that was asked for. */
function failureOf({ path, name }: CopyOutOp): CopyFailure {
  const asked = path.replace(/(?<=.)\/\.?$/, "");
  return {
    shown(inArchive) {
      const below = Buffer.from(inArchive.slice(Buffer.byteLength(name)), "latin1").toString("utf8");
      return `${asked === "/" ? "" : asked}${below}` || "/";
    },
  };
}
