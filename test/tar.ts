/** Writes tar archives for tests and demo images: any entry, sane or hostile, in PAX where ustar cannot say it. */

/** One entry; what is left out has a plain default. Names are byte strings. */
export interface TarItem {
  readonly path: string;
  /** Default `0`, a file; see the ustar type flags. */
  readonly type?: "0" | "1" | "2" | "3" | "4" | "5" | "6" | (string & {});
  readonly content?: string | Uint8Array;
  /** Default 0755 for directories, 0644 else. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeSeconds?: number;
  /** Target of a link. */
  readonly link?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly xattrs?: Readonly<Record<string, Uint8Array>>;
  /** Further PAX records, written as they are. */
  readonly records?: Readonly<Record<string, string>>;
}

/** A directory. */
export function directory(path: string, mode = 0o755): TarItem {
  return { path, type: "5", mode };
}

/** A file. */
export function file(path: string, content: string | Uint8Array, mode = 0o644): TarItem {
  return { path, content, mode };
}

/** A symbolic link. */
export function symlink(target: string, path: string): TarItem {
  return { path, type: "2", link: target, mode: 0o777 };
}

/** A hard link. Its `mode` should be its target's: Docker gives the file the mode of the last name that it unpacks. */
export function hardlink(target: string, path: string, mode = 0o644): TarItem {
  return { path, type: "1", link: target, mode };
}

/** The whole archive, with its two closing blocks. */
export function writeTar(items: readonly TarItem[]): Buffer {
  return Buffer.concat([...items.map(writeItem), Buffer.alloc(1024)]);
}

/** One entry with its extended header, content and padding. */
export function writeItem(item: TarItem): Buffer {
  const content = Buffer.from(item.content ?? "");
  const records: [string, Buffer][] = Object.entries(item.records ?? {}).map(([key, text]) => [
    key,
    Buffer.from(text, "latin1"),
  ]);
  if (item.path.length > 100) records.push(["path", Buffer.from(item.path, "latin1")]);
  if ((item.link ?? "").length > 100) records.push(["linkpath", Buffer.from(item.link ?? "", "latin1")]);
  for (const [name, value] of Object.entries(item.xattrs ?? {}))
    records.push([`SCHILY.xattr.${name}`, Buffer.from(value)]);
  const blocks = [header(item, item.type ?? "0", item.path, content.length), padded(content)];
  if (records.length > 0) {
    const pax = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
    blocks.unshift(header({ path: "PaxHeaders" }, "x", "PaxHeaders", pax.length), padded(pax));
  }
  return Buffer.concat(blocks);
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
export function paxRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Makes a block's checksum true again after it was changed. */
export function sealHeader(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

function header(item: TarItem, type: string, path: string, sizeBytes: number): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number) =>
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  block.write(path.slice(0, 100), 0, "latin1");
  octal(item.mode ?? (type === "5" ? 0o755 : 0o644), 100, 8);
  octal(item.uid ?? 0, 108, 8);
  octal(item.gid ?? 0, 116, 8);
  octal(sizeBytes, 124, 12);
  octal(item.mtimeSeconds ?? 1_700_000_000, 136, 12);
  block.write(type, 156, "latin1");
  block.write((item.link ?? "").slice(0, 100), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  octal(item.device?.[0] ?? 0, 329, 8);
  octal(item.device?.[1] ?? 0, 337, 8);
  return sealHeader(block);
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}
