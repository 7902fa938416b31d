/**
 * Decides what becomes of each entry of a layer's tar: pure, entry in, operations out. Whiteouts become overlayfs's, device
 * nodes and overlayfs's own marks are refused, xattrs are sifted, and the texts of /etc/passwd and /etc/group are kept so
 * that nobody needs to look for them inside a container's root.
 */
import { SwarmError } from "../../common/base/error.ts";
import { cleanTarPath, type TarEntry, tarPathText } from "../../common/model/tar.ts";
import type { UnpackMetadata, UnpackOp } from "./unpack-op.ts";

/** A file of users or groups as one layer leaves it: brought, hidden from the layers below, or not spoken of. */
export type CapturedFile =
  | { readonly state: "brought"; readonly text: string }
  | { readonly state: "hidden" }
  | { readonly state: "untouched" };

/** What is known of a layer beside its files. */
export interface LayerFacts {
  readonly passwd: CapturedFile;
  readonly group: CapturedFile;
  /** The layer hides everything below it; overlayfs has no mark for that at a root. */
  readonly isRootOpaque: boolean;
  /** Sum of the sizes of its files. */
  readonly contentBytes: number;
  readonly entries: number;
}

/** Larger ones are refused: they are held in memory (containerd: 10 MiB). */
const CAPTURED_BYTES_MAX = 10 * 1024 * 1024;
const WHITEOUT_PREFIX = ".wh.";
const OPAQUE_NAME = ".wh..wh..opq";
/** Linux's XATTR_NAME_MAX and XATTR_SIZE_MAX. */
const XATTR_NAME_BYTES_MAX = 255;
const XATTR_VALUE_BYTES_MAX = 65_536;

/** What to do with one entry. */
export interface EntryDecision {
  readonly ops: readonly UnpackOp[];
  /** Whether the last `file` operation in `ops` takes the entry's content; else the content is dropped. */
  readonly takesContent: boolean;
  /** Operations for after the content: xattrs, which writing would clear (security.capability). */
  readonly opsAfter: readonly UnpackOp[];
}

/** Drops the entry. */
export const NO_DECISION: EntryDecision = { ops: [], takesContent: false, opsAfter: [] };

/** Follows one layer from its first entry to its last. */
export class LayerTranslator {
  readonly #directoryTimes = new Map<string, UnpackMetadata>();
  readonly #files = { "etc/passwd": new Capture(), "etc/group": new Capture() };
  #capturing: Capture | undefined;
  #isRootOpaque = false;
  #contentBytes = 0;
  #entries = 0;

  /** Decides about the next entry. Throws `invalid_argument` for what no layer may hold. */
  decide(entry: TarEntry): EntryDecision {
    this.#entries += 1;
    this.#capturing = undefined;
    refuseOverlayMarks(entry);
    const path = cleanTarPath(entry.path);
    const name = path.slice(path.lastIndexOf("/") + 1);
    if (name.startsWith(WHITEOUT_PREFIX)) return this.#whiteout(entry, path, name);
    // Only a directory can be the root; Go's extractors skip the rest as well.
    if (path === "" && entry.kind !== "directory") return NO_DECISION;
    this.#watchFiles(entry, path);
    return this.#entry(entry, path);
  }

  /** Called with the content of the entry decided last. */
  content(bytes: Uint8Array): void {
    this.#contentBytes += bytes.length;
    this.#capturing?.add(bytes);
  }

  /** What must come after the last entry: times of directories, which change while they are filled. */
  finish(): readonly UnpackOp[] {
    const times = [...this.#directoryTimes].map(([path, metadata]) => ({ op: "time", path, metadata }) as const);
    return [...times, { op: "end" }];
  }

  /** What the layer turned out to be; meaningful after `finish`. */
  facts(): LayerFacts {
    return {
      passwd: this.#files["etc/passwd"].result(),
      group: this.#files["etc/group"].result(),
      isRootOpaque: this.#isRootOpaque,
      contentBytes: this.#contentBytes,
      entries: this.#entries,
    };
  }

  #entry(entry: TarEntry, path: string): EntryDecision {
    const metadata = metadataOf(entry);
    switch (entry.kind) {
      case "directory":
        this.#directoryTimes.set(path, metadata);
        return decision([{ op: "directory", path, metadata }, ...xattrOps(entry, path)]);
      case "file":
        return {
          ops: [{ op: "file", path, metadata, sizeBytes: entry.sizeBytes }],
          takesContent: true,
          opsAfter: xattrOps(entry, path),
        };
      case "symlink":
        if (entry.link === "" || entry.link.length > 4095)
          throw bad(entry, "symbolic link with no or too long a target");
        return decision([{ op: "symlink", path, metadata, target: entry.link }]);
      case "hardlink":
        return decision([{ op: "hardlink", path, target: cleanTarPath(entry.link) }]);
      case "fifo":
        return decision([{ op: "fifo", path, metadata }]);
      case "character":
      case "block":
        // Under /dev they would be hidden by the container's own /dev; base systems are often packed with them.
        if (path.startsWith("dev/") && (entry.deviceMajor !== 0 || entry.deviceMinor !== 0)) return NO_DECISION;
        throw bad(entry, "device nodes are not allowed in a layer");
      default:
        throw bad(entry, `type ${JSON.stringify(entry.kind.other)} is not supported`);
    }
  }

