/**
 * Reads tar streams: ustar, PAX, GNU long names and base-256 numbers, with limits that stop a hostile archive early.
 * Pure: bytes go in, entries and their content come out; what to do with them is for the caller (the agent unpacks
 * layers, swarmctl reads image archives). Behaviour follows Go's archive/tar, which wrote most of the images there are.
 *
 * Names are *byte strings*: one character (0-255) for each byte, since a name in a tar is bytes and need not be UTF-8.
 */
import { SwarmError } from "../base/error.ts";

/** What an entry is. `other` is any type that has no meaning in an image. */
export type TarKind =
  | "file"
  | "hardlink"
  | "symlink"
  | "character"
  | "block"
  | "directory"
  | "fifo"
  | { readonly other: string };

/** One member of an archive. */
export interface TarEntry {
  readonly kind: TarKind;
  /** As it stands in the archive, a byte string; see `cleanTarPath`. */
  readonly path: string;
  /** Target of a link, as it stands in the archive, a byte string; else empty. */
  readonly link: string;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Clamped to what file systems can hold: 1970 to 2514. */
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** Length in bytes of the content that follows; 0 for everything but files. */
  readonly sizeBytes: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Extended attributes by name (PAX records SCHILY.xattr.*). */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** What the parser yields: an entry, then its content in pieces (none for an empty one). */
export type TarEvent =
  | { readonly event: "entry"; readonly entry: TarEntry }
  | { readonly event: "data"; readonly bytes: Uint8Array };

/** More entries than any real layer has; each costs system calls. */
const ENTRIES_MAX = 1_000_000;
/** Go had no limit here and could be made to hold gigabytes (CVE-2025-58183). */
const EXTENDED_HEADER_BYTES_MAX = 1024 * 1024;
/** Linux's PATH_MAX less its NUL, and NAME_MAX. */
const PATH_BYTES_MAX = 4095;
const COMPONENT_BYTES_MAX = 255;
const DEPTH_MAX = 256;
/** ext4 ends in 2446, xfs with bigtime in 2486; both clamp themselves below this. */
const MTIME_SECONDS_MAX = 2 ** 34 - 1;
/** 2^32-1 means "leave it" to chown(2). */
const OWNER_MAX = 2 ** 32 - 2;

const BLOCK = 512;
const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();
const XATTR_PREFIX = "SCHILY.xattr.";
const KINDS: Readonly<Record<string, TarKind>> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** What the parser expects next. */
type State =
  | { readonly expects: "header" }
  | { readonly expects: "content" }
  | { readonly expects: "extension"; readonly type: "x" | "g" | "L" | "K" }
  | { readonly expects: "padding" }
  | { readonly expects: "nothing" };

/** Headers that came before the one they describe. */
interface Extension {
  records?: ReadonlyMap<string, Buffer>;
  path?: string;
  link?: string;
}

/**
 * Parses one archive. Feed it with `push` as bytes come, then call `finish`. Both throw `invalid_argument` for an archive
 * that is malformed, truncated or beyond a limit; the message names the entry.
 */
export class TarParser {
  #state: State = { expects: "header" };
  #extension: Extension = {};
  readonly #held = Buffer.alloc(BLOCK);
  #heldBytes = 0;
  #collected: Uint8Array[] = [];
  #remaining = 0;
  #padding = 0;
  #entries = 0;
  #zeroBlocks = 0;
  #lastPath = "";

  /** How many entries have been read. */
  get entries(): number {
    return this.#entries;
  }

