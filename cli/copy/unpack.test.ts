/**
 * Goal: an archive from a container writes to nowhere but where it was meant, and leaves what it was. Method: honest and hostile
 * archives, beside a folder that must stay as it was; packed again by GNU tar and by ourselves.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { directory, file, hardlink, symlink, type TarItem, writeTar } from "../../test/tar.ts";
import { Packer } from "./pack.ts";
import { Unpacker } from "./unpack.ts";

let folder = "";
const at = (...names: string[]) => join(folder, ...names);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "unpack-test-"));
  mkdirSync(at("out"));
  mkdirSync(at("victim"));
  writeFileSync(at("victim", "file"), "untouched");
});
afterEach(() => {
  expect(readdirSync(at("victim"))).toEqual(["file"]);
  expect(readFileSync(at("victim", "file"), "utf8")).toBe("untouched");
  rmSync(folder, { recursive: true, force: true });
});

async function unpack(items: readonly TarItem[] | Buffer, name = "t", path = at("out", "t"), keepOwners = false) {
  await using unpacker = new Unpacker({ path, name, keepOwners });
  const tar = Buffer.isBuffer(items) ? items : writeTar(items);
  for (let start = 0; start < tar.length; start += 7_000) await unpacker.push(tar.subarray(start, start + 7_000));
  await unpacker.finish();
  return unpacker.warnings.takeAll("more");
}

async function pack(path: string, name: string) {
  const packer = new Packer();
  const parts: Buffer[] = [];
  for await (const piece of packer.pack({ path, name })) parts.push(Buffer.from(piece));
  return { tar: Buffer.concat(parts), warnings: packer.warnings };
}

describe("an honest archive", () => {
  test("comes out as it is: modes, times, links, holes, read-only directories", async () => {
    const sparse = Buffer.alloc(4 << 20);
    sparse.write("end", sparse.length - 3);
    const items = [
      { ...directory("t", 0o755), mtimeSeconds: 1_000_000_000 },
      { ...directory("t/closed", 0o500), mtimeSeconds: 1_100_000_000 },
      { ...file("t/closed/f", "content", 0o440), mtimeSeconds: 1_200_000_000 },
      symlink("closed/f", "t/link"),
      hardlink("t/closed/f", "t/again"),
      file("t/sparse", sparse),
      file("t/suid", "s", 0o6755),
      file("t/empty", ""),
    ];
    expect(await unpack(items)).toEqual([]);
    const mode = (name: string) => (statSync(at("out/t", name)).mode & 0o7777).toString(8);
    expect(["", "closed", "closed/f", "suid"].map(mode)).toEqual(["755", "500", "440", "755"]);
    expect(statSync(at("out/t")).mtimeMs).toBe(1_000_000_000_000);
    expect(statSync(at("out/t/closed")).mtimeMs).toBe(1_100_000_000_000);
    expect(statSync(at("out/t/again")).ino).toBe(statSync(at("out/t/closed/f")).ino);
    expect(readlinkSync(at("out/t/link"))).toBe("closed/f");
    expect(readFileSync(at("out/t/sparse")).equals(sparse)).toBe(true);
    expect(statSync(at("out/t/sparse")).blocks * 512).toBeLessThan(1 << 20);
    expect(statSync(at("out/t/empty")).size).toBe(0);
  });

  test("of content goes into a directory that stays as it is; over files, not over directories", async () => {
    mkdirSync(at("out/t/dir"), { recursive: true, mode: 0o700 });
    writeFileSync(at("out/t/f"), "old");
    await unpack([directory("./", 0o777), file("./f", "new"), directory("./dir", 0o750), file("./dir/x", "x")], ".");
    expect(readFileSync(at("out/t/f"), "utf8")).toBe("new");
    expect((statSync(at("out/t")).mode & 0o777).toString(8)).not.toBe("777");
    expect((statSync(at("out/t/dir")).mode & 0o777).toString(8)).toBe("750");
    await expect(unpack([directory("t"), file("t/dir", "x")])).rejects.toMatchObject({
      message: expect.stringMatching(/^cannot overwrite directory .*out\/t\/dir with non-directory "t\/dir"$/),
    });
    await expect(unpack([directory("t"), directory("t/f")])).rejects.toMatchObject({
      message: expect.stringMatching(/^cannot overwrite non-directory .*out\/t\/f with directory$/),
    });
  });

  test("of one file takes another name; what cannot be here is left out and named", async () => {
    await unpack([file("hosts", "h")], "hosts", at("out/copy"));
    expect(readFileSync(at("out/copy"), "utf8")).toBe("h");
    const warnings = await unpack([
      directory("t"),
      { path: "t/null", type: "3", device: [1, 3] },
      { path: "t/pipe", type: "6" },
      { path: "t/odd", type: "V" },
      file("t/after", "a"),
    ]);
    expect(warnings.map((text) => text.replace(folder, ""))).toEqual([
      "/out/t/null: a device, left out",
      "/out/t/pipe: a pipe, left out",
      "/out/t/odd: of an unknown type, left out",
    ]);
    expect(readdirSync(at("out/t"))).toEqual(["after"]);
  });
});

describe("a hostile archive", () => {
  test.each<[string, readonly TarItem[], RegExp]>([
    ["another name", [file("x", "evil")], /is not what was asked for/],
    ["dots", [directory("t"), file("t/../../victim/new", "evil")], /is not what was asked for/],
    ["a root", [directory("t"), file("/victim/new", "evil")], /is not what was asked for/],
    [
      "a link as a directory",
      [directory("t"), symlink("../../victim", "t/l"), file("t/l/new", "evil")],
      /comes before/,
    ],
    [
      "a link, then a directory of that name",
      [directory("t"), symlink("../../victim", "t/l"), directory("t/l"), file("t/l/new", "evil")],
      /cannot overwrite non-directory/,
    ],
    ["a link in the way of the top", [symlink("../victim", "t"), file("t/new", "evil")], /comes before/],
    ["a hard link outside", [directory("t"), hardlink("victim/file", "t/h")], /is not what was asked for/],
    ["a hard link by dots", [directory("t"), hardlink("t/../../victim/file", "t/h")], /is not what was asked for/],
    [
      "a hard link through a link",
      [directory("t"), symlink("../../victim", "t/l"), hardlink("t/l/file", "t/h"), file("t/h", "evil")],
      /is a link to what is not below it/,
    ],
    ["no directory above", [file("t/a/b", "evil")], /comes before the directory/],
    ["a NUL in a name", [directory("t"), { path: "t/x", records: { path: "t/a\0b" } }], /NUL/],
  ])("%s", async (_, items, message) => {
    await expect(unpack(items)).rejects.toMatchObject({
      code: expect.any(String),
      message: expect.stringMatching(message),
    });
  });

  test("a link that is there already is not followed", async () => {
    mkdirSync(at("out/t"));
    symlinkSync(at("victim"), at("out/t/l"));
    symlinkSync(at("victim", "file"), at("out/t/f"));
    await expect(unpack([directory("t"), directory("t/l"), file("t/l/file", "evil")])).rejects.toMatchObject({
      message: expect.stringContaining("cannot overwrite non-directory"),
    });
    await unpack([directory("t"), file("t/f", "in its place")]);
    expect(lstatSync(at("out/t/f")).isFile()).toBe(true);
  });

  test("cut short or no archive", async () => {
    await expect(unpack(writeTar([file("t", "x".repeat(5000))]).subarray(0, 3000))).rejects.toMatchObject({
      message: expect.stringContaining("cut short"),
    });
    await expect(unpack(Buffer.alloc(2048, 1))).rejects.toMatchObject({ code: "invalid_argument" });
  });
});

describe("packing", () => {
  test("comes out as it was, by GNU tar and by ourselves", async () => {
    const long = Array.from({ length: 12 }, (_, index) => `${index}${"n".repeat(30)}`).join("/");
    mkdirSync(at("in", long), { recursive: true });
    mkdirSync(at("in/empty"), { mode: 0o711 });
    writeFileSync(at("in/f"), "hello", { mode: 0o640 });
    writeFileSync(at("in", long, "deep"), "deep");
    writeFileSync(Buffer.concat([Buffer.from(at("in/caf")), Buffer.from([0xe9])]), "odd");
    writeFileSync(at("in/large"), Buffer.alloc(1_000_001, "ab"));
    linkSync(at("in/f"), at("in/again"));
    symlinkSync("f", at("in/link"));
    execFileSync("mkfifo", [at("in/pipe")]);
    const { tar, warnings } = await pack(at("in"), "in");
    expect(warnings).toEqual([]);
    mkdirSync(at("gnu"));
    writeFileSync(at("a.tar"), tar);
    execFileSync("tar", ["-C", at("gnu"), "-xpf", at("a.tar")]);
    const compare = (left: string, right: string) =>
      execFileSync("diff", ["-r", "--no-dereference", left, right], { encoding: "utf8" });
    execFileSync("rm", [at("gnu/in/pipe")]);
    expect((await unpack(tar, "in", at("out/in"))).join()).toMatch(/pipe: a pipe, left out$/);
    expect(compare(at("gnu/in"), at("out/in"))).toBe("");
    execFileSync("rm", [at("in/pipe")]);
    expect(compare(at("in"), at("out/in"))).toBe("");
    expect(statSync(at("gnu/in/again")).nlink).toBe(2);
    expect((statSync(at("out/in/empty")).mode & 0o777).toString(8)).toBe("711");
  });

  test("sockets and devices are left out and named; what cannot be read is told by its path", async () => {
    mkdirSync(at("in"));
    const server = createServer();
    server.listen(at("in/s"));
    await once(server, "listening");
    onTestFinished(() => void server.close());
    expect((await pack(at("in"), "in")).warnings).toEqual([`${at("in/s")}: a socket, left out`]);
    expect((await pack("/dev/null", "null")).warnings).toEqual(["/dev/null: a device, left out"]);
    await expect(pack(at("nonesuch"), "x")).rejects.toMatchObject({
      code: "not_found",
      message: `${at("nonesuch")}: ENOENT`,
    });
  });
});
