/** Goal: archives that other programs read, the same bytes for the same tree. Method: our own tar reader, dpkg-deb, and trees in another order. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { TarParser } from "../../common/model/tar.ts";
import { compress, writeTar } from "./archive.ts";
import { debianPackage } from "./debian.ts";
import { file, link, program, type Tree, type TreeEntry } from "./tree.ts";

const folder = mkdtempSync(join(tmpdir(), "swarm-archive-"));
afterAll(() => rmSync(folder, { recursive: true }));

const LONG = `usr/share/${"a".repeat(60)}/${"b".repeat(60)}/name`;
const ENTRIES: readonly [string, TreeEntry][] = [
  ["usr/bin/tool", link("../lib/tool/tool")],
  ["usr/lib/tool/tool", program("#!/bin/sh\necho hello\n")],
  ["etc/default/tool", file("A=1\n")],
  [LONG, file(Buffer.alloc(1024, 7))],
];
const TREE: Tree = new Map(ENTRIES);
const RELEASE = { version: "1.2.3", maintainer: "A <a@b.example>", epochSeconds: 1_700_000_000 };

test("a tar says what is in the tree, in order, at one time", () => {
  const tar = Buffer.concat(writeTar(TREE, { prefix: "top/", mtimeSeconds: RELEASE.epochSeconds }));
  expect(tar.length % 10_240).toBe(0);
  const parser = new TarParser();
  const entries = [...parser.push(tar)].flatMap((event) => (event.event === "entry" ? [event.entry] : []));
  parser.finish();
  const files = entries.filter(({ kind }) => kind !== "directory");
  expect(files.map(({ path }) => path)).toEqual(ENTRIES.map(([path]) => `top/${path}`).toSorted());
  expect(files.find(({ path }) => path === "top/usr/bin/tool")).toMatchObject({
    kind: "symlink",
    link: "../lib/tool/tool",
  });
  expect(files.find(({ path }) => path === "top/usr/lib/tool/tool")).toMatchObject({ mode: 0o755, sizeBytes: 21 });
  expect(new Set(entries.map(({ mtimeSeconds, uid, gid }) => `${mtimeSeconds} ${uid} ${gid}`))).toEqual(
    new Set([`${RELEASE.epochSeconds} 0 0`]),
  );
  // Each folder once, before what is in it.
  expect(entries.filter(({ path }) => path === "top/usr/")).toHaveLength(1);
  expect(entries.findIndex(({ path }) => path === "top/usr/lib/")).toBeLessThan(
    entries.findIndex(({ path }) => path === "top/usr/lib/tool/tool"),
  );
});

test("the order in which a tree was put together does not show", async () => {
  const other = new Map(ENTRIES.toReversed());
  const options = { prefix: "./", mtimeSeconds: RELEASE.epochSeconds };
  expect(Buffer.concat(writeTar(other, options)).equals(Buffer.concat(writeTar(TREE, options)))).toBe(true);
  expect((await debianPackage(other, "amd64", RELEASE)).equals(await debianPackage(TREE, "amd64", RELEASE))).toBe(true);
});

test("gzip holds no time and no name", async () => {
  const compressed = await compress([Buffer.from("te"), Buffer.from("xt")]);
  expect([...compressed.subarray(3, 10)]).toEqual([0, 0, 0, 0, 0, 0, 3]);
  expect(gunzipSync(compressed).toString()).toBe("text");
});

test("a large file is compressed once, and every reader takes the members for one stream", async () => {
  const large = Buffer.alloc(17 * 1024 * 1024, "swarm");
  const tree: Tree = new Map([...ENTRIES, ["usr/lib/tool/large", program(large)]]);
  const path = join(folder, "large.tar.gz");
  writeFileSync(path, await compress(writeTar(tree, { prefix: "top/", mtimeSeconds: 0 })));
  const member = ["-xzOf", path, "top/usr/lib/tool/large"];
  expect(execFileSync("tar", member, { maxBuffer: 1 << 26 }).equals(large)).toBe(true);
  expect(execFileSync("tar", ["-tzf", path], { encoding: "utf8" }).split("\n")).toContain("top/usr/lib/tool/tool");
  writeFileSync(join(folder, "large.deb"), await debianPackage(tree, "amd64", RELEASE));
  execFileSync("dpkg-deb", ["--extract", join(folder, "large.deb"), join(folder, "large")]);
  expect(readFileSync(join(folder, "large/usr/lib/tool/large")).equals(large)).toBe(true);
});

test("a path that no header holds is refused", () => {
  const tree = new Map([[`${"x".repeat(120)}`, file("")]]);
  expect(() => writeTar(tree, { prefix: "", mtimeSeconds: 0 })).toThrow(/too long/);
});

test("dpkg reads the package", async () => {
  const path = join(folder, "tool.deb");
  writeFileSync(path, await debianPackage(TREE, "arm64", RELEASE));
  const dpkg = (...args: readonly string[]) => execFileSync("dpkg-deb", args, { encoding: "utf8" });
  expect(dpkg("--field", path, "Package", "Version", "Architecture")).toBe(
    "Package: swarm-cluster\nVersion: 1.2.3\nArchitecture: arm64\n",
  );
  expect(dpkg("--info", path)).toMatch(/postinst[\s\S]*prerm/);
  expect(dpkg("--info", path, "conffiles")).toBe("/etc/default/tool\n");
  expect(dpkg("--info", path, "md5sums")).toMatch(/^[0-9a-f]{32} {2}etc\/default\/tool\n/);
  expect(dpkg("--contents", path)).toMatch(/\.\/usr\/bin\/tool -> \.\.\/lib\/tool\/tool/);
  dpkg("--extract", path, join(folder, "root"));
  expect(execFileSync(join(folder, "root/usr/bin/tool"), { encoding: "utf8" })).toBe("hello\n");
});
