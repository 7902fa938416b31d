/**
 * Writes tar streams: ustar, and PAX records where ustar cannot say it (long names, large files and ids). Times are whole
 * seconds, as Docker's are. Pure: an entry in, its header's bytes out. Names are byte strings, as in `tar.ts`.
 */
import type { TarEntry, TarKind } from "./tar.ts";

/** What an archive is told of a member. */
export interface TarMember
  extends Pick<TarEntry, "path" | "link" | "mode" | "uid" | "gid" | "mtimeSeconds" | "sizeBytes"> {
  readonly kind: Extract<TarKind, string>;
  readonly deviceMajor?: number;
  readonly deviceMinor?: number;
}

const BLOCK = 512;
const NAME_BYTES_MAX = 100;
/** What 11 octal digits hold: 8 GiB less one. */
const SIZE_MAX = 0o77777777777;
const ID_MAX = 0o7777777;

const TYPES: Readonly<Record<TarMember["kind"], string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

/** The two blocks of zeros that end an archive. */
export const TAR_END: Uint8Array = new Uint8Array(2 * BLOCK);

/** The header of a member; a file's content follows, and its padding. A directory's path gets its slash here. */
export function tarHeader(member: TarMember): Buffer {
  const path = member.kind === "directory" && !member.path.endsWith("/") ? `${member.path}/` : member.path;
  const { link, uid, gid, sizeBytes, mtimeSeconds } = member;
  const records: [string, string][] = [];
  if (path.length > NAME_BYTES_MAX) records.push(["path", path]);
  if (link.length > NAME_BYTES_MAX) records.push(["linkpath", link]);
  if (sizeBytes > SIZE_MAX) records.push(["size", String(sizeBytes)]);
  if (uid > ID_MAX) records.push(["uid", String(uid)]);
  if (gid > ID_MAX) records.push(["gid", String(gid)]);
  if (mtimeSeconds < 0 || mtimeSeconds > SIZE_MAX) records.push(["mtime", String(mtimeSeconds)]);
  const header = ustar({ ...member, path }, TYPES[member.kind]);
  if (records.length === 0) return header;
  const pax = Buffer.from(records.map(([key, value]) => paxRecord(key, value)).join(""), "latin1");
  const extended = {
    kind: "file",
    path: "PaxHeaders",
    link: "",
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
  } as const;
  return Buffer.concat([ustar({ ...extended, sizeBytes: pax.length }, "x"), pax, tarPadding(pax.length), header]);
}

/** The zeros that fill a content's last block. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return TAR_END.subarray(0, (BLOCK - (sizeBytes % BLOCK)) % BLOCK);
}

function ustar(member: TarMember, type: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number, max: number) => {
    const shown = Math.min(Math.max(value, 0), max);
    block.write(shown.toString(8).padStart(length - 1, "0"), at, "latin1");
  };
  block.write(member.path.slice(0, NAME_BYTES_MAX), 0, "latin1");
  octal(member.mode & 0o7777, 100, 8, ID_MAX);
  octal(member.uid, 108, 8, ID_MAX);
  octal(member.gid, 116, 8, ID_MAX);
  octal(member.sizeBytes, 124, 12, SIZE_MAX);
  octal(member.mtimeSeconds, 136, 12, SIZE_MAX);
  block.write(type, 156, "latin1");
  block.write(member.link.slice(0, NAME_BYTES_MAX), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  octal(member.deviceMajor ?? 0, 329, 8, ID_MAX);
  octal(member.deviceMinor ?? 0, 337, 8, ID_MAX);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}
