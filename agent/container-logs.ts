/**
 * Reads a container's log back: CRI lines (`2026-11-23T13:25:00.123456789Z stdout F text`) in `path`, the older ones in
 * `path.1`, `path.2`, …, as the supervisor writes and rotates them. It only reads.
 */
import { type FileHandle, open, stat } from "node:fs/promises";
import { create, fromJson } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { type LogMessage, LogMessage_Stream, LogMessageSchema } from "../proto/gen/swarm/v1/control_pb.js";
import type { LogOptions } from "../proto/gen/swarm/v1/objects_pb.js";

const BLOCK_BYTES = 64 * 1024;
/** A line with its prefix is under 17 KiB; anything longer is no line of ours and is dropped. */
const LINE_MAX_BYTES = 64 * 1024;
/** How often a follower looks for more: a person does not see the difference to none. */
const FOLLOW_INTERVAL_MS = 100;
/** More rotated files than any setting allows. */
const FILES_MAX = 100;
const NEWLINE = 10;
const SPACE = 32;

/** What reading a log needs. */
export interface ContainerLogOptions {
  readonly clock: Clock;
  /** The newest file. */
  readonly path: string;
  readonly options: LogOptions;
  /** Whether nothing more will be written: then a follower ends too. */
  readonly ended: () => boolean;
}

interface Place {
  readonly handle: FileHandle;
  readonly inode: number;
  offset: number;
}

/** Yields the log's lines, oldest first. A log that does not exist is empty. */
export async function* readContainerLog(
  { clock, path, options, ended }: ContainerLogOptions,
  signal: AbortSignal,
): AsyncGenerator<LogMessage, void, undefined> {
  let place = await begin(path, options);
  let next: Place | undefined;
  let rest: Buffer = Buffer.alloc(0);
  try {
    while (!signal.aborted) {
      const final = ended();
      if (place) {
        const block = await readBlock(place);
        if (block.length > 0) {
          const { messages, left } = splitLines(rest.length > 0 ? Buffer.concat([rest, block]) : block);
          rest = left;
          for (const message of messages) {
            // Lines stand in the order of their times: what follows is later still.
            if (isAfter(message, options.until)) return;
            if (isSince(message, options.since)) yield message;
          }
          continue;
        }
      }
      if (next) {
        await place?.handle.close();
        place = next;
        next = undefined;
        rest = Buffer.alloc(0);
        continue;
      }
      next = await following(path, place);
      // The file is read once more: between its end and its rotation lines may have come.
      if (next) continue;
      if (!options.follow || final) return;
      await clock.sleep(FOLLOW_INTERVAL_MS, signal);
    }
  } finally {
    await place?.handle.close();
    await next?.handle.close();
  }
}

async function readBlock(place: Place): Promise<Buffer> {
  const { bytesRead, buffer } = await place.handle.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, place.offset);
  place.offset += bytesRead;
  return buffer.subarray(0, bytesRead);
}

/** Existing files, newest first. */
async function listFiles(path: string): Promise<readonly { readonly path: string; readonly inode: number }[]> {
  const files: { path: string; inode: number }[] = [];
  for (let number = 0; number < FILES_MAX; number++) {
    const file = number === 0 ? path : `${path}.${number}`;
    const inode = await inodeOf(file);
    if (inode === undefined && number > 0) break;
    if (inode !== undefined) files.push({ path: file, inode });
  }
  return files;
}

async function inodeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).ino;
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap(`read log ${path}`, reason);
  }
}

/** Where reading starts: at the oldest line, or `tail` lines before the end. */
async function begin(path: string, { tail }: LogOptions): Promise<Place | undefined> {
  const files = await listFiles(path);
  if (tail < 0n) {
    const oldest = files.at(-1);
    return oldest && openAt(oldest.path, 0);
  }
  let wanted = Number(tail);
  for (const [index, file] of files.entries()) {
    const place = await openAt(file.path, 0);
    if (!place) continue;
    const found = await seekBack(place, wanted);
    if (found === undefined || index === files.length - 1) return place;
    wanted = found;
    await place.handle.close();
  }
  return undefined;
}

