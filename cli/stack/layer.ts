/**
 * One file and what it takes in, up to the tree that the next -c file is merged into:
 * read, interpolate, check and normalise, `extends`, variables of services, `include`.
 */
import { dirname, relative } from "node:path";
import { check } from "./check.ts";
import { parseDotenv } from "./env-file.ts";
import { resolveEnvironment } from "./environment.ts";
import type { Findings } from "./findings.ts";
import { interpolateFile } from "./interpolate.ts";
import { merge } from "./merge.ts";
import { absolutePath } from "./normalise.ts";
import { readYaml } from "./read-yaml.ts";
import { readText, type StackReader } from "./reader.ts";
import { SECTIONS, stackFile } from "./schema.ts";
import { service as serviceRule } from "./schema-service.ts";
import { lookupIn } from "./substitute.ts";
import {
  child,
  type Entry,
  entriesOf,
  itemsOf,
  type MapNode,
  type Tree,
  textOf,
  under,
  withEntries,
  withEntry,
  without,
} from "./tree.ts";

/** What reading a file stands on. */
export interface LayerContext {
  readonly findings: Findings;
  readonly reader: StackReader;
  /** The caller's variables, and under them those of `.env`. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** What relative paths are relative to. */
  readonly directory: string;
  readonly home: string;
  /** The folder of the first file. */
  readonly root: string;
  /** The caller's folder. */
  readonly caller: string;
  readonly skipInterpolation: boolean;
  /** The files that are being read, outermost first: none may take itself in. */
  readonly chain: readonly string[];
}

const FILES_DEEP_MAX = 50;
const VERSIONS = /^3(?:\.(?:\d|1[0-3]))?$/;

/** The file at an absolute path, shown as its user would write it. */
function readLayer(path: string, context: LayerContext): MapNode | undefined {
  const near = relative(context.caller, path);
  const name = near.startsWith("..") ? path : near;
  const bytes = context.reader.read(path);
  if (bytes.ok) return layerOf(bytes.value, name, { ...context, chain: [...context.chain, path] });
  context.findings.file(name, bytes.problem);
  return undefined;
}

/** A file's bytes as a checked tree in long form; undefined when it cannot be used at all. */
export function layerOf(bytes: Uint8Array, name: string, context: LayerContext): MapNode | undefined {
  const raw = readYaml(bytes, name, context.findings);
  if (raw === undefined) return undefined;
  const { findings, directory, home, skipInterpolation } = context;
  const filled = skipInterpolation ? raw : interpolateFile(raw, lookupIn(context.variables), findings);
  const before = findings.problems.length;
  checkVersion(filled, findings);
  const checked = check(filled, stackFile, undefined, { findings, directory, home, uninterpolated: skipInterpolation });
  if (checked.kind !== "map") return undefined;
  if (findings.problems.length > before) {
    // What is wrong with the files that it takes in is told too.
    if (child(checked, "include")?.kind === "list") included(checked, context);
    return undefined;
  }
  const services = child(checked, "services");
  if (services?.kind !== "map") return included(checked, context);
  const inheritance = new Inheritance(services, context);
  const entries = new Map<string, Entry>();
  for (const [key, entry] of services.entries) {
    entries.set(key, { ...entry, value: inheritance.resolved(key, entry.value) });
  }
  return included(withEntry(checked, "services", withEntries(services, entries)), context);
}

function checkVersion(file: MapNode, findings: Findings): void {
  const version = child(file, "version");
  const text = textOf(version);
  if (version === undefined || text === undefined || VERSIONS.test(text)) return;
  findings.problem(
    version.place,
    "version",
    `unsupported Compose file version: ${text.slice(0, 40)} (3.0 to 3.13, or none)`,
  );
}

/** The services of one file with what they extend. */
class Inheritance {
  readonly #services: MapNode;
  readonly #context: LayerContext;
  readonly #done = new Map<string, Tree>();
  readonly #open: string[] = [];
  readonly #files = new Map<string, MapNode | undefined>();

  constructor(services: MapNode, context: LayerContext) {
    this.#services = services;
    this.#context = context;
  }

