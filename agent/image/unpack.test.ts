// Goal: no layer writes outside its directory, whatever it holds, and every honest layer comes out as it was packed.
// Method: hostile and honest tars through the real shim; a directory beside the target must stay as it was. The names of
// the first table are those of containerd's TestBreakouts.
import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect } from "vitest";
import { TarParser } from "../../common/model/tar.ts";
import { sha256 } from "../../test/images.ts";
import { rootTest } from "../../test/privileges.ts";
import { directory, file, hardlink, symlink, type TarItem, writeTar } from "../../test/tar.ts";
import type { LayerFacts } from "./layer.ts";
import { NEVER, TestDirectory } from "./test-store.ts";
import { DEFAULT_UNPACK_LIMITS, type UnpackLimits, unpackLayer } from "./unpack.ts";

/** How a test stores its tar; the default is a plain one that tells the truth. */
interface Storing {
  readonly bytes?: Buffer;
  readonly mediaType?: string;
  readonly digest?: string;
  readonly sizeBytes?: number;
  readonly diffId?: string;
  readonly limits?: Partial<UnpackLimits>;
  readonly target?: string;
}

interface Unpacked {
  readonly root: string;
  readonly facts: LayerFacts;
  /** Inode of a path below the root. */
  inode(path: string): number;
  text(path: string): string;
}

/** Unpacks beside a directory that must not change, and hands the result to `check`. */
async function withLayer(
  items: readonly TarItem[] | Buffer,
  check: (unpacked: Unpacked) => void,
  storing: Storing = {},
) {
  await using at = new TestDirectory();
  const root = storing.target ?? join(at.path, "root");
  const outside = join(at.path, "outside");
  if (storing.target === undefined) mkdirSync(root);
  mkdirSync(outside);
  writeFileSync(join(outside, "victim"), "untouched", { mode: 0o400 });
  const before = identity(join(outside, "victim"));
  const tar = Buffer.isBuffer(items) ? items : writeTar(items);
  const bytes = storing.bytes ?? tar;
  const layer = {
    mediaType: storing.mediaType ?? "application/vnd.oci.image.layer.v1.tar",
    digest: storing.digest ?? sha256(bytes),
    sizeBytes: storing.sizeBytes ?? bytes.length,
    annotations: new Map(),
  };
  const content = async function* () {
    for (let offset = 0; offset < bytes.length; offset += 10_000) yield bytes.subarray(offset, offset + 10_000);
  };
  const limits = { ...DEFAULT_UNPACK_LIMITS, ...storing.limits };
  const options = {
    shimPath: at.options().shimPath,
    directory: root,
    layer,
    diffId: storing.diffId ?? sha256(tar),
    limits,
  };
  try {
    const facts = await unpackLayer(options, content(), NEVER);
    const inode = (path: string) => statSync(join(root, path)).ino;
    check({ root, facts, inode, text: (path) => readFileSync(join(root, path), "utf8") });
  } finally {
    expect(readdirSync(outside)).toEqual(["victim"]);
    expect(readFileSync(join(outside, "victim"), "utf8")).toBe("untouched");
    expect(identity(join(outside, "victim"))).toEqual(before);
    expect(readdirSync(at.path).toSorted()).toEqual(storing.target === undefined ? ["outside", "root"] : ["outside"]);
  }
}

/** All that may not change. */
function identity(path: string) {
  const { ino, mode, uid, gid, nlink, size, mtimeMs, ctimeMs } = lstatSync(path);
  return { ino, mode, uid, gid, nlink, size, mtimeMs, ctimeMs };
}

/** Extended attributes, as GNU tar packs them: Node cannot read them. */
function xattrsOf(path: string): ReadonlyMap<string, Uint8Array> {
  const options = ["--xattrs", "--xattrs-include=*", "--format=pax", "--no-recursion"];
  const tar = execFileSync("tar", ["-cf", "-", ...options, "-C", dirname(path), basename(path)]);
  const [first] = new TarParser().push(tar);
  return first?.event === "entry" ? first.entry.xattrs : new Map();
}