/** Moves to `lines` lines before the end; resolves with how many are missing when the file is shorter. */
async function seekBack(place: Place, lines: number): Promise<number | undefined> {
  let end = (await place.handle.stat()).size;
  place.offset = end;
  if (lines === 0) return undefined;
  let newlines = 0;
  while (end > 0) {
    const start = Math.max(0, end - BLOCK_BYTES);
    const { buffer } = await place.handle.read(Buffer.allocUnsafe(end - start), 0, end - start, start);
    for (let at = buffer.length - 1; at >= 0; at--) {
      if (buffer[at] !== NEWLINE) continue;
      newlines += 1;
      if (newlines <= lines) continue;
      place.offset = start + at + 1;
      return undefined;
    }
    end = start;
  }
  place.offset = 0;
  return newlines === lines ? undefined : lines - newlines;
}

/** The file that follows the one read to its end; undefined while there is none. */
async function following(path: string, place: Place | undefined): Promise<Place | undefined> {
  if (place && (await inodeOf(path)) === place.inode) return undefined;
  const files = await listFiles(path);
  if (!place) return files[0] && openAt(files[0].path, 0);
  const index = files.findIndex(({ inode }) => inode === place.inode);
  // Rotated away while it was read: go on with the oldest that is left.
  const next = index < 0 ? files.at(-1) : files[index - 1];
  return next && openAt(next.path, 0);
}

async function openAt(path: string, offset: number): Promise<Place | undefined> {
  try {
    const handle = await open(path, "r");
    return { handle, inode: (await handle.stat()).ino, offset };
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap(`read log ${path}`, reason);
  }
}

/** Cuts a block into messages; `left` is the beginning of a line that has not been read whole. */
function splitLines(block: Buffer): { readonly messages: readonly LogMessage[]; readonly left: Buffer } {
  const messages: LogMessage[] = [];
  let at = 0;
  while (true) {
    const newline = block.indexOf(NEWLINE, at);
    if (newline < 0) break;
    const message = parseLine(block.subarray(at, newline));
    if (message) messages.push(message);
    at = newline + 1;
  }
  const left = block.subarray(at);
  return { messages, left: left.length > LINE_MAX_BYTES ? Buffer.alloc(0) : left };
}

/** Undefined for what is no line in CRI form: half a line after a full disk, say. */
function parseLine(line: Buffer): LogMessage | undefined {
  const first = line.indexOf(SPACE);
  const second = line.indexOf(SPACE, first + 1);
  const third = line.indexOf(SPACE, second + 1);
  if (first < 0 || second < 0 || third < 0) return undefined;
  const stream = line.toString("latin1", first + 1, second);
  if (stream !== "stdout" && stream !== "stderr") return undefined;
  const timestamp = parseTimestamp(line.toString("latin1", 0, first));
  if (!timestamp) return undefined;
  return create(LogMessageSchema, {
    timestamp,
    stream: stream === "stdout" ? LogMessage_Stream.STDOUT : LogMessage_Stream.STDERR,
    data: new Uint8Array(line.subarray(third + 1)),
    partial: line.toString("latin1", second + 1, third).startsWith("P"),
  });
}

function parseTimestamp(text: string): Timestamp | undefined {
  try {
    return fromJson(TimestampSchema, text);
  } catch {
    return undefined;
  }
}

/** What of a subscription's options holds for one task: a reader that goes on where it was wants all from there. */
export function logOptionsOf(options: LogOptions, taskId: string): LogOptions {
  const since = options.taskSince[taskId];
  return since === undefined ? options : { ...options, since, tail: -1n };
}

function isAfter({ timestamp }: LogMessage, until: Timestamp | undefined): boolean {
  if (!until || !timestamp) return false;
  if (timestamp.seconds !== until.seconds) return timestamp.seconds > until.seconds;
  return timestamp.nanos > until.nanos;
}

function isSince({ timestamp }: LogMessage, since: Timestamp | undefined): boolean {
  if (!since || !timestamp) return true;
  if (timestamp.seconds !== since.seconds) return timestamp.seconds > since.seconds;
  return timestamp.nanos >= since.nanos;
}
