/**
 * Goal: what is copied out of a container is what is there, what is copied in comes to lie where it was to, and a hostile
 * container gains nothing by either and holds nothing up. Method: real containers with hostile trees, through the shim.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { type TarEntry, TarParser } from "../../common/model/tar.ts";
import { eventually } from "../../test/eventually.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { directory, file, hardlink, symlink, type TarItem, writeTar } from "../../test/tar.ts";
import { type CgroupManager, openCgroups } from "../cgroup/manager.ts";
import type { CopyInOp, CopyOutOp, HostPath } from "../runtime/op.ts";
import { SessionProcess } from "../runtime/session-process.ts";
import { planCopy } from "../runtime/spec-plan.ts";
import type { Supervisor } from "../runtime/supervisor.ts";
import {
  buildShim,
  type ContainerOverrides,
  NEVER,
  readLog,
  TestContainers,
  testProcess,
} from "../runtime/test-root.ts";
import { CopyIn } from "./copy-in.ts";
import { archiveName, copyOut, copyOutOp } from "./copy-out.ts";

let containers: TestContainers;
let cgroups: CgroupManager;
let count = 0;
beforeAll(async () => {
  if (!isRoot) return;
  containers = await TestContainers.create();
  cgroups = await openCgroups(systemClock, `/swarm-copy-${process.pid}`);
});
afterAll(async () => {
  await containers?.[Symbol.asyncDispose]();
  await cgroups?.removeParent();
});

test.each([
  ["/etc/passwd", "passwd"],
  ["etc/passwd", "passwd"],
  ["/etc/", "etc"],
  ["/etc/.", "."],
  ["/", "."],
  ["/.", "."],
  ["/a/../b", "b"],
  ["/a/..", "."],
  ["..", "."],
])("what is at %s is called %s", (path, name) => {
  expect(archiveName(path)).toBe(name);
});

/** A container that sleeps after `script`. Its files on the host: `upper`. */
async function box(script = "true", overrides: ContainerOverrides = {}) {
  const id = `box-${++count}`;
  const { hostOps, membership } = cgroups.plan(id, {});
  const plan = await containers.plan(["sh", "-c", `${script}\necho up; exec sleep 1000`], {
    cgroup: { hostOps, membership },
    ...overrides,
  });
  const supervisor = await containers.start(plan);
  await eventually(async () => expect((await readLog(plan)).join()).toContain("up"));
  return {
    ...{ id, plan, supervisor, membership },
    upper: join(plan.stateDirectory, "../upper"),
    async [Symbol.asyncDispose]() {
      await end(supervisor);
      await cgroups.remove(id, NEVER);
    },
  };
}

type Box = Awaited<ReturnType<typeof box>>;

async function end(supervisor: Supervisor): Promise<void> {
  await supervisor.signal({ number: 9, all: true }, NEVER).catch(() => undefined);
  await supervisor.ended;
  await supervisor[Symbol.asyncDispose]();
}

async function start(it: Box, op: CopyInOp | CopyOutOp): Promise<SessionProcess> {
  const { pid } = await it.supervisor.state(NEVER);
  const ops = planCopy(testProcess(["true"]), op);
  const streams = { input: op.op === "copy-in", terminal: false, detached: false };
  const options = { shimPath: buildShim(), pid, cgroup: it.membership, ops, ...streams, confirm: async () => {} };
  const session = await SessionProcess.start(options, NEVER);
  if (session.kind === "refused") throw new Error(session.reason);
  return session;
}

/** A socket that somebody listens on. */
async function socketAt(path: string): Promise<AsyncDisposable> {
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, "close");
    },
  };
}

interface Copied {
  readonly entries: ReadonlyMap<string, TarEntry & { readonly content: Buffer }>;
  readonly warnings: readonly string[];
  readonly tar: Buffer;
}