  resolved(name: string, node: Tree): Tree {
    const done = this.#done.get(name);
    if (done !== undefined) return done;
    if (node.kind !== "map") return node;
    this.#open.push(name);
    const own = resolveEnvironment(without(node, "extends"), under("services", name), this.#context);
    const base = this.#base(name, child(node, "extends"));
    const result = base === undefined ? own : merge(base, own, serviceRule);
    this.#open.pop();
    this.#done.set(name, result);
    return result;
  }

  #base(name: string, extended: Tree | undefined): Tree | undefined {
    if (extended === undefined) return undefined;
    const { findings } = this.#context;
    const path = `${under("services", name)}.extends`;
    const wanted = textOf(child(extended, "service")) ?? "";
    const file = textOf(child(extended, "file"));
    const services = file === undefined ? this.#services : this.#servicesOf(file, extended, path);
    if (services === undefined) return undefined;
    const entry = services.entries.get(wanted);
    if (entry === undefined) {
      findings.problem(
        extended.place,
        path,
        `service ${JSON.stringify(wanted)} is not defined${file === undefined ? "" : ` in ${file}`}`,
      );
      return undefined;
    }
    if (file !== undefined) return entry.value;
    if (this.#open.includes(wanted)) {
      findings.problem(extended.place, path, `circular: ${[...this.#open, wanted].join(" → ")}`);
      return undefined;
    }
    return this.resolved(wanted, entry.value);
  }

  #servicesOf(file: string, extended: Tree, path: string): MapNode | undefined {
    const absolute = absolutePath(file, this.#context);
    if (!this.#files.has(absolute)) {
      const layer = entered(absolute, extended, path, this.#context)
        ? readLayer(absolute, { ...this.#context, directory: dirname(absolute) })
        : undefined;
      this.#files.set(absolute, layer);
    }
    const services = child(this.#files.get(absolute), "services");
    return services?.kind === "map" ? services : undefined;
  }
}

/** Whether `absolute` may be read from here; says so when it would never end. */
function entered(absolute: string, at: Tree, path: string, { chain, findings }: LayerContext): boolean {
  if (!chain.includes(absolute) && chain.length < FILES_DEEP_MAX) return true;
  findings.problem(at.place, path, `circular: ${[...chain, absolute].join(" → ")}`);
  return false;
}

/** `file` with everything that it includes. */
function included(file: MapNode, context: LayerContext): MapNode {
  let result = without(file, "include");
  itemsOf(child(file, "include")).forEach((item, index) => {
    const path = `include[${index}]`;
    const other = includedFile(item, path, context);
    if (other !== undefined) result = joined(result, other, item, path, context);
  });
  return result;
}

function includedFile(item: Tree, path: string, context: LayerContext): MapNode | undefined {
  const single = textOf(item);
  const paths = (single === undefined ? itemsOf(child(item, "path")).map(textOf) : [single]).map((each) =>
    absolutePath(each ?? "", context),
  );
  const own = textOf(child(item, "project_directory"));
  const directory = own === undefined ? dirname(paths[0] ?? "") : absolutePath(own, context);
  const named = itemsOf(child(item, "env_file")).map((each) => absolutePath(textOf(each) ?? "", context));
  const variables = withDotenv(context, directory, named);
  let result: MapNode | undefined;
  for (const each of paths) {
    if (!entered(each, item, path, context)) continue;
    const layer = readLayer(each, { ...context, directory, variables });
    const merged = result === undefined || layer === undefined ? (layer ?? result) : merge(result, layer, stackFile);
    result = merged?.kind === "map" ? merged : result;
  }
  return result;
}

/** The caller's variables over those of the files, or of the folder's `.env`. */
export function withDotenv(
  context: Pick<LayerContext, "reader" | "findings" | "variables">,
  directory: string,
  files: readonly string[] = [],
): Readonly<Record<string, string | undefined>> {
  const { reader, findings } = context;
  const implied = absolutePath(".env", { directory, home: "" });
  const paths = files.length > 0 ? files : reader.exists(implied) ? [implied] : [];
  let variables = context.variables;
  for (const path of paths.toReversed()) {
    const content = readText(reader, path);
    const parsed = content.ok ? parseDotenv(content.value, lookupIn(variables)) : content;
    if (parsed.ok) variables = { ...Object.fromEntries(parsed.value), ...variables };
    else findings.file(path, parsed.problem);
  }
  return variables;
}

/** Puts what an included file has beside what the file has; one name is one thing. */
function joined(file: MapNode, other: MapNode, item: Tree, path: string, { findings }: LayerContext): MapNode {
  let result = file;
  for (const section of SECTIONS) {
    const theirs = child(other, section);
    if (theirs?.kind !== "map") continue;
    const ours = child(result, section);
    const entries = new Map(ours?.kind === "map" ? ours.entries : []);
    for (const [name, value] of entriesOf(theirs)) {
      if (entries.has(name))
        findings.problem(item.place, path, `conflicts with imported resource: ${under(section, name)}`);
      else entries.set(name, { key: value.place, value });
    }
    result = withEntry(result, section, { kind: "map", entries, place: ours?.place ?? theirs.place });
  }
  return result;
}