  /** `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all of its directory; AUFS's other marks mean nothing. */
  #whiteout(entry: TarEntry, path: string, name: string): EntryDecision {
    const parent = path.slice(0, Math.max(0, path.length - name.length - 1));
    if (name === OPAQUE_NAME) {
      this.#isRootOpaque ||= parent === "";
      this.#hide(parent);
      return parent === "" ? NO_DECISION : decision([{ op: "opaque", path: parent }]);
    }
    const hidden = name.slice(WHITEOUT_PREFIX.length);
    if (hidden.startsWith(WHITEOUT_PREFIX)) return NO_DECISION;
    if (hidden === "" || hidden === "." || hidden === "..")
      throw bad(entry, "whiteout of nothing or of a directory itself");
    const target = parent === "" ? hidden : `${parent}/${hidden}`;
    this.#hide(target);
    return decision([{ op: "whiteout", path: target }]);
  }

  #hide(path: string): void {
    for (const [file, capture] of Object.entries(this.#files)) {
      if (path === "" || path === file || file.startsWith(`${path}/`)) capture.hide();
    }
  }

  /** Keeps watch over passwd and group: brought as files, or hidden by whatever else takes their place or /etc's. */
  #watchFiles(entry: TarEntry, path: string): void {
    for (const [file, capture] of Object.entries(this.#files)) {
      if (path === file && entry.kind === "file") {
        if (entry.sizeBytes > CAPTURED_BYTES_MAX) throw bad(entry, `larger than ${CAPTURED_BYTES_MAX} bytes`);
        capture.begin();
        this.#capturing = capture;
      } else if (path === file || (path === "etc" && entry.kind !== "directory")) {
        capture.replace();
      }
    }
  }
}

/** One watched file. What the layer itself brings wins over its own whiteouts, in whatever order they come. */
class Capture {
  #pieces: Uint8Array[] | undefined;
  #isHidden = false;

  begin(): void {
    this.#pieces = [];
  }

  add(bytes: Uint8Array): void {
    this.#pieces?.push(bytes);
  }

  hide(): void {
    this.#isHidden = true;
  }

  replace(): void {
    this.#pieces = undefined;
    this.#isHidden = true;
  }

  result(): CapturedFile {
    if (this.#pieces) return { state: "brought", text: Buffer.concat(this.#pieces).toString("utf8") };
    return this.#isHidden ? { state: "hidden" } : { state: "untouched" };
  }
}

/** A layer that brings overlayfs's own marks could name paths of other layers or of none. */
function refuseOverlayMarks(entry: TarEntry): void {
  for (const name of entry.xattrs.keys()) {
    if (/^(?:trusted|user)\.overlay\./.test(name))
      throw bad(entry, `xattr ${JSON.stringify(name)} is not allowed in a layer`);
  }
}

/** `user.*` is kept, and `security.capability` if it is one; labels of the host's own (security.*, system.*, trusted.*) are not. */
function xattrOps(entry: TarEntry, path: string): readonly UnpackOp[] {
  const ops: UnpackOp[] = [];
  for (const [name, value] of entry.xattrs) {
    if (name.length > XATTR_NAME_BYTES_MAX || value.length > XATTR_VALUE_BYTES_MAX)
      throw bad(entry, "xattr is too long");
    if (name.startsWith("user.") || (name === "security.capability" && isCapability(value))) {
      ops.push({ op: "xattr", path, name, value });
    }
  }
  return ops;
}

/** `struct vfs_cap_data` of version 2 (20 bytes) or 3 (24, with the root id of its namespace); capabilities(7). */
function isCapability(value: Uint8Array): boolean {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (value.length === 20) return (view.getUint32(0, true) & 0xff00_0000) >>> 0 === 0x0200_0000;
  return value.length === 24 && (view.getUint32(0, true) & 0xff00_0000) >>> 0 === 0x0300_0000;
}

function metadataOf(entry: TarEntry): UnpackMetadata {
  const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds } = entry;
  return { mode, uid, gid, mtimeSeconds, mtimeNanoseconds };
}

function decision(ops: readonly UnpackOp[]): EntryDecision {
  return { ops, takesContent: false, opsAfter: [] };
}

function bad(entry: TarEntry, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `layer entry ${tarPathText(entry.path)}: ${problem}`);
}