/** What is at `path`, unpacked again. */
async function from(it: Box, path: string, followLink = false): Promise<Copied> {
  const op = copyOutOp({ path, followLink });
  await using session = await start(it, op);
  const parts: Buffer[] = [];
  const warnings: string[] = [];
  for await (const part of copyOut(op, session.output(NEVER))) {
    if (part.kind === "data") {
      expect(part.bytes.length).toBeLessThanOrEqual(64 * 1024);
      parts.push(Buffer.from(part.bytes));
    } else if (part.kind === "warning") warnings.push(part.text);
  }
  const tar = Buffer.concat(parts);
  return { entries: unpacked(tar), warnings, tar };
}

function unpacked(tar: Buffer): Copied["entries"] {
  const parser = new TarParser();
  const entries = new Map<string, TarEntry & { content: Buffer }>();
  let last = "";
  for (const event of parser.push(tar)) {
    if (event.event === "entry") {
      last = event.entry.path;
      expect(entries.has(last)).toBe(false);
      entries.set(last, { ...event.entry, content: Buffer.alloc(0) });
    } else {
      const entry = entries.get(last);
      if (entry) entry.content = Buffer.concat([entry.content, event.bytes]);
    }
  }
  parser.finish();
  return entries;
}

/** Copies a tar into `path`; answers the warnings. */
async function into(it: Box, path: string, items: readonly TarItem[] | Buffer, keepOwners = false) {
  await using session = await start(it, { op: "copy-in" });
  const copy = new CopyIn(session, NEVER);
  await copy.enter(path, NEVER);
  const tar = Buffer.isBuffer(items) ? items : writeTar(items);
  async function* pieces() {
    for (let at = 0; at < tar.length; at += 10_000) yield tar.subarray(at, at + 10_000);
  }
  return await copy.receive(pieces(), { keepOwners }, NEVER);
}

async function sh(it: Box, script: string): Promise<string> {
  const pid = (await it.supervisor.state(NEVER)).pid;
  return execFileSync("nsenter", ["-t", String(pid), "-m", "-r", "-w", "/bin/sh", "-c", script], { encoding: "utf8" });
}

const names = ({ entries }: Copied) => [...entries.keys()].sort();

