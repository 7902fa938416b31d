// Goal: what is written is read back the same, by our reader and by GNU tar. Method: members at each limit of the format.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type TarEntry, TarParser } from "./tar.ts";
import { TAR_END, type TarMember, tarHeader, tarPadding } from "./tar-writer.ts";

const member = (init: Partial<TarMember>): TarMember => ({
  ...{ kind: "file", path: "x", link: "", mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 1_700_000_000, sizeBytes: 0 },
  ...init,
});

function read(members: readonly TarMember[], content = ""): TarEntry[] {
  const parser = new TarParser();
  const bytes = members.flatMap((each) => {
    const body = Buffer.from(content).subarray(0, each.sizeBytes);
    return [tarHeader(each), body, tarPadding(body.length)];
  });
  const events = [...parser.push(Buffer.concat([...bytes, TAR_END]))];
  parser.finish();
  return events.flatMap((event) => (event.event === "entry" ? [event.entry] : []));
}

const long = (letter: string) => Array.from({ length: 20 }, () => letter.repeat(20)).join("/");

test.each<[string, Partial<TarMember>]>([
  ["a file", { sizeBytes: 5, mode: 0o4755, uid: 1000, gid: 1001 }],
  ["a name of 100 bytes", { path: "n".repeat(100) }],
  ["a name of 101 bytes", { path: "n".repeat(101) }],
  ["a long name", { path: long("a") }],
  ["a name that is not UTF-8", { path: "caf\u00e9\u00ff" }],
  ["a long one that is not", { path: `${"\u00ff".repeat(200)}` }],
  ["large ids", { uid: 4_000_000_000, gid: 0o7777777 }],
  ["an early time", { mtimeSeconds: 0 }],
  ["a late time", { mtimeSeconds: 2 ** 33 + 5 }],
  ["a symbolic link", { kind: "symlink", link: "../target" }],
  ["a long one", { kind: "symlink", link: long("b") }],
  ["a hard link", { kind: "hardlink", link: "x/y" }],
  ["a pipe", { kind: "fifo" }],
  ["a device", { kind: "character", deviceMajor: 1, deviceMinor: 3 }],
  ["another", { kind: "block", deviceMajor: 259, deviceMinor: 65_537 }],
])("%s", (_, init) => {
  const written = member(init);
  const [entry] = read([written], "hello");
  expect(entry).toMatchObject(written);
});

test("a directory's name ends in a slash, a large file's size is told in full", () => {
  expect(read([member({ kind: "directory", path: "a/b" })])[0]).toMatchObject({ kind: "directory", path: "a/b/" });
  const parser = new TarParser();
  const sizeBytes = 2 ** 40 + 1;
  const [event] = parser.push(tarHeader(member({ sizeBytes })));
  expect(event).toMatchObject({ event: "entry", entry: { sizeBytes } });
});

test("GNU tar reads it", () => {
  const folder = mkdtempSync(join(tmpdir(), "tar-writer-"));
  try {
    const members = [
      member({ kind: "directory", path: long("d"), mode: 0o750 }),
      member({ path: `${long("d")}/file`, sizeBytes: 5, mode: 0o640, uid: 3_000_000 }),
      member({ kind: "symlink", path: "link", link: long("d"), mode: 0o777 }),
      member({ kind: "hardlink", path: "again", link: `${long("d")}/file` }),
    ];
    const bytes = members.flatMap((each) => [
      tarHeader(each),
      Buffer.from("hello").subarray(0, each.sizeBytes),
      tarPadding(each.sizeBytes),
    ]);
    writeFileSync(join(folder, "a.tar"), Buffer.concat([...bytes, TAR_END]));
    const listed = execFileSync("tar", ["--numeric-owner", "--utc", "-tvf", join(folder, "a.tar")], {
      encoding: "utf8",
    });
    expect(listed.split("\n").map((line) => line.replaceAll(/ +/g, " "))).toEqual([
      `drwxr-x--- 0/0 0 2023-11-14 22:13 ${long("d")}/`,
      `-rw-r----- 3000000/0 5 2023-11-14 22:13 ${long("d")}/file`,
      `lrwxrwxrwx 0/0 0 2023-11-14 22:13 link -> ${long("d")}`,
      `hrw-r--r-- 0/0 0 2023-11-14 22:13 again link to ${long("d")}/file`,
      "",
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
