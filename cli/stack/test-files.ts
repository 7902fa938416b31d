/** Stack files in memory, for tests. */
import { bad, good } from "../../common/model/parsed.ts";
import type { StackSpec } from "../../proto/gen/swarm/v1/control_pb.js";
import { convertStack } from "./convert.ts";
import { formatProblem } from "./findings.ts";
import { type LoadedStack, loadStack } from "./load.ts";
import { type PrintFormat, printStack } from "./print.ts";
import { type ReadOptions, readStack, readWith } from "./read.ts";
import type { StackReader } from "./reader.ts";

export type Content = string | Uint8Array;
/** Contents by name; "stack.yml" and the like lie in /app. */
export type Files = Readonly<Record<string, Content>>;

const ENVIRONMENT = { HOME: "/root", SET: "set" };

function readerOf(files: Files): StackReader {
  const at = (path: string) => files[path.replace(/^\/app\//, "")];
  return {
    exists: (path) => at(path) !== undefined,
    read(path) {
      const content = at(path);
      if (content === undefined) return bad("no such file or directory");
      return good(typeof content === "string" ? new TextEncoder().encode(content) : content);
    },
  };
}

/** Loads `stack.yml`, and `b.yml` where there is one, as stack "shop". */
export function load(given: Content | Files, more: Partial<ReadOptions> = {}): LoadedStack {
  return loadStack({ ...optionsFor(given), name: "shop", ...more });
}

function optionsFor(given: Content | Files): ReadOptions {
  const files: Files = typeof given === "string" || given instanceof Uint8Array ? { "stack.yml": given } : given;
  const names = ["stack.yml", ...(files["b.yml"] === undefined ? [] : ["b.yml"])];
  return { files: names, environment: ENVIRONMENT, directory: "/app", reader: readerOf(files) };
}

/** What a stack is converted to, whatever the checks of specs say of it. */
export function converted(given: Content | Files): StackSpec {
  const { file, context } = readWith(optionsFor(given));
  if (file === undefined) throw new Error(context.findings.problems.map(formatProblem).join("\n"));
  return convertStack(file, "shop", context).spec;
}

/** What is wrong with a stack, a line each. */
export function problemsOf(given: Content | Files): readonly string[] {
  const loaded = load(given);
  return loaded.ok ? [] : loaded.problems.map(formatProblem);
}

/** What `stack config` prints of it, as JSON. */
export function configOf(given: Content | Files, more: Partial<ReadOptions> = {}): Record<string, unknown> {
  const { version: _, ...rest } = JSON.parse(printed(given, "json", more));
  return rest;
}

/** The same as text. */
export function printed(given: Content | Files, format: PrintFormat, more: Partial<ReadOptions> = {}): string {
  const read = readStack({ ...optionsFor(given), ...more });
  if (!read.ok) throw new Error(read.problems.map(formatProblem).join("\n"));
  return printStack(read.file, format);
}

/** A file with one service that has these lines. */
export function service(...lines: readonly string[]): string {
  return ["services:", "  web:", "    image: demo/web:1", ...lines.map((line) => `    ${line}`), ""].join("\n");
}

/** The same with lines of `deploy`. */
export function deploy(...lines: readonly string[]): string {
  return service("deploy:", ...lines.map((line) => `  ${line}`));
}
