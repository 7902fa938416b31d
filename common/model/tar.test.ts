// Goal: honest archives are read to the last byte however they are cut into pieces; broken and hostile ones end in an
// `invalid_argument`, never in another error or without end.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { directory, file, hardlink, sealHeader, symlink, type TarItem, writeItem, writeTar } from "../../test/tar.ts";
import { SwarmError } from "../base/error.ts";
import { cleanTarPath, type TarEntry, TarParser } from "./tar.ts";

interface Read {
  readonly entry: TarEntry;
  readonly content: Buffer;
}

/** Reads an archive that comes in pieces of the given sizes, over and over. */
function read(bytes: Uint8Array, pieces: readonly number[] = [bytes.length]): readonly Read[] {
  const parser = new TarParser();
  const found: { entry: TarEntry; parts: Uint8Array[] }[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = Math.max(1, pieces[turn % pieces.length] ?? 1);
    for (const event of parser.push(bytes.subarray(at, at + length))) {
      if (event.event === "entry") found.push({ entry: event.entry, parts: [] });
      else found.at(-1)?.parts.push(event.bytes);
    }
    at += length;
  }
  parser.finish();
  return found.map(({ entry, parts }) => ({ entry, content: Buffer.concat(parts) }));
}

/** One file whose header a test changes before it is sealed. */
function altered(change: (block: Buffer) => void): Buffer {
  const bytes = writeTar([file("a", "content")]);
  change(bytes);
  sealHeader(bytes.subarray(0, 512));
  return bytes;
}

const name = fc.stringMatching(/^[a-zA-Z0-9._\u00e9 -]{1,40}$/);
const path = fc.array(name, { minLength: 1, maxLength: 8 }).map((parts) => parts.join("/"));
const item: fc.Arbitrary<TarItem> = fc.oneof(
  fc.tuple(path, fc.uint8Array({ maxLength: 3000 })).map(([where, content]) => file(where, content)),
  path.map((where) => directory(where)),
  fc.tuple(path, path).map(([target, where]) => symlink(target, where)),
  fc.tuple(path, path).map(([target, where]) => hardlink(target, where)),
);

describe("honest archives", () => {
  test("are read back whole, however they are cut", () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(item, { maxLength: 8 }), pieces, (items, sizes) => {
        const found = read(writeTar(items), sizes);
        expect(found.map(({ entry }) => [entry.path, entry.link])).toEqual(
          items.map((one) => [one.path, one.link ?? ""]),
        );
        expect(found.map(({ content }) => content)).toEqual(items.map((one) => Buffer.from(one.content ?? "")));
      }),
    );
  });

  test("may end without their closing blocks, and have anything after them", () => {
    expect(read(writeItem(file("a", "b")))).toHaveLength(1);
    expect(read(Buffer.concat([writeTar([file("a", "b")]), Buffer.from("anything")]))).toHaveLength(1);
    expect(read(Buffer.alloc(0))).toEqual([]);
  });

  test("say more in extended headers, base-256 and old directories", () => {
    const records = { mtime: "1.5", uid: "70000", size: "7" };
    const [pax] = read(writeTar([{ ...file("a", "content"), records, xattrs: { "user.x": Buffer.from("v") } }]));
    expect(pax?.entry).toMatchObject({ mtimeSeconds: 1, mtimeNanoseconds: 500_000_000, uid: 70_000, sizeBytes: 7 });
    expect(pax?.entry.xattrs).toEqual(new Map([["user.x", Buffer.from("v")]]));
    const big = altered((block) => {
      block.fill(0, 108, 116).writeUInt32BE(3_000_000_000, 112);
      block[108] = 0x80;
    });
    expect(read(big)[0]?.entry.uid).toBe(3_000_000_000);
    expect(read(writeTar([{ path: "old/", mode: 0o700 }]))[0]?.entry.kind).toBe("directory");
    const past = read(writeTar([{ ...file("a", ""), records: { mtime: "-99999999999.9" } }]));
    const future = read(writeTar([{ ...file("a", ""), records: { mtime: "99999999999999" } }]));
    expect([past[0]?.entry.mtimeSeconds, future[0]?.entry.mtimeSeconds]).toEqual([0, 2 ** 34 - 1]);
  });
});

