/**
 * Style is a test. Goal: the house rules that a reviewer would otherwise repeat hold for every file. Method: read the
 * tracked sources as text (the formatter makes their shape predictable) and list what breaks a rule, by place.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, test } from "vitest";

const ROOT = new URL("..", import.meta.url).pathname;
const FILE_LINES_MAX = 500;
const FUNCTION_LINES_MAX = 70;
const SHIM_LINES_MAX = 1_620;
const UNPACK_LINES_MAX = 400;
const SESSION_LINES_MAX = 200;
const VOLUME_LINES_MAX = 160;
const COPY_LINES_MAX = 240;

interface Source {
  readonly path: string;
  readonly lines: readonly string[];
  readonly text: string;
}

/** Tracked files and new ones that are not ignored, by extension. */
function sources(...extensions: readonly string[]): Source[] {
  const output = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  return output
    .split("\n")
    .filter((path) => extensions.some((extension) => path.endsWith(extension)))
    .filter((path) => !path.startsWith("proto/gen/") && existsSync(join(ROOT, path)))
    .map((path) => {
      const text = readFileSync(join(ROOT, path), "utf8");
      return { path, text, lines: text.split("\n") };
    });
}

const typescript = sources(".ts");
const product = typescript.filter(({ path }) => !/^test\/|\.test\.ts$|\/test-[^/]+\.ts$/.test(path));

/** `path:line` of every line of `files` that matches. */
function places(files: readonly Source[], pattern: RegExp): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
}

/** The folders a folder may import from; a folder may always import from itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "common/base": [],
  "common/model": ["common/base", "proto/gen"],
  "common/pki": ["common/base"],
  "common/rpc": ["common/base", "common/model", "common/pki", "proto/gen"],
  "common/registry": ["common/base", "common/model", "proto/gen"],
  manager: ["common/base", "common/model", "common/pki", "common/registry", "common/rpc", "proto/gen"],
  agent: ["common/base", "common/model", "common/pki", "common/registry", "common/rpc", "proto/gen"],
  cli: ["common/base", "common/model", "common/pki", "common/rpc", "proto/gen"],
};

/** The loops of the manager, which meet in the store and never call one another. */
const LOOPS = ["orchestrator", "allocator", "scheduler", "dispatcher", "node-monitor", "reaper", "stacks"];

function roomOf(path: string): string {
  return Object.keys(MAY_IMPORT).find((room) => path.startsWith(`${room}/`)) ?? path.split("/").slice(0, 2).join("/");
}