const etc = [directory("etc", 0o770), file("/etc/passwd", "inside")];

describe("links stay inside", () => {
  const linked = (path: string) => (unpacked: Unpacked) => {
    // Resolved as the container will: from its own root.
    const seen = execFileSync("chroot", [unpacked.root, "/busybox", "stat", "-L", "-c", "%i", `/${path}`]);
    expect(Number(String(seen))).toBe(unpacked.inode("etc/passwd"));
  };
  const busybox = file("busybox", readFileSync("/bin/busybox"), 0o755);
  const unbroken = ({ text }: Unpacked) => expect(text("etc/unbroken")).toBe("unbroken");

  rootTest.each<[string, TarItem[], (unpacked: Unpacked) => void]>([
    [
      "SymlinkAbsolute",
      [directory("etc"), symlink("/etc", "localetc"), file("/localetc/unbroken", "unbroken")],
      unbroken,
    ],
    [
      "SymlinkUpAndOut",
      [
        directory("etc"),
        directory("dummy"),
        symlink("/dummy/../etc", "localetc"),
        file("/localetc/unbroken", "unbroken"),
      ],
      unbroken,
    ],
    [
      "SymlinkMultipleAbsolute",
      [
        directory("etc"),
        directory("dummy"),
        symlink("/etc", "/dummy/etc"),
        symlink("/dummy/etc", "localetc"),
        file("/dummy/etc/unbroken", "unbroken"),
      ],
      unbroken,
    ],
    [
      "SymlinkMultipleRelative",
      [
        directory("etc"),
        directory("dummy"),
        symlink("/etc", "/dummy/etc"),
        symlink("./dummy/etc", "localetc"),
        file("/dummy/etc/unbroken", "unbroken"),
      ],
      unbroken,
    ],
    [
      "SymlinkEmptyFile",
      [directory("etc"), file("etc/emptied", "notempty"), symlink("/etc", "localetc"), file("/localetc/emptied", "")],
      ({ text }) => expect(text("etc/emptied")).toBe(""),
    ],
    [
      "SymlinkParentDirectory",
      [...etc, symlink("/etc/", ".."), hardlink("/etc/passwd", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "SymlinkEmptyFilename",
      [...etc, symlink("/etc/", ""), hardlink("/etc/passwd", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "SymlinkOfTheRoot",
      [...etc, symlink("/etc/", "./"), hardlink("/etc/passwd", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "SymlinkParentRelative",
      [...etc, symlink("/etc/", "localetc/sub/.."), hardlink("/etc/passwd", "/localetc/localpasswd")],
      linked("localetc/localpasswd"),
    ],
    [
      "SymlinkSlashEnded",
      [...etc, directory("localetc/", 0o770), hardlink("/etc/passwd", "/localetc/localpasswd")],
      linked("localetc/localpasswd"),
    ],
    [
      "SymlinkOverrideDirectory",
      [...etc, directory("localetc"), symlink("/etc", "localetc"), hardlink("/etc/passwd", "/localetc/localpasswd")],
      linked("localetc/localpasswd"),
    ],
    [
      "SymlinkOverrideDirectoryRelative",
      [
        ...etc,
        directory("localetc"),
        symlink("../../etc", "localetc"),
        hardlink("/etc/passwd", "/localetc/localpasswd"),
      ],
      linked("localetc/localpasswd"),
    ],
    [
      "SymlinkOverridePath",
      [...etc, directory("a"), file("a/b", ""), symlink("/etc", "a"), hardlink("/etc/passwd", "a/localpasswd")],
      linked("a/localpasswd"),
    ],
    [
      "DirectoryOverrideSymlink",
      [...etc, symlink("/etc", "localetc"), directory("/localetc/"), hardlink("/etc/passwd", "/localetc/localpasswd")],
      (unpacked) => {
        linked("localetc/localpasswd")(unpacked);
        expect(lstatSync(join(unpacked.root, "localetc")).isDirectory()).toBe(true);
      },
    ],
    [
      "DirectoryOverrideSymlinkAndHardlink",
      [
        ...etc,
        symlink("etc", "localetc"),
        hardlink("/etc/passwd", "/localetc/localpasswd"),
        directory("/localetc/"),
        file("/localetc/localpasswd", "different"),
      ],
      ({ inode }) => expect(inode("localetc/localpasswd")).not.toBe(inode("etc/passwd")),
    ],
    [
      "HardlinkRelative",
      [
        ...etc,
        directory("breakouts"),
        symlink("../../etc", "breakouts/d1"),
        hardlink("/breakouts/d1/passwd", "breakouts/mypasswd"),
      ],
      linked("breakouts/mypasswd"),
    ],
    [
      "HardlinkDownAndOut",
      [
        ...etc,
        directory("breakouts"),
        directory("downandout"),
        symlink("../downandout/../../etc", "breakouts/d1"),
        hardlink("/breakouts/d1/passwd", "breakouts/mypasswd"),
      ],
      linked("breakouts/mypasswd"),
    ],
    [
      "HardlinkAbsolute",
      [...etc, symlink("/etc", "localetc"), hardlink("/localetc/passwd", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "HardlinkRelativeLong",
      [...etc, symlink("../../../../../../../etc", "localetc"), hardlink("/localetc/passwd", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "HardlinkRelativeUpAndOut",
      [
        ...etc,
        directory("upandout"),
        symlink("upandout/../../../etc", "localetc"),
        hardlink("/localetc/passwd", "localpasswd"),
      ],
      linked("localpasswd"),
    ],
    ["HardlinkDirectRelative", [...etc, hardlink("../../../../../etc/passwd", "localpasswd")], linked("localpasswd")],
    ["HardlinkDirectAbsolute", [...etc, hardlink("/etc/passwd", "localpasswd")], linked("localpasswd")],
    [
      "HardlinkSymlinkBeforeCreateTarget",
      [
        directory("etc", 0o770),
        symlink("/etc/passwd", "localpasswd"),
        hardlink("localpasswd", "localpasswd-dup"),
        file("/etc/passwd", "after"),
      ],
      linked("localpasswd-dup"),
    ],
    [
      "HardlinkSymlinkRelative",
      [...etc, symlink("../../../../../etc/passwd", "passwdlink"), hardlink("/passwdlink", "localpasswd")],
      (unpacked) => {
        linked("localpasswd")(unpacked);
        expect(readlinkSync(join(unpacked.root, "localpasswd"))).toBe("../../../../../etc/passwd");
      },
    ],
    [
      "HardlinkSymlinkAbsolute",
      [...etc, symlink("/etc/passwd", "passwdlink"), hardlink("/passwdlink", "localpasswd")],
      linked("localpasswd"),
    ],
    [
      "HardlinkToItself",
      [...etc, hardlink("etc/passwd", "etc/passwd")],
      ({ text }) => expect(text("etc/passwd")).toBe("inside"),
    ],
  ])("%s", (_name, items, check) => withLayer([busybox, ...items], check));

  rootTest("HardlinkSymlinkChmod, and writing, chowning and marking through links to the outside", async () => {
    const victim = "../outside/victim";
    const attempts: readonly (readonly TarItem[])[] = [
      [symlink(victim, "link"), hardlink("link", "sketchylink")],
      [symlink(victim, "link"), { ...file("link", "owned", 0o777), uid: 1 }],
      [symlink("../outside", "dir"), file("dir/victim", "owned")],
      [symlink("../outside", "dir"), directory("dir", 0o777), file("dir/new", "owned")],
      [symlink("/proc/self/root", "dir"), file("dir/tmp/owned", "owned")],
      [symlink("../outside", "dir"), file("dir/.wh.victim", "")],
      [symlink("../outside", "dir"), file("dir/.wh..wh..opq", "")],
      [symlink("..", "up"), symlink("up/outside", "dir"), hardlink("dir/victim", "mine"), file("mine", "owned")],
    ];
    // Some are refused, some come out inside: `withLayer` sees to it that none has touched the outside.
    for (const items of attempts)
      await withLayer(items, () => {}).catch((reason) => expect(String(reason)).toMatch(/ENOENT|ENOTDIR|EXDEV/));
  });
});

describe("whiteouts", () => {
  const bad = "whiteout of nothing or of a directory itself";
  rootTest.each([
    ["WhiteoutRootParent", ".wh..."],
    ["WhiteoutParent", "etc/.wh..."],
    ["WhiteoutRoot", ".wh.."],
    ["WhiteoutCurrentDirectory", "etc/.wh.."],
    ["a bare prefix", "etc/.wh."],
  ])("%s is refused", async (_name, path) => {
    await expect(withLayer([file(path, "")], () => {})).rejects.toThrow(bad);
  });

  const isWhiteout =
    (path: string) =>
    ({ root }: Unpacked) => {
      const status = lstatSync(join(root, path));
      expect([status.isCharacterDevice(), status.rdev]).toEqual([true, 0]);
    };
  const isOpaque =
    (path: string) =>
    ({ root }: Unpacked) => {
      expect(xattrsOf(join(root, path)).get("trusted.overlay.opaque")).toEqual(Buffer.from("y"));
    };
  rootTest.each<[string, TarItem[], (unpacked: Unpacked) => void]>([
    ["WhiteoutSymlink", [file(".wh.localetc", "")], isWhiteout("localetc")],
    [
      "WhiteoutSymlinkPath",
      [directory("etc"), symlink("/etc", "localetc"), file("localetc/.wh.gone", "")],
      isWhiteout("etc/gone"),
    ],
    [
      "WhiteoutDirectoryName",
      [file(".wh.etc/somefile", "non-empty")],
      ({ text }) => expect(text(".wh.etc/somefile")).toBe("non-empty"),
    ],
    ["WhiteoutDeadSymlinkParent", [file("localetc/.wh.etc", "")], isWhiteout("localetc/etc")],
    ["WhiteoutRelativePath", [file("dne/../.wh.etc", "")], isWhiteout("etc")],
    [
      "other AUFS marks",
      [file(".wh..wh.aufs", ""), file(".wh..wh.plnk/1", "")],
      ({ root }) => expect(readdirSync(root)).not.toContain(".wh.aufs"),
    ],
    [
      "before the file it does not hide",
      [file(".wh.a", ""), file("a", "mine")],
      ({ text }) => expect(text("a")).toBe("mine"),
    ],
    [
      "after the file it does not hide",
      [file("a", "mine"), file(".wh.a", "")],
      ({ text }) => expect(text("a")).toBe("mine"),
    ],
    ["before a directory of its own layer", [file(".wh.a", ""), directory("a"), file("a/b", "")], isOpaque("a")],
    ["before what is in a directory of its own layer", [file(".wh.a", ""), file("a/b", "")], isOpaque("a")],
    ["after a directory of its own layer", [directory("a"), file("a/b", ""), file(".wh.a", "")], isOpaque("a")],
    ["opaque before", [file("a/.wh..wh..opq", ""), directory("a"), file("a/b", "mine")], isOpaque("a")],
    ["opaque after", [directory("a"), file("a/b", "mine"), file("a/.wh..wh..opq", "")], isOpaque("a")],
  ])("%s", (_name, items, check) => withLayer(items, check));
});

describe("refused", () => {
  const capability = (version: number, length: number) => {
    const value = Buffer.alloc(length);
    value.writeUInt32LE(version * 0x0100_0000 + 1);
    return value;
  };
  rootTest.each<[string, TarItem[], string]>([
    ["a whiteout device", [{ path: "a", type: "3", device: [0, 0] }], "device nodes are not allowed"],
    ["a disk", [{ path: "a", type: "4", device: [8, 0] }], "device nodes are not allowed"],
    ["a whiteout device under /dev", [{ path: "dev/a", type: "3", device: [0, 0] }], "device nodes are not allowed"],
    [
      "an overlay redirect",
      [{ ...directory("a"), xattrs: { "trusted.overlay.redirect": Buffer.from("/x") } }],
      "trusted.overlay.redirect",
    ],
    [
      "a user overlay mark",
      [{ ...file("a", ""), xattrs: { "user.overlay.opaque": Buffer.from("y") } }],
      "user.overlay.opaque",
    ],
    ["an unknown type", [{ path: "a", type: "V" }], 'type "V" is not supported'],
    ["a long component", [file("a".repeat(256), "")], "too long or too deep"],
    ["a long path", [file("a/".repeat(2100), "")], "too long or too deep"],
    ["a deep path", [file("a/".repeat(257), "")], "too long or too deep"],
    ["a link to nothing", [hardlink("nothing", "a")], 'hardlink "a": no such file or directory (ENOENT)'],
    ["a link to a directory", [directory("d"), hardlink("d", "a")], "EISDIR"],
    ["a file where a directory must be", [file("a", ""), file("a/b", "")], "ENOTDIR"],
    ["a huge passwd", [file("etc/passwd", Buffer.alloc(11 * 1024 * 1024))], "larger than 10485760 bytes"],
  ])("%s", async (_name, items, message) => {
    await expect(withLayer(items, () => {})).rejects.toThrow(message);
  });

  const tar = writeTar([file("a", "x".repeat(5000))]);
  const gzip = gzipSync(tar);
  const gz = "application/vnd.oci.image.layer.v1.tar+gzip";
  const zst = "application/vnd.oci.image.layer.v1.tar+zstd";
  const bomb = gzipSync(Buffer.concat([writeTar([file("a", Buffer.alloc(30 * 1024 * 1024))])]));
  rootTest.each<[string, Storing, string]>([
    ["a digest mismatch", { digest: sha256("other") }, "digest mismatch: layer is"],
    ["a diff id mismatch", { diffId: sha256("other") }, "digest mismatch: uncompressed layer is"],
    ["too many bytes", { sizeBytes: 100 }, "size mismatch: more than the stated 100 bytes"],
    ["too few bytes", { sizeBytes: 100_000 }, "size mismatch: layer of"],
    ["gzip labelled zstd", { bytes: gzip, mediaType: zst }, "labelled zstd but is gzip"],
    ["gzip labelled plain", { bytes: gzip }, "labelled none but is gzip"],
    ["plain labelled gzip", { mediaType: gz }, "labelled gzip but is none"],
    [
      "a truncated gzip",
      { bytes: gzip.subarray(0, -9), mediaType: gz },
      "compressed data is damaged: unexpected end of file",
    ],
    ["garbage after gzip", { bytes: Buffer.concat([gzip, Buffer.alloc(9)]), mediaType: gz }, "9 bytes follow"],
    ["a truncated zstd", { bytes: zstdCompressSync(tar).subarray(0, -1), mediaType: zst }, "zstd stream is cut short"],
    [
      "garbage after zstd",
      { bytes: Buffer.concat([zstdCompressSync(tar), Buffer.from("garbage")]), mediaType: zst },
      "no zstd frame",
    ],
    [
      "foreign media types",
      { mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" },
      "is not supported",
    ],
    ["a bomb", { bytes: bomb, mediaType: gz, limits: { ratioFromBytes: 1024 * 1024 } }, "expands beyond 100 times"],
    [
      "a giant",
      { bytes: bomb, mediaType: gz, limits: { expandedBytesMax: 1024 * 1024 } },
      "expands beyond 1048576 bytes",
    ],
  ])("%s", async (_name, storing, message) => {
    const source = storing.bytes === bomb ? writeTar([file("a", Buffer.alloc(30 * 1024 * 1024))]) : tar;
    await expect(withLayer(source, () => {}, storing)).rejects.toThrow(message);
  });

  rootTest("a layer that fills the disk, which says so", async () => {
    await using at = new TestDirectory();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", at.path]);
    try {
      const target = join(at.path, "small");
      mkdirSync(target);
      await expect(withLayer([file("a", Buffer.alloc(2 * 1024 * 1024))], () => {}, { target })).rejects.toThrow(
        'file "a": no space left on device (ENOSPC)',
      );
    } finally {
      execFileSync("umount", [at.path]);
    }
  });

  rootTest("xattrs of the host's own are dropped, good ones kept", () => {
    const xattrs = {
      "user.mime": Buffer.from("text"),
      "security.selinux": Buffer.from("label"),
      "trusted.other": Buffer.from("x"),
      "security.capability": capability(2, 20),
    };
    const broken = { "security.capability": capability(9, 20) };
    return withLayer(
      [
        { ...file("good", "content"), xattrs },
        { ...file("bad", ""), xattrs: broken },
      ],
      ({ root }) => {
        expect([...xattrsOf(join(root, "good")).keys()].toSorted()).toEqual(["security.capability", "user.mime"]);
        expect([...xattrsOf(join(root, "bad")).keys()]).toEqual([]);
      },
    );
  });
});

describe("honest layers", () => {
  rootTest.each(["gnu", "pax", "ustar", "v7"])("of GNU tar's %s format come out as they went in", async (format) => {
    await using at = new TestDirectory();
    const origin = join(at.path, "origin");
    mkdirSync(join(origin, "deep/er"), { recursive: true });
    writeFileSync(join(origin, "deep/er/file"), "content", { mode: 0o640 });
    const long = { gnu: "ä".repeat(120), pax: "ä".repeat(120), ustar: "n".repeat(90), v7: "n" }[format] ?? "";
    writeFileSync(join(origin, "deep", long), "long name");
    execFileSync("sh", ["-c", "ln -s er deep/s && ln deep/er/file deep/h && chmod 2750 deep && chown 12:34 deep"], {
      cwd: origin,
    });
    if (format !== "v7") execFileSync("mkfifo", [join(origin, "pipe")]);
    const tar = execFileSync("tar", ["-c", `--format=${format}`, "--sort=name", "-C", origin, "."]);
    const listing = (path: string) =>
      String(execFileSync("find", [path, "-printf", "%P %m %U %G %y %n %s %l %t\n"]))
        .split("\n")
        .toSorted();
    const seconds = (lines: readonly string[]) =>
      lines.map((line) => line.replace(/\.[0-9]+ /, " ").replace(/ d [0-9]+ [0-9]+ /, " d "));
    await withLayer(tar, ({ root }) => expect(seconds(listing(root))).toEqual(seconds(listing(origin))));
  });

  rootTest("in several gzip members and zstd frames, skippable ones too", async () => {
    const tar = writeTar([file("a", "x".repeat(100_000)), file("b", "y")]);
    const halves = [tar.subarray(0, 70_000), tar.subarray(70_000)];
    const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    const same = ({ text }: Unpacked) => expect(text("b")).toBe("y");
    const gz = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const zst = "application/vnd.oci.image.layer.v1.tar+zstd";
    await withLayer(tar, same, { bytes: Buffer.concat(halves.map((half) => gzipSync(half))), mediaType: gz });
    const frames = halves.map((half) => zstdCompressSync(half));
    await withLayer(tar, same, { bytes: Buffer.concat([skippable, ...frames, skippable]), mediaType: zst });
  });

  rootTest("may replace what they brought, hold device nodes under /dev, and be empty", async () => {
    const deep = Array.from({ length: 100 }, (_, depth) => directory(`t/${"d/".repeat(depth)}`));
    const items = [
      ...deep,
      file("t/d/f", ""),
      file("t", "now a file"),
      { path: "dev/null", type: "3", device: [1, 3] as const },
    ];
    await withLayer(items, ({ root, text }) => {
      expect(text("t")).toBe("now a file");
      expect(readdirSync(root)).toEqual(["t"]);
    });
    await withLayer([], ({ root }) => expect(readdirSync(root)).toEqual([]));
    await withLayer(Buffer.alloc(0), ({ facts }) => expect(facts.entries).toBe(0));
  });
});