  /** Yields what `chunk` completes. Content is handed on as views of `chunk`, never copied. */
  *push(chunk: Uint8Array): Generator<TarEvent, void, undefined> {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state.expects) {
        case "header": {
          const taken = this.#hold(chunk, at);
          at += taken;
          if (this.#heldBytes < BLOCK) break;
          this.#heldBytes = 0;
          const entry = this.#readHeader(this.#held);
          if (entry) yield { event: "entry", entry };
          break;
        }
        case "content":
        case "extension": {
          const bytes = chunk.subarray(at, at + this.#remaining);
          at += bytes.length;
          this.#remaining -= bytes.length;
          if (this.#state.expects === "content") yield { event: "data", bytes };
          else this.#collected.push(bytes);
          if (this.#remaining > 0) break;
          if (this.#state.expects === "extension") this.#readExtension(this.#state.type);
          this.#remaining = this.#padding;
          this.#state = { expects: this.#padding > 0 ? "padding" : "header" };
          break;
        }
        case "padding": {
          const skipped = Math.min(this.#remaining, chunk.length - at);
          at += skipped;
          this.#remaining -= skipped;
          if (this.#remaining === 0) this.#state = { expects: "header" };
          break;
        }
        case "nothing":
          return;
      }
    }
  }

  /** Called at the end of input: throws if the archive ends in the middle of an entry. */
  finish(): void {
    const between = this.#state.expects === "header" && this.#heldBytes === 0;
    const described =
      this.#extension.records || this.#extension.path !== undefined || this.#extension.link !== undefined;
    if (this.#state.expects !== "nothing" && (!between || described)) throw this.#bad("archive is cut short");
  }

  #bad(problem: string): SwarmError {
    const after = this.#lastPath === "" ? "" : ` at or after ${tarPathText(this.#lastPath)}`;
    return new SwarmError("invalid_argument", `tar entry ${this.#entries + 1}${after}: ${problem}`);
  }

  #hold(chunk: Uint8Array, at: number): number {
    const part = chunk.subarray(at, at + BLOCK - this.#heldBytes);
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes += part.length;
    return part.length;
  }

  #readHeader(block: Buffer): TarEntry | undefined {
    if (block.every((byte) => byte === 0)) {
      // Two zero blocks end an archive; what follows is padding to a tape's record.
      if (++this.#zeroBlocks === 2) this.#state = { expects: "nothing" };
      return undefined;
    }
    if (this.#zeroBlocks > 0) throw this.#bad("a header follows a zero block");
    this.#verifyChecksum(block);
    const type = block.toString("latin1", 156, 157);
    if (type === "x" || type === "g" || type === "L" || type === "K") {
      this.#expectExtension(type, this.#number(block, 124, 12, "size"));
      return undefined;
    }
    const entry = this.#entry(block, type);
    this.#extension = {};
    this.#entries += 1;
    this.#lastPath = entry.path;
    if (this.#entries > ENTRIES_MAX) throw this.#bad(`more than ${ENTRIES_MAX} entries`);
    if (entry.sizeBytes > 0) {
      this.#remaining = entry.sizeBytes;
      this.#padding = paddingOf(entry.sizeBytes);
      this.#state = { expects: "content" };
    }
    return entry;
  }

  #expectExtension(type: "x" | "g" | "L" | "K", sizeBytes: number): void {
    if (sizeBytes > EXTENDED_HEADER_BYTES_MAX) {
      throw this.#bad(`extended header of ${sizeBytes} bytes is over ${EXTENDED_HEADER_BYTES_MAX}`);
    }
    if (sizeBytes === 0) return;
    this.#remaining = sizeBytes;
    this.#padding = paddingOf(sizeBytes);
    this.#state = { expects: "extension", type };
  }

  #readExtension(type: "x" | "g" | "L" | "K"): void {
    const bytes = Buffer.concat(this.#collected);
    this.#collected = [];
    switch (type) {
      case "x":
        if (this.#extension.records) throw this.#bad("two extended headers for one entry");
        this.#extension.records = this.#records(bytes);
        return;
      case "g":
        this.#records(bytes); // Checked, but applied to nothing: Go ignores global headers too.
        return;
      case "L":
        this.#extension.path = untilNul(bytes);
        return;
      case "K":
        this.#extension.link = untilNul(bytes);
        return;
    }
  }

  /** PAX records, each `LENGTH KEY=VALUE\n` (POSIX pax, "Extended Header"). */
  #records(bytes: Buffer): ReadonlyMap<string, Buffer> {
    const records = new Map<string, Buffer>();
    for (let at = 0; at < bytes.length; ) {
      const space = bytes.indexOf(0x20, at);
      const digits = space < 0 ? "" : bytes.toString("latin1", at, Math.min(space, at + 8));
      const end = at + Number(digits);
      if (!/^[1-9][0-9]{0,6}$/.test(digits) || end > bytes.length || bytes[end - 1] !== 0x0a) {
        throw this.#bad("malformed extended header");
      }
      const equals = bytes.indexOf(0x3d, space);
      if (equals < 0 || equals >= end || equals === space + 1) throw this.#bad("extended header record without a key");
      const key = bytes.toString("latin1", space + 1, equals);
      if (key.includes("\0") || records.has(key))
        throw this.#bad(`bad or repeated extended header ${JSON.stringify(key)}`);
      if (key.startsWith("GNU.sparse.")) throw this.#bad("sparse files are not supported");
      records.set(key, bytes.subarray(equals + 1, end - 1));
      at = end;
    }
    return records;
  }

  #entry(block: Buffer, type: string): TarEntry {
    const { records } = this.#extension;
    const text = (key: string) => records?.get(key)?.toString("latin1");
    const path = text("path") ?? this.#extension.path ?? headerPath(block);
    const link = text("linkpath") ?? this.#extension.link ?? untilNul(block.subarray(157, 257));
    if (path.includes("\0") || link.includes("\0")) throw this.#bad("a name holds a NUL byte");
    if (type === "S") throw this.#bad("sparse files are not supported");
    // Before POSIX a directory was a file whose name ends in a slash.
    const known = KINDS[type] ?? { other: type };
    const kind = known === "file" && path.endsWith("/") ? "directory" : known;
    const sizeBytes = this.#decimal(text("size"), "size") ?? this.#number(block, 124, 12, "size");
    const [mtimeSeconds, mtimeNanoseconds] = this.#mtime(block, text("mtime"));
    const isDevice = kind === "character" || kind === "block";
    return {
      kind,
      path,
      link,
      mode: this.#number(block, 100, 8, "mode") & 0o7777,
      uid: this.#owner(this.#decimal(text("uid"), "uid") ?? this.#number(block, 108, 8, "uid")),
      gid: this.#owner(this.#decimal(text("gid"), "gid") ?? this.#number(block, 116, 8, "gid")),
      mtimeSeconds,
      mtimeNanoseconds,
      sizeBytes: kind === "file" || typeof kind === "object" ? sizeBytes : 0,
      deviceMajor: isDevice ? this.#number(block, 329, 8, "device") : 0,
      deviceMinor: isDevice ? this.#number(block, 337, 8, "device") : 0,
      xattrs: xattrsOf(records),
    };
  }

  #owner(id: number): number {
    if (id > OWNER_MAX) throw this.#bad(`owner ${id} is not a user or group id`);
    return id;
  }

  #mtime(block: Buffer, record: string | undefined): readonly [seconds: number, nanoseconds: number] {
    if (record === undefined) return clampTime(this.#number(block, 136, 12, "mtime", { signed: true }), 0);
    const parts = /^(-?[0-9]{1,20})(?:\.([0-9]{0,40}))?$/.exec(record);
    if (!parts) throw this.#bad("malformed mtime");
    return clampTime(Number(parts[1]), Number((parts[2] ?? "").slice(0, 9).padEnd(9, "0")));
  }

  #decimal(record: string | undefined, what: string): number | undefined {
    if (record === undefined) return undefined;
    const value = Number(record);
    if (!/^[0-9]{1,16}$/.test(record) || !Number.isSafeInteger(value)) throw this.#bad(`malformed ${what}`);
    return value;
  }

  /** A number of a header: octal text, or base-256 when the first bit is set (GNU). */
  #number(block: Buffer, at: number, length: number, what: string, options?: { readonly signed: boolean }): number {
    const first = block[at] ?? 0;
    if ((first & 0x80) === 0) {
      const octal = block.toString("latin1", at, at + length).replace(/^[ \0]+|[ \0].*$/gs, "");
      if (!/^[0-7]*$/.test(octal)) throw this.#bad(`malformed ${what}`);
      return octal === "" ? 0 : Number.parseInt(octal, 8);
    }
    const isNegative = (first & 0x40) !== 0;
    let value = BigInt(isNegative ? (first & 0x7f) - 0x80 : first & 0x7f);
    for (const byte of block.subarray(at + 1, at + length)) value = value * 256n + BigInt(byte);
    if (value < 0n && options?.signed !== true) throw this.#bad(`negative ${what}`);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.#bad(`${what} is too large`);
    return value < BigInt(Number.MIN_SAFE_INTEGER) ? Number.MIN_SAFE_INTEGER : Number(value);
  }

  /** The sum of all bytes, the checksum's own taken as spaces; some old programs summed signed bytes. */
  #verifyChecksum(block: Buffer): void {
    let unsigned = 0;
    let signed = 0;
    for (let index = 0; index < BLOCK; index++) {
      const byte = index >= 148 && index < 156 ? 0x20 : (block[index] ?? 0);
      unsigned += byte;
      signed += byte < 128 ? byte : byte - 256;
    }
    const octal = /^[ \0]*([0-7]+)[ \0]*$/.exec(block.toString("latin1", 148, 156))?.[1] ?? "";
    const stated = Number.parseInt(octal, 8);
    if (stated !== unsigned && stated !== signed)
      throw this.#bad("header checksum is wrong: not a tar archive, or damaged");
  }
}

/**
 * The path from the root, without `.`, `..` (which stop at the root, as Go's filepath.Clean does after a `/`) or empty
 * parts; empty for the root itself. Throws `invalid_argument` beyond Linux's limits or 256 levels. It says where an entry
 * is to go, not that going there is safe: symbolic links are the business of whoever resolves it.
 */
export function cleanTarPath(path: string): string {
  const kept: string[] = [];
  for (const component of path.split("/")) {
    if (component === "..") kept.pop();
    else if (component !== "" && component !== ".") kept.push(component);
  }
  const cleaned = kept.join("/");
  if (
    path.length > PATH_BYTES_MAX ||
    kept.length > DEPTH_MAX ||
    kept.some((component) => component.length > COMPONENT_BYTES_MAX)
  ) {
    throw new SwarmError("invalid_argument", `tar entry ${tarPathText(path)}: the path is too long or too deep`);
  }
  return cleaned;
}

/** A byte string as text for messages: read as UTF-8, quoted, control characters escaped, cut at 200 characters. */
export function tarPathText(path: string): string {
  const text = Buffer.from(path, "latin1").toString("utf8");
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

function headerPath(block: Buffer): string {
  const name = untilNul(block.subarray(0, 100));
  // Only POSIX ustar has a prefix; GNU keeps times in its place.
  if (block.toString("latin1", 257, 263) !== "ustar\0") return name;
  const prefix = untilNul(block.subarray(345, 500));
  return prefix === "" ? name : `${prefix}/${name}`;
}

function xattrsOf(records: ReadonlyMap<string, Buffer> | undefined): ReadonlyMap<string, Uint8Array> {
  if (!records) return NO_XATTRS;
  const xattrs = [...records]
    .filter(([key]) => key.startsWith(XATTR_PREFIX))
    .map(([key, value]) => [key.slice(XATTR_PREFIX.length), value] as const);
  return xattrs.length === 0 ? NO_XATTRS : new Map(xattrs);
}

function clampTime(seconds: number, nanoseconds: number): readonly [number, number] {
  if (seconds < 0) return [0, 0];
  return seconds > MTIME_SECONDS_MAX ? [MTIME_SECONDS_MAX, 0] : [seconds, nanoseconds];
}

function paddingOf(sizeBytes: number): number {
  return (BLOCK - (sizeBytes % BLOCK)) % BLOCK;
}

function untilNul(bytes: Buffer): string {
  const nul = bytes.indexOf(0);
  return bytes.toString("latin1", 0, nul < 0 ? bytes.length : nul);
}