describe("out of a container", () => {
  rootTest("a file, a tree, a link, as they are", async () => {
    await using it = await box(
      "mkdir -p /d/sub /d/empty; echo hello > /d/file; chmod 4755 /d/file; echo x > /d/sub/x; ln -s ../d/file /d/link; ln /d/file /d/again; chmod 1777 /d/sub; ln -s d /linked",
    );
    const tree = await from(it, "/d");
    expect(names(tree)).toEqual(["d/", "d/again", "d/empty/", "d/file", "d/link", "d/sub/", "d/sub/x"]);
    const at = (name: string) => tree.entries.get(name);
    const links = [at("d/file"), at("d/again")];
    expect(links.map((each) => each?.kind).sort()).toEqual(["file", "hardlink"]);
    expect(links.find((each) => each?.kind === "file")?.content.toString()).toBe("hello\n");
    expect(links.find((each) => each?.kind === "hardlink")?.link).toMatch(/^d\/(file|again)$/);
    expect(at("d/file")?.mode).toBe(0o4755);
    expect(at("d/sub/")?.mode).toBe(0o1777);
    expect(at("d/link")).toMatchObject({ kind: "symlink", link: "../d/file" });
    expect(names(await from(it, "/d/file"))).toEqual(["file"]);
    expect(names(await from(it, "d/sub/."))).toEqual(["./", "./x"]);
    // A link is copied as one, unless it is to be followed, by word or by a slash.
    expect((await from(it, "/linked")).entries.get("linked")).toMatchObject({ kind: "symlink", link: "d" });
    expect(names(await from(it, "/linked", true))).toContain("linked/sub/x");
    expect(names(await from(it, "/linked/"))).toContain("linked/sub/x");
    expect(names(await from(it, "/linked/."))).toContain("./sub/x");
  });

  rootTest("long names, names that are no text, large and sparse files", async () => {
    const long = Array.from({ length: 20 }, (_, index) => `${String(index).padStart(2, "0")}${"n".repeat(48)}`).join(
      "/",
    );
    await using it = await box(
      `mkdir -p "/t/${long}"; echo deep > "/t/${long}/f"; echo odd > "$(printf '/t/caf\\351')"`,
    );
    execFileSync("truncate", ["-s", "5M", join(it.upper, "t/sparse")]);
    writeFileSync(join(it.upper, "t/large"), Buffer.alloc(3_000_001, "ab"));
    const tree = await from(it, "/t");
    expect(tree.entries.get(`t/${long}/f`)?.content.toString()).toBe("deep\n");
    expect(tree.entries.get("t/caf\u00e9")?.content.toString()).toBe("odd\n");
    expect(tree.entries.get("t/large")?.content.equals(Buffer.alloc(3_000_001, "ab"))).toBe(true);
    expect(tree.entries.get("t/sparse")?.content.equals(Buffer.alloc(5 << 20))).toBe(true);
  });

  rootTest("what has no size has one: /proc and /sys; but not as part of a larger tree", async () => {
    await using it = await box("mkdir -p /dev/pts");
    expect((await from(it, "/proc/1/status")).entries.get("status")?.content.toString()).toContain("Name:\tsleep");
    const root = await from(it, "/");
    expect(root.entries.has("./proc/")).toBe(true);
    expect(names(root).filter((name) => /^\.\/(proc|sys)\/./.test(name))).toEqual([]);
    expect(root.entries.get("./dev/null")).toMatchObject({ kind: "character", deviceMajor: 1, deviceMinor: 3 });
    expect(root.entries.get("./bin/busybox")?.content.length).toBeGreaterThan(500_000);
  });

  rootTest("nothing hangs, and no device is opened: pipes, sockets, devices", async () => {
    await using it = await box("mkdir /t; echo x > /t/x");
    execFileSync("mkfifo", [join(it.upper, "t/pipe")]);
    execFileSync("mknod", [join(it.upper, "t/disk"), "b", "8", "0"]);
    await using _ = await socketAt(join(it.upper, "t/sock"));
    const tree = await from(it, "/t");
    expect(names(tree)).toEqual(["t/", "t/disk", "t/pipe", "t/x"]);
    expect(tree.entries.get("t/pipe")?.kind).toBe("fifo");
    expect(tree.entries.get("t/disk")).toMatchObject({ kind: "block", deviceMajor: 8, content: Buffer.alloc(0) });
    expect(tree.warnings).toEqual(["/t/sock: a socket, left out"]);
  });

  rootTest("no link leads out: absolute ones, dots, and magic ones of the host's processes", async () => {
    await using it = await box(
      "ln -s /etc /abs; ln -s ../../../../../../etc /dots; mkdir /etc; echo inside > /etc/passwd",
    );
    for (const link of ["/abs", "/dots"]) {
      expect((await from(it, `${link}/passwd`)).entries.get("passwd")?.content.toString()).toBe("inside\n");
    }
    for (const path of ["/proc/1/root/etc/passwd", "/proc/1/cwd/etc/passwd", "/proc/self/exe"]) {
      await expect(from(it, path, true)).rejects.toMatchObject({
        message: expect.stringMatching(/in the way|could not find|permission denied/),
      });
    }
    await expect(from(it, "/nonesuch")).rejects.toMatchObject({
      code: "not_found",
      message: "could not find the file /nonesuch in the task",
    });
    await expect(from(it, "/etc/passwd/")).rejects.toMatchObject({ message: /^\/etc\/passwd: .*ENOTDIR/ });
  });

  rootTest("a tree that is changed all the time is copied to its end, and never left", async () => {
    const churn = `mkdir -p /t/a /secret; i=0
      (while true; do mv /t/a /t/b; ln -s /secret /t/a; rm /t/a; mv /t/b /t/a; : > /t/a/f; rm /t/a/f; done) > /dev/null 2>&1 &`;
    await using it = await box(churn, { lowers: [await layerWithMv()] });
    writeFileSync(join(it.upper, "secret/s"), "s");
    for (let round = 0; round < 30; round++) {
      const tree = await from(it, "/t").catch((reason: Error) => reason);
      if (tree instanceof Error) expect(tree.message).toMatch(/could not find/);
      else expect(names(tree).filter((name) => name.endsWith("/s"))).toEqual([]);
    }
  });
});

