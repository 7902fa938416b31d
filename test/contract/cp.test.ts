/**
 * Goal: `task cp` copies either way as `docker cp` does: the same places, the same words. Method: commands whole, over a control
 * plane whose tasks have a folder for their files, packed and unpacked by GNU tar.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { TarParser } from "../../common/model/tar.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl, type SwarmctlOptions } from "../swarmctl.ts";
import { directory, file, writeTar } from "../tar.ts";

let plane: ControlPlane;
const folder = mkdtempSync(join(tmpdir(), "cp-test-"));
const here = (...names: string[]) => join(folder, "here", ...names);
const there = (...names: string[]) => join(plane.files, ...names);
const swarmctl = (argv: readonly string[], options: SwarmctlOptions = {}) =>
  runSwarmctl(argv, { ...options, environment: { SWARM_HOST: plane.host } });
const cp = (...argv: readonly string[]) => swarmctl(["task", "cp", ...argv]);

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  await swarmctl(["service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2", "demo/web:1"]);
  await swarmctl([
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--restart-condition",
    "none",
    "--name",
    "once",
    "demo/oneshot:1",
  ]);
  expect(await swarmctl(["wait", "service", "web", "--for", "converged", "--timeout", "20s"])).toMatchObject({
    code: 0,
  });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** In the task: /f, /odd, /big, /t/a, /t/sub/b, /link to t, /flink to f, /dangling to /t/new. Here: f, t/x, t/sub/y. */
beforeEach(() => {
  for (const each of [here(), plane.files]) {
    rmSync(each, { recursive: true, force: true });
    mkdirSync(each);
  }
  for (const each of [there("t/sub"), here("t/sub"), here("dir")]) mkdirSync(each, { recursive: true });
  for (const [path, text] of [
    [there("f"), "f of the task\n"],
    [there("odd"), "odd"],
    [there("t/a"), "a"],
    [there("t/sub/b"), "b"],
    [here("f"), "f of this machine\n"],
    [here("t/x"), "x"],
    [here("t/sub/y"), "y"],
  ] as const) {
    writeFileSync(path, text);
  }
  symlinkSync("t", there("link"));
  symlinkSync("f", there("flink"));
  symlinkSync("/t/new", there("dangling"));
  symlinkSync("t", here("link"));
});

/** Paths below a folder, directories with a slash. */
function tree(root: string, below = ""): string[] {
  return readdirSync(join(root, below), { withFileTypes: true })
    .flatMap((each) => {
      const path = below === "" ? each.name : `${below}/${each.name}`;
      return each.isDirectory() ? [`${path}/`, ...tree(root, path)] : [each.isSymbolicLink() ? `${path}@` : path];
    })
    .sort();
}

test("Ctrl-C ends a copy whose producer has gone silent in the middle", async () => {
  const interrupt = new AbortController();
  const stdin = new PassThrough();
  const ending = swarmctl(["task", "cp", "-", "web.1:/t"], { stdin, signal: interrupt.signal });
  // The archive's first file is on its way into the task: the copy is under way, and waits for what never comes.
  const archive = writeTar([file("early", "x".repeat(400_000)), file("late", "never whole")]);
  stdin.write(archive.subarray(0, 400_000));
  await eventually(() => expect(existsSync(there("t/early"))).toBe(true));
  interrupt.abort(new SwarmError("canceled", "interrupted"));
  expect((await ending).code).toBe(130);
});

