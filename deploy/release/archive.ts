/**
 * Writes trees as tar (POSIX ustar), gzip and ar (as dpkg reads it), so that the same tree gives the same bytes: entries in order,
 * root's, one time for all, and the compressor that comes with the project's own Node.
 */
import { promisify } from "node:util";
import { constants, gzip } from "node:zlib";
import { foldersOf, sorted, type Tree, type TreeEntry } from "./tree.ts";

const BLOCK = 512;
/** tar pads to records of 20 blocks. */
const RECORD = 20 * BLOCK;
const NAME_BYTES_MAX = 100;
const PREFIX_BYTES_MAX = 155;

/** A file from here on is compressed for itself, once for all archives that hold it: Node is in four of them. */
const LARGE_BYTES = 16 * 1024 * 1024;

/** The tree as a tar archive, in pieces that follow one another. `prefix` is put before each path: "./" for dpkg. */
export function writeTar(
  tree: Tree,
  options: { readonly prefix: string; readonly mtimeSeconds: number },
): readonly Uint8Array[] {
  const { prefix, mtimeSeconds } = options;
  const folders = prefix === "./" ? ["", ...foldersOf(tree)] : foldersOf(tree);
  const headers = folders.map((path) => header(`${prefix}${path}${path === "" ? "" : "/"}`, undefined, mtimeSeconds));
  const entries = sorted(tree).flatMap(([path, entry]) => {
    const head = header(`${prefix}${path}`, entry, mtimeSeconds);
    return entry.type === "file" ? [head, entry.content, padding(entry.content.length, BLOCK)] : [head];
  });
  const pieces = [...headers, ...entries, Buffer.alloc(2 * BLOCK)];
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return [...pieces, padding(length, RECORD)];
}

const compressedLarge = new WeakMap<Uint8Array, Promise<Buffer>>();

/** The pieces as gzip, without name and time (`gzip -n`). A gzip file may have several members (RFC 1952, 2.2): large pieces have their own. */
export async function compress(pieces: readonly Uint8Array[]): Promise<Buffer> {
  const members: Promise<Buffer>[] = [];
  let small: Uint8Array[] = [];
  const endSmall = () => {
    if (small.length > 0) members.push(compressMember(Buffer.concat(small)));
    small = [];
  };
  for (const piece of pieces) {
    if (piece.length < LARGE_BYTES) {
      small.push(piece);
      continue;
    }
    endSmall();
    const member = compressedLarge.get(piece) ?? compressMember(piece);
    compressedLarge.set(piece, member);
    members.push(member);
  }
  endSmall();
  return Buffer.concat(await Promise.all(members));
}

async function compressMember(bytes: Uint8Array): Promise<Buffer> {
  const compressed = await promisify(gzip)(bytes, { level: constants.Z_DEFAULT_COMPRESSION });
  // RFC 1952: byte 9 is the system that compressed; 3 is Unix, whatever zlib was built for.
  compressed[9] = 3;
  return compressed;
}

/** An ar archive with the members in the given order (deb(5)). */
export function writeAr(
  members: readonly (readonly [name: string, content: Uint8Array])[],
  mtimeSeconds: number,
): Buffer {
  const parts = members.flatMap(([name, content]) => {
    const fields = [name.padEnd(16), String(mtimeSeconds).padEnd(12), "0     0     100644  "];
    const head = `${fields.join("")}${String(content.length).padEnd(10)}\`\n`;
    return [Buffer.from(head), content, Buffer.from(content.length % 2 === 0 ? "" : "\n")];
  });
  return Buffer.concat([Buffer.from("!<arch>\n"), ...parts]);
}

/** A ustar header; without an entry, a folder's. */
function header(path: string, entry: TreeEntry | undefined, mtimeSeconds: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const { name, prefix } = splitPath(path);
  const [type, mode] = entry === undefined ? ["5", 0o755] : entry.type === "link" ? ["2", 0o777] : ["0", entry.mode];
  const octal = (value: number, at: number, length: number) =>
    block.write(value.toString(8).padStart(length - 1, "0"), at, "latin1");
  block.write(name, 0, "utf8");
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(entry?.type === "file" ? entry.content.length : 0, 124, 12);
  octal(mtimeSeconds, 136, 12);
  block.write(type, 156, "latin1");
  if (entry?.type === "link") block.write(entry.target, 157, NAME_BYTES_MAX, "utf8");
  block.write("ustar\u000000", 257, "latin1");
  block.write("root", 265, "latin1");
  block.write("root", 297, "latin1");
  block.write(prefix, 345, "utf8");
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Long paths are cut at a slash. */
function splitPath(path: string): { readonly name: string; readonly prefix: string } {
  if (Buffer.byteLength(path) <= NAME_BYTES_MAX) return { name: path, prefix: "" };
  for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
    const [prefix, name] = [path.slice(0, slash), path.slice(slash + 1)];
    if (Buffer.byteLength(name) <= NAME_BYTES_MAX && Buffer.byteLength(prefix) <= PREFIX_BYTES_MAX)
      return { name, prefix };
  }
  throw new Error(`${path}: too long for a tar header`);
}

function padding(length: number, unit: number): Buffer {
  return Buffer.alloc((unit - (length % unit)) % unit);
}