/** busybox's `mv`, which the usual test root lacks. */
async function layerWithMv(): Promise<HostPath> {
  const layer = join(containers.directory, "mv-layer");
  if (!existsSync(layer)) {
    mkdirSync(join(layer, "bin"), { recursive: true });
    for (const applet of ["mv", "stat", "find", "mknod"]) symlinkSync("busybox", join(layer, "bin", applet));
  }
  return layer as HostPath;
}

describe("into a container", () => {
  rootTest("a tree, with its modes and times, root's unless owners are kept", async () => {
    await using it = await box("mkdir /d; echo old > /d/there; mkdir /d/kept; echo k > /d/kept/k", {
      lowers: [await layerWithMv()],
    });
    const items = [
      { ...directory("t", 0o750), mtimeSeconds: 1_000_000_000 },
      { ...file("t/file", "hello", 0o640), uid: 1000, gid: 1001, mtimeSeconds: 1_100_000_000 },
      { ...file("t/suid", "s", 0o4755), uid: 1000 },
      symlink("../there", "t/link"),
      hardlink("t/file", "t/again", 0o640),
      file("there", "new"),
      directory("kept", 0o700),
      file("made/of/it", "m"),
    ];
    expect(await into(it, "/d", items)).toEqual([]);
    const stat = (path: string) => sh(it, `stat -c '%a %u:%g %Y %F' /d/${path}`);
    expect(await stat("t")).toBe("750 0:0 1000000000 directory\n");
    expect(await stat("t/file")).toBe("640 0:0 1100000000 regular file\n");
    // A file that is root's now must not run as root for everybody.
    expect(await stat("t/suid")).toMatch(/^755 0:0/);
    expect(
      await sh(it, "cat /d/there /d/t/again /d/t/link /d/made/of/it; stat -c %a /d/made /d/kept; cat /d/kept/k"),
    ).toBe("newhellonewm755\n700\nk\n");
    await into(it, "/d", items, true);
    expect(await stat("t/file")).toBe("640 1000:1001 1100000000 regular file\n");
    expect(await stat("t/suid")).toMatch(/^4755 1000:0/);
  });

  rootTest("a directory and something else do not take each other's place", async () => {
    await using it = await box("mkdir -p /d/dir/full; echo f > /d/file; ln -s dir /d/link");
    await expect(into(it, "/d", [file("dir", "x")])).rejects.toMatchObject({
      message: "/d/dir: cannot overwrite directory with non-directory (EISDIR)",
    });
    for (const name of ["file", "link"]) {
      await expect(into(it, "/d", [directory(name)])).rejects.toMatchObject({
        message: `/d/${name}: cannot overwrite non-directory with directory (ENOTDIR)`,
      });
    }
    await into(it, "/d", [file("link", "over the link")]);
    expect(await sh(it, "cat /d/link; ls /d/dir")).toBe("over the linkfull\n");
    await expect(into(it, "/d/file", [file("x", "x")])).rejects.toMatchObject({ message: /^\/d\/file: .*ENOTDIR/ });
    await expect(into(it, "/none", [file("x", "x")])).rejects.toMatchObject({
      code: "not_found",
      message: "could not find the directory /none in the task",
    });
  });

  rootTest("no name and no link leads out of the directory that was meant", async () => {
    await using it = await box("mkdir -p /d /etc; echo root > /etc/passwd; ln -s /etc /d/etc; ln -s . /d/here");
    for (const [name, message] of [
      ["etc/passwd", /^\/d\/etc\/passwd: a symbolic link is in the way/],
      ["here/etc/passwd", /a symbolic link is in the way/],
    ] as const) {
      await expect(into(it, "/d", [file(name, "evil")])).rejects.toMatchObject({ message });
    }
    await into(it, "/d", [file("../../../x", "x"), file("/abs", "y")]);
    expect(await sh(it, "cat /d/x /d/abs /etc/passwd; ls /")).toMatch(/^xyroot\n/);
    expect(await sh(it, "ls /")).not.toMatch(/^(x|abs)$/m);
    // A link that the archive brought itself is not followed either.
    await expect(into(it, "/d", [symlink("/etc", "l"), file("l/passwd", "evil")])).rejects.toMatchObject({
      message: /a symbolic link is in the way/,
    });
    await expect(into(it, "/d", [hardlink("../../etc/passwd", "h")])).rejects.toMatchObject({
      message: /ENOENT|in the way/,
    });
    expect(await sh(it, "cat /etc/passwd")).toBe("root\n");
    await expect(into(it, "/proc/1/root/tmp", [file("x", "x")])).rejects.toMatchObject({
      message: /in the way|could not find/,
    });
  });

  rootTest("what must not be is refused: devices, damaged archives, names beyond the limits", async () => {
    await using it = await box("mkdir /d");
    await expect(into(it, "/d", [{ path: "null", type: "3", device: [1, 3] }])).rejects.toMatchObject({
      code: "invalid_argument",
      message: 'tar entry "null" is a device node, and none is copied into a task',
    });
    await expect(into(it, "/d", Buffer.from("no tar".repeat(200)))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(into(it, "/d", writeTar([file("f", "x".repeat(2000))]).subarray(0, 1000))).rejects.toMatchObject({
      message: /cut short/,
    });
    await expect(into(it, "/d", [file(`${"a/".repeat(300)}f`, "x")])).rejects.toMatchObject({ message: /too deep/ });
    expect(await into(it, "/d", [{ path: "odd", type: "V" }, file("f", "f"), { path: "p", type: "6" }])).toEqual([
      '"odd": an entry of unknown type "V", left out',
    ]);
    expect(await sh(it, "ls /d")).toBe("f\np\n");
  });

  rootTest("read-only roots and mounts are refused, volumes are not", async () => {
    const volume = join(containers.directory, `volume-${count}`);
    mkdirSync(volume);
    const bind = (destination: string, ...options: string[]) => ({
      ...{ destination, source: volume, type: "bind", options: ["rbind", ...options] },
    });
    await using it = await box("true", {
      spec: { root: { path: "rootfs", readonly: true } },
      mounts: [bind("/dev/rw"), bind("/dev/ro", "ro")],
    });
    await expect(into(it, "/", [file("x", "x")])).rejects.toMatchObject({
      code: "failed_precondition",
      message: "/: container rootfs is marked read-only",
    });
    await expect(into(it, "/dev/ro", [file("x", "x")])).rejects.toMatchObject({
      message: "/dev/ro: mounted volume is marked read-only",
    });
    await into(it, "/dev/rw", [file("x", "into the volume")]);
    expect(readFileSync(join(volume, "x"), "utf8")).toBe("into the volume");
    await expect(into(it, "/dev", [directory("ro"), file("ro/x", "x")])).rejects.toMatchObject({
      message: /^\/dev\/ro(\/x)?: read-only file system/,
    });
  });

  rootTest("a sparse file stays one; a limit of the container holds", async () => {
    await using it = await box("mkdir /d");
    const content = Buffer.alloc(8 << 20);
    content.write("end", content.length - 3);
    await into(it, "/d", [file("sparse", content), file("zeros", Buffer.alloc(1 << 20))]);
    const sparse = statSync(join(it.upper, "d/sparse"));
    expect([sparse.size, statSync(join(it.upper, "d/zeros")).size]).toEqual([8 << 20, 1 << 20]);
    expect(sparse.blocks * 512).toBeLessThan(1 << 20);
    expect(readFileSync(join(it.upper, "d/sparse")).equals(content)).toBe(true);
    const { pid } = await it.supervisor.state(NEVER);
    const rlimits = [{ type: "RLIMIT_FSIZE", soft: 1000, hard: 1000 }];
    const ops = planCopy(testProcess(["true"], { rlimits }), { op: "copy-in" });
    const streams = { input: true, terminal: false, detached: false, confirm: async () => {} };
    await using session = (await SessionProcess.start(
      { shimPath: buildShim(), pid, cgroup: it.membership, ops, ...streams },
      NEVER,
    )) as SessionProcess;
    const copy = new CopyIn(session, NEVER);
    await copy.enter("/d", NEVER);
    async function* tar() {
      yield writeTar([file("big", "x".repeat(5000))]);
    }
    await expect(copy.receive(tar(), { keepOwners: false }, NEVER)).rejects.toMatchObject({
      code: "resource_exhausted",
      message: expect.stringContaining("/d/big: file too large (EFBIG)"),
    });
  });

  rootTest("a container that swaps directories for links is written to nowhere else", async () => {
    const churn = `mkdir -p /d /etc; echo root > /etc/victim
      (while true; do rm -r /d/x; ln -s /etc /d/x; rm /d/x; mkdir /d/x; done) > /dev/null 2>&1 &`;
    await using it = await box(churn);
    for (let round = 0; round < 60; round++) {
      await into(it, "/d", [directory("x"), file("x/victim", "evil"), file("x/new", "evil")]).catch(() => {});
    }
    expect(await sh(it, "cat /etc/victim; ls /etc")).toBe("root\nvictim\n");
  });
});

describe("an end", () => {
  rootTest("a copy that is left leaves no process", async () => {
    await using it = await box("mkdir /d");
    writeFileSync(join(it.upper, "d/large"), Buffer.alloc(64 << 20));
    const before = await cgroups.processes(it.id);
    const op = copyOutOp({ path: "/d", followLink: false });
    const session = await start(it, op);
    for await (const { kind } of copyOut(op, session.output(NEVER))) if (kind === "data") break;
    await session[Symbol.asyncDispose]();
    await eventually(async () => expect(await cgroups.processes(it.id)).toEqual(before));
    const incoming = await start(it, { op: "copy-in" });
    const copy = new CopyIn(incoming, NEVER);
    await copy.enter("/d", NEVER);
    expect((await cgroups.processes(it.id)).length).toBe(before.length + 1);
    await incoming[Symbol.asyncDispose]();
    await eventually(async () => expect(await cgroups.processes(it.id)).toEqual(before));
  });

  rootTest("the container's end is told, in either direction", async () => {
    const it = await box("mkdir /d");
    writeFileSync(join(it.upper, "d/large"), Buffer.alloc(64 << 20));
    const op = copyOutOp({ path: "/d", followLink: false });
    await using out = await start(it, op);
    await using incoming = await start(it, { op: "copy-in" });
    const copy = new CopyIn(incoming, NEVER);
    await copy.enter("/d", NEVER);
    const reading = copyOut(op, out.output(NEVER));
    await reading.next();
    await it[Symbol.asyncDispose]();
    const drain = async () => {
      for await (const _ of reading);
    };
    await expect(drain()).rejects.toMatchObject({ code: "unavailable", message: /container may have ended/ });
    async function* tar() {
      yield writeTar([file("x", "x")]);
    }
    await expect(copy.receive(tar(), { keepOwners: false }, NEVER)).rejects.toMatchObject({ code: "unavailable" });
  });

  rootTest("nothing of the copying is seen in the container", async () => {
    await using it = await box("mkdir /d");
    await using session = await start(it, { op: "copy-in" });
    await new CopyIn(session, NEVER).enter("/d", NEVER);
    const pid = (await it.supervisor.state(NEVER)).pid;
    const inside = execFileSync("nsenter", ["-t", String(pid), "-m", "-p", "-r", "/bin/sh", "-c", "echo /proc/[0-9]*"]);
    expect(inside.toString()).toMatch(/^\/proc\/1 \/proc\/\d+\n$/);
    const helper = (await cgroups.processes(it.id)).find((each) => each !== pid);
    const status = readFileSync(`/proc/${helper}/status`, "utf8");
    expect(status).toMatch(/CapEff:\t000000000000001b\n/);
    expect(status).toMatch(/NoNewPrivs:\t1/);
    expect(readdirSync(`/proc/${helper}/fd`).length).toBeLessThan(10);
  });
});