function imports({ path, text }: Source): { readonly target: string; readonly external: boolean }[] {
  const found = [...text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map(([, specifier = ""]) => specifier);
  return found.map((specifier) =>
    specifier.startsWith(".")
      ? { target: normalize(join(dirname(path), specifier)), external: false }
      : { target: specifier, external: true },
  );
}

describe("layers", () => {
  test("imports point one way", () => {
    const wrong = product.flatMap((source) => {
      const room = roomOf(source.path);
      const allowed = MAY_IMPORT[room];
      if (!allowed) return [];
      return imports(source)
        .filter(({ external, target }) => !external && !target.startsWith(`${room}/`))
        .filter(({ target }) => !allowed.some((each) => target.startsWith(`${each}/`)))
        .map(({ target }) => `${source.path} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test("the manager's loops do not import one another", () => {
    const wrong = product.flatMap((source) => {
      const loop = LOOPS.find((each) => source.path.startsWith(`manager/${each}/`));
      if (!loop) return [];
      return imports(source)
        .filter(({ target }) => LOOPS.some((each) => each !== loop && target.startsWith(`manager/${each}/`)))
        .map(({ target }) => `${source.path} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test.each([
    ["etcd3", /^etcd3/, /^manager\/store\//],
    ["grpc-js", /^@grpc\/grpc-js/, /^common\/rpc\//],
    ["@peculiar/x509", /^(@peculiar\/|reflect-metadata)/, /^common\/pki\/x509\.ts$/],
    ["yaml", /^yaml$/, /^cli\/stack\/read-yaml\.ts$/],
    ["pino", /^pino/, /^common\/base\/logger\.ts$/],
    [
      "child_process",
      /^node:child_process/,
      /^(manager\/store\/embedded-etcd|agent\/runtime\/(runner|session-process)|agent\/image\/|agent\/network\/rule-loader|agent\/network-probe|cli\/terminal|cli\/check\/trial|deploy\/)/,
    ],
  ])("%s has one door", (_, specifier, door) => {
    const wrong = product.filter(
      (source) => !door.test(source.path) && imports(source).some(({ target }) => specifier.test(target)),
    );
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

describe("words", () => {
  test("time and chance come through their doors", () => {
    const files = product.filter(({ path }) => !/^common\/base\/(clock|random)\.ts$|^deploy\//.test(path));
    const banned =
      /\bDate\.now\(|\bnew Date\(\)|\bsetTimeout\(|\bsetInterval\(|\bMath\.random\(|\bperformance\.now\(|\btimestampNow\(|\brandomBytes\(|\bcrypto\.randomUUID\(/;
    expect(places(files, banned)).toEqual([]);
  });

  test("no any, no non-null assertion, no enum, no default export, no EventEmitter", () => {
    expect(places(product, /[:<(]\s*any\b|\bas any\b/)).toEqual([]);
    expect(places(product, /^\s*(export\s+)?(const\s+)?enum\s|^export default|\bextends EventEmitter\b/)).toEqual([]);
  });

  test("no loose ends", () => {
    const files = [...typescript, ...sources(".c", ".h", ".md", ".sh")].filter(
      ({ path }) => path !== "test/tidy.test.ts",
    );
    expect(places(files, /\b(TODO|FIXME|XXX|HACK)\b/)).toEqual([]);
    expect(places(files, /\b(it|test|describe)\.(only|todo|skip)\(/)).toEqual([]);
  });

  test("no test waits by sleeping", () => {
    const tests = typescript.filter(({ path }) => path.endsWith(".test.ts") && path !== "test/tidy.test.ts");
    expect(places(tests, /await (sleep|delay|pause)\(|await new Promise\(\(?\w*\)? => setTimeout/)).toEqual([]);
  });

  test("file names are kebab-case", () => {
    const wrong = typescript.filter(
      ({ path }) => !/^([a-z0-9.-]+\/)*[a-z0-9-]+(\.[a-z]+)*\.ts$/.test(path.replace(/^\./, "")),
    );
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

describe("size", () => {
  test(`files have at most ${FILE_LINES_MAX} lines`, () => {
    const long = [...product, ...sources(".c")].filter(({ lines }) => lines.length > FILE_LINES_MAX);
    expect(long.map(({ path, lines }) => `${path}: ${lines.length}`)).toEqual([]);
  });

  test(`functions have at most ${FUNCTION_LINES_MAX} lines`, () => {
    expect(product.flatMap(longFunctions)).toEqual([]);
  });

  // What runs beside every container; the others run for a moment, or beside one command.
  test.each([
    ["runner and supervisor", (path: string) => !/\/(unpack|session|volume|copy)\./.test(path), SHIM_LINES_MAX],
    ["session", (path: string) => path.includes("/session."), SESSION_LINES_MAX],
    ["volumes", (path: string) => path.includes("/volume."), VOLUME_LINES_MAX],
    ["copier", (path: string) => path.includes("/copy."), COPY_LINES_MAX],
    ["unpacker", (path: string) => path.includes("/unpack."), UNPACK_LINES_MAX],
  ])("the shim's %s stays small: lines of code, without comments", (_, includes, linesMax) => {
    const files = sources(".c", ".h").filter(({ path }) => path.startsWith("agent/shim/") && includes(path));
    const code = files.flatMap(({ text }) => text.replaceAll(/\/\*[\s\S]*?\*\//g, "").split("\n"));
    expect(code.filter((line) => line.trim() !== "" && !line.trim().startsWith("//")).length).toBeLessThan(linesMax);
  });
});

/** Functions whose closing brace is too far from their head; the formatter puts both at the same indent. */
function longFunctions({ path, lines }: Source): string[] {
  const head = /^(\s*)(export )?(async )?function\b|^(\s+)(static |async |override |private )*[#\w[\].*]+\(.*\).*\{$/;
  const found: string[] = [];
  lines.forEach((line, index) => {
    if (!head.test(line) || /^\s*(if|for|while|switch|catch|return|await|else)\b/.test(line)) return;
    const indent = /^\s*/.exec(line)?.[0] ?? "";
    const end = lines.findIndex((each, at) => at > index && each.startsWith(`${indent}}`));
    if (end - index + 1 > FUNCTION_LINES_MAX) found.push(`${path}:${index + 1}: ${end - index + 1} lines`);
  });
  return found;
}

test("every folder says what it owns", () => {
  const folders = new Set(
    product.map(({ path }) => dirname(path)).filter((folder) => folder.split("/").length <= 2 && folder !== "."),
  );
  const silent = [...folders, "agent/shim", "proto", "test"].filter(
    (folder) => !existsSync(join(ROOT, folder, "README.md")),
  );
  expect(silent.toSorted()).toEqual([]);
});