describe("refused", () => {
  const long = (type: string, sizeBytes: number) =>
    altered((block) => {
      block.write(type, 156, "latin1");
      block.write(`${sizeBytes.toString(8).padStart(11, "0")}\0`, 124, "latin1");
    });
  const record = (records: Readonly<Record<string, string>>) => writeTar([{ ...file("a", ""), records }]);
  const raw = (text: string) =>
    Buffer.concat([writeTar([{ path: "x", type: "x", content: text }]).subarray(0, 1024), writeTar([file("a", "")])]);
  test.each<[string, Buffer, string]>([
    ["a wrong checksum", Buffer.concat([writeTar([file("a", "")])]).fill("z", 0, 1), "checksum is wrong"],
    ["no tar at all", Buffer.alloc(1024, "x"), "not a tar archive, or damaged"],
    ["a cut header", writeTar([file("a", "")]).subarray(0, 100), "cut short"],
    ["cut content", writeTar([file("a", "content")]).subarray(0, 515), "cut short"],
    ["an extended header for nothing", raw("9 a=bcde\n").subarray(0, 1024), "cut short"],
    ["a negative size", altered((block) => block.fill(0xff, 124, 136)), "negative size"],
    ["an enormous size", altered((block) => block.fill(0x7f, 125, 136).writeUInt8(0x80, 124)), "size is too large"],
    ["a size that is no number", altered((block) => block.write("12z", 124)), "malformed size"],
    ["a long name of 2 MiB", long("L", 2 * 1024 * 1024), "extended header of 2097152 bytes is over 1048576"],
    ["an extended header of 2 MiB", long("x", 2 * 1024 * 1024), "extended header of 2097152 bytes is over 1048576"],
    ["a record longer than its header", raw("99 path=x\n"), "malformed extended header"],
    ["a record of length 0", raw("0 path=x\n"), "malformed extended header"],
    ["a record without an end", raw("9 path=xx"), "malformed extended header"],
    ["a record without a key", raw("6 =xy\n"), "without a key"],
    ["a repeated record", raw("10 path=x\n10 path=y\n"), 'repeated extended header "path"'],
    ["a NUL in a name", record({ path: "a\0b" }), "a name holds a NUL byte"],
    ["a negative PAX size", record({ size: "-1" }), "malformed size"],
    ["an owner beyond 32 bits", record({ uid: "4294967295" }), "owner 4294967295"],
    ["a sparse file", record({ "GNU.sparse.major": "1" }), "sparse files are not supported"],
    ["an old sparse file", writeTar([{ path: "a", type: "S" }]), "sparse files are not supported"],
    [
      "a header after a zero block",
      Buffer.concat([Buffer.alloc(512), writeTar([file("a", "")])]),
      "follows a zero block",
    ],
  ])("%s", (_name, bytes, message) => {
    expect(() => read(bytes)).toThrow(message);
  });

  test("and nothing else happens to whatever bytes come", () => {
    const flips = fc.array(fc.tuple(fc.nat(4095), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 4 }), flips, fc.boolean(), (items, changes, isSealed) => {
        const bytes = writeTar(items);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        if (isSealed) sealHeader(bytes.subarray(0, 512));
        try {
          read(bytes, [700]);
        } catch (reason) {
          if (!(reason instanceof SwarmError) || reason.code !== "invalid_argument") throw reason;
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("cleanTarPath", () => {
  test.each([
    ["./a/b", "a/b"],
    ["/a//b/", "a/b"],
    ["../../a", "a"],
    ["a/../../b", "b"],
    ["./", ""],
    ["..", ""],
    ["", ""],
  ])("%j is %j", (raw, clean) => {
    expect(cleanTarPath(raw)).toBe(clean);
  });

  test("never leaves the root, whatever it is given", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("..", ".", "", "a", "b..")), (parts) => {
        const clean = cleanTarPath(parts.join("/"));
        expect(clean.split("/").some((part) => part === ".." || part === ".")).toBe(false);
        expect(clean.startsWith("/")).toBe(false);
      }),
    );
  });
});
