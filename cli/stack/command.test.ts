/** `stack config` as it is called, over real files: exit codes, and what goes to which stream. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, expect, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { processIo } from "../io.ts";
import { run } from "../run.ts";

const directory = mkdtempSync(join(tmpdir(), "swarm-stack-"));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Runs the command line; `files` lie in the folder, which stands as DIR in what was printed. */
async function call(args: readonly string[], files: Readonly<Record<string, string>>, stdin = "") {
  mkdirSync(join(directory, "folder"), { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
  const written = { out: "", err: "" };
  const io = {
    ...processIo(),
    out: (text: string) => {
      written.out += text;
    },
    err: (text: string) => {
      written.err += text;
    },
    environment: { HOME: "/root", SET: "set" },
    stdin: Readable.from([Buffer.from(stdin)]),
  };
  const argv = ["stack", "config", ...args.map((arg) => (Object.hasOwn(files, arg) ? join(directory, arg) : arg))];
  const connect = () => Promise.reject(new Error("nothing is connected to"));
  const code = await run(argv, { io, clock: new FakeClock(), signal: new AbortController().signal, connect });
  const shown = (text: string) => text.replaceAll(directory, "DIR");
  return { code, out: shown(written.out), err: shown(written.err) };
}

test("a good file goes to stdout, in either format", async () => {
  const files = { "a.yml": "services: {a: {image: x}}\n" };
  expect(await call(["-c", "a.yml"], files)).toEqual({
    code: 0,
    out: 'version: "3.13"\nservices:\n  a:\n    image: x\n',
    err: "",
  });
  const { out } = await call(["-c", "a.yml", "--format", "json"], files);
  expect(JSON.parse(out)).toEqual({ version: "3.13", services: { a: { image: "x" } } });
});

test("every problem of every file goes to stderr, a line each, and nothing to stdout", async () => {
  const files = { "a.yml": "services: {a: {image: 1}}\n", "b.yml": "services:\n  b: {imag: x}\n" };
  expect(await call(["-c", "a.yml", "-c", "b.yml"], files)).toEqual({
    code: 1,
    out: "",
    err: "DIR/a.yml:1:23: services.a.image: must be a string\nDIR/b.yml:2:7: services.b.imag: Additional property imag is not allowed (did you mean image?)\n",
  });
});

test("stdin is a file, and may be merged with others", async () => {
  const files = { "a.yml": "services: {a: {image: x}}\n" };
  const { code, out } = await call(["-c", "a.yml", "-c", "-", "--format", "json"], files, "services: {a: {user: u}}\n");
  expect([code, JSON.parse(out).services]).toEqual([0, { a: { image: "x", user: "u" } }]);
});

test("warnings go to stderr, and not with --no-warn", async () => {
  const files = { "a.yml": "services: {a: {image: 'x:$NOPE'}}\n" };
  const warning = "warning: DIR/a.yml:1:23: services.a.image: the variable NOPE is not set: taken as empty\n";
  expect(await call(["-c", "a.yml"], files)).toMatchObject({ code: 0, err: warning });
  expect(await call(["-c", "a.yml", "--no-warn"], files)).toMatchObject({ code: 0, err: "" });
});

test.each([
  [["config"], 2, 'swarmctl: "swarmctl stack config" accepts no arguments. Usage: swarmctl stack config [OPTIONS]\n'],
  [[], 2, "swarmctl: Specify a Compose file (with --compose-file)\n"],
  [["-c", "-", "-c", "-"], 2, "swarmctl: stdin can be read once: - stands twice in --compose-file\n"],
  [["-c", "a.yml", "--format", "xml"], 2, 'swarmctl: invalid argument "xml" for --format: yaml or json\n'],
  [["-c", "/nowhere/at/all"], 1, "/nowhere/at/all: no such file or directory\n"],
  [["-c", "/"], 1, "/: illegal operation on a directory\n"],
])("%j ends with %i", async (args, code, err) => {
  expect(await call(args, { "a.yml": "services: {}\n" })).toEqual({ code, out: "", err });
});

test("51: an env_file that is a folder, or 10 MB long", async () => {
  const files = {
    "a.yml": "services: {a: {image: x, env_file: [folder, big.env]}}\n",
    "big.env": "A=1\n".repeat(2_500_000),
  };
  expect(await call(["-c", "a.yml"], files)).toEqual({
    code: 1,
    out: "",
    err: "DIR/a.yml:1:37: services.a.env_file[0]: folder: illegal operation on a directory\nDIR/a.yml:1:45: services.a.env_file[1]: big.env: is 10000000 bytes long; at most 4194304\n",
  });
});

test("49: a bind mount's source is shown as the path that is meant", async () => {
  const files = { "a.yml": 'services: {a: {image: x, volumes: ["../../../../etc:/etc", "./x/../y:/y"]}}\n' };
  const { out } = await call(["-c", "a.yml", "--format", "json"], files);
  expect(JSON.parse(out).services.a.volumes).toEqual([
    { type: "bind", source: "/etc", target: "/etc" },
    { type: "bind", source: "DIR/y", target: "/y" },
  ]);
});