describe("out of a task", () => {
  test.each<[string, string, string[]]>([
    ["web.1:/f", "dir", ["f"]],
    ["web:f", "dir/new", ["new"]],
    ["web.2:/f", "dir/.", ["f"]],
    ["web.1:/t", "dir", ["t/", "t/a", "t/sub/", "t/sub/b"]],
    ["web.1:/t/", "dir", ["t/", "t/a", "t/sub/", "t/sub/b"]],
    ["web.1:/t/.", "dir", ["a", "sub/", "sub/b"]],
    ["web.1:/t", "dir/new", ["new/", "new/a", "new/sub/", "new/sub/b"]],
    ["web.1:/t/.", "dir/new/", ["new/", "new/a", "new/sub/", "new/sub/b"]],
    ["web.1:/link", "dir", ["link@"]],
    ["web.1:/link/", "dir", ["link/", "link/a", "link/sub/", "link/sub/b"]],
  ])("%s to %s", async (from, to, expected) => {
    const result = await cp("-q", from, here(to));
    expect(result).toEqual({ code: 0, out: "", err: "" });
    expect(tree(here("dir"))).toEqual(expected);
  });

  test("a file takes a file's place; -L follows a link", async () => {
    await cp("web.1:/f", here("t/x"));
    expect(readFileSync(here("t/x"), "utf8")).toBe("f of the task\n");
    await cp("-L", "web.1:/flink", here("dir"));
    expect(readFileSync(here("dir/flink"), "utf8")).toBe("f of the task\n");
  });

  test("says what it did in docker cp's words, and keeps quiet with -q", async () => {
    chmodSync(there("f"), 0o640);
    const result = await cp("web.1:/f", `${here("dir")}/`);
    // One block of header, one of content; GNU tar fills a record of 20 blocks.
    expect(result).toEqual({ code: 0, out: "", err: `Successfully copied 10.2kB to ${here("dir")}/\n` });
    expect((statSync(here("dir/f")).mode & 0o777).toString(8)).toBe("640");
    const odd = await cp("-q", "web.1:/odd", here("dir"));
    expect(odd).toEqual({ code: 0, out: "", err: "swarmctl: warning: /odd/\\u001b[2Jsock: a socket, left out\n" });
  });

  test("to standard output is the tar as it is", async () => {
    const { code, out, err } = await swarmctl(["task", "cp", "web.1:/t", "-"], { encoding: "latin1" });
    expect([code, err]).toEqual([0, ""]);
    const names = [...new TarParser().push(Buffer.from(out, "latin1"))].flatMap((event) =>
      event.event === "entry" ? [event.entry.path] : [],
    );
    expect(names.sort()).toEqual(["t/", "t/a", "t/sub/", "t/sub/b"]);
    expect(await swarmctl(["task", "cp", "web.1:/t", "-"], { terminal: true })).toMatchObject({ code: 2 });
  });

  test.each<[string[], number, string | RegExp]>([
    [["web.1:/nonesuch", "dir"], 1, "could not find the file /nonesuch in the task"],
    [["web.1:/t", "f"], 1, "cannot copy a directory to where a file is"],
    [["web.1:/f", "dir/none/"], 1, /^swarmctl: no such directory: .*dir\/none\/\n$/],
    [["web.1:/f", "none/x"], 1, /^swarmctl: invalid output path: directory ".*here\/none" does not exist\n$/],
    [["web.1:/f", "f/"], 1, /f\/: not a directory/],
    [["web.3:/f", "dir"], 1, "no such task: web.3"],
    [["once:/f", "dir"], 1, "service once has no running task"],
    [["web:", "dir"], 2, '"web:" is not TASK:PATH'],
    [["web.1:/f", "web.2:/f"], 2, "copying between tasks is not supported"],
  ])("%j is refused", async ([from = "", to = ""], code, message) => {
    const result = await cp(from, to.includes(":") ? to : here(to));
    expect(result).toMatchObject({ code, out: "" });
    expect(result.err).toMatch(message);
    expect(tree(here("dir"))).toEqual([]);
  });

  test("that breaks in the middle is told, with the node's name", async () => {
    mkdirSync(there("broken"));
    for (let part = 0; part < 10; part++) writeFileSync(there("broken", String(part)), Buffer.alloc(200_000, part + 1));
    const result = await cp("web.1:/broken", here("dir"));
    expect(result).toEqual({ code: 1, out: "", err: "swarmctl: lost node node-1: it broke\n" });
  });
});

describe("into a task", () => {
  test.each<[string, string, string[]]>([
    ["f", "web.1:/t", ["a", "f", "sub/", "sub/b"]],
    ["f", "web.1:t/sub/g", ["a", "sub/", "sub/b", "sub/g"]],
    ["f", "web.1:/t/a", ["a", "sub/", "sub/b"]],
    ["f", "web.1:/link", ["a", "f", "sub/", "sub/b"]],
    ["f", "web.1:/dangling", ["a", "new", "sub/", "sub/b"]],
    ["t", "web.1:/t", ["a", "sub/", "sub/b", "t/", "t/sub/", "t/sub/y", "t/x"]],
    ["t/.", "web.1:/t/", ["a", "sub/", "sub/b", "sub/y", "x"]],
    ["t", "web.1:/t/new", ["a", "new/", "new/sub/", "new/sub/y", "new/x", "sub/", "sub/b"]],
    ["link", "web.1:/t", ["a", "link@", "sub/", "sub/b"]],
    ["link/", "web.1:/t", ["a", "link/", "link/sub/", "link/sub/y", "link/x", "sub/", "sub/b"]],
  ])("%s to %s", async (from, to, expected) => {
    const result = await cp("-q", `${here(from)}${/\/\.?$/.exec(from)?.[0] ?? ""}`, to);
    expect(result).toEqual({ code: 0, out: "", err: "" });
    expect(tree(there("t"))).toEqual(expected);
  });

  test("with -L what a link leads to, by the link's name; --task for a service", async () => {
    await cp("-L", here("link"), "web.1:/t/sub");
    expect(tree(there("t/sub"))).toEqual(["b", "link/", "link/sub/", "link/sub/y", "link/x"]);
    expect(await cp("--task", "2", here("f"), "web:/t")).toMatchObject({ code: 0 });
  });

  test("says what it did in docker cp's words", async () => {
    expect(await cp(here("f"), "web.1:/t")).toEqual({
      code: 0,
      out: "",
      err: "Successfully copied 2.05kB to web.1:/t\n",
    });
    // Where a link leads is where it went.
    expect((await cp(here("f"), "web.1:/link")).err).toBe("Successfully copied 2.05kB to web.1:/t\n");
  });

  test("from standard input an archive, which must go into a directory", async () => {
    const tar = writeTar([directory("in"), file("in/g", "g")]);
    const result = await swarmctl(["task", "cp", "-", "web.1:/t"], { stdin: tar });
    expect(result).toMatchObject({ code: 0, out: "", err: /^Successfully copied 2.5\dkB to web.1:\/t\n$/ });
    expect(readFileSync(there("t/in/g"), "utf8")).toBe("g");
    for (const to of ["web.1:/f", "web.1:/none"]) {
      expect(await swarmctl(["task", "cp", "-", to], { stdin: tar })).toMatchObject({
        code: 1,
        err: `swarmctl: destination ${to} must be a directory\n`,
      });
    }
  });

  test.each<[string[], number, string | RegExp]>([
    [["t", "web.1:/f"], 1, "cannot copy a directory to where a file is"],
    [["f", "web.1:/t/none/"], 1, "no such directory: /t/none/"],
    [["f", "web.1:/none/x"], 1, "could not find the directory /none in the task"],
    [["f", "web.1:/readonly/x"], 1, "/readonly: container rootfs is marked read-only"],
    [["none", "web.1:/t"], 1, /here\/none: ENOENT/],
    [["f/", "web.1:/t"], 1, /here\/f\/: (ENOTDIR|not a directory)/],
  ])("%j is refused", async ([from = "", to = ""], code, message) => {
    const result = await cp(here(from), to);
    expect(result).toMatchObject({ code, out: "" });
    expect(result.err).toMatch(message);
    expect(tree(there("t"))).toEqual(["a", "sub/", "sub/b"]);
  });

  test("a large file arrives whole", async () => {
    execFileSync("sh", ["-c", `head -c 20000000 /dev/urandom > ${here("large")}`]);
    expect((await cp(here("large"), "web.1:/")).err).toContain("Successfully copied 20MB");
    expect(readFileSync(there("large")).equals(readFileSync(here("large")))).toBe(true);
    rmSync(here("large"));
    expect(await cp("-q", "web.1:/large", here())).toMatchObject({ code: 0 });
    expect(readFileSync(there("large")).equals(readFileSync(here("large")))).toBe(true);
  });
});

test.each([
  [["a", "b"], "one side must be TASK:PATH"],
  [["-", "-"], "one side must be TASK:PATH"],
  [["", "web:/x"], "must not be empty"],
  [["web:/x"], '"swarmctl task cp" requires exactly 2 arguments'],
])("%j is a wrong command line", async (words, message) => {
  const result = await cp(...words);
  expect(result).toMatchObject({ code: 2, out: "" });
  expect(result.err).toContain(message);
  expect(existsSync(here("b"))).toBe(false);
});
