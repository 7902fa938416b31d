/** A service's `env_file`s and `environment` as one map, as docker/cli does when it loads a service (resolveEnvironment). */
import { parseEnvFile } from "../flags/env-file.ts";
import { parseDotenv } from "./env-file.ts";
import type { Findings } from "./findings.ts";
import { absolutePath } from "./normalise.ts";
import { readText, type StackReader } from "./reader.ts";
import { lookupIn } from "./substitute.ts";
import {
  child,
  type Entry,
  flagOf,
  isNull,
  itemsOf,
  list,
  type MapNode,
  scalar,
  type Tree,
  textOf,
  under,
  withEntry,
} from "./tree.ts";

/** What reading variables stands on. */
export interface EnvironmentContext {
  readonly findings: Findings;
  readonly reader: StackReader;
  /** The caller's variables. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly directory: string;
  /** The folder of the first file. */
  readonly root: string;
  readonly home: string;
}

/** `service` with every variable that its files and the caller give it. */
export function resolveEnvironment(service: MapNode, path: string, context: EnvironmentContext): MapNode {
  const own = child(service, "environment");
  const files = itemsOf(child(service, "env_file"));
  if (own?.tag === "reset" || (own === undefined && files.length === 0)) return service;
  const entries = new Map<string, Entry>();
  files.forEach((file, index) => {
    for (const [name, value] of readVariables(file, `${under(path, "env_file")}[${index}]`, context)) {
      entries.set(name, { key: file.place, value: scalar(value, file.place) });
    }
  });
  for (const [name, entry] of own?.kind === "map" ? own.entries : []) {
    const inherited = isNull(entry.value) ? lookupIn(context.variables)(name) : undefined;
    if (inherited !== undefined) entries.set(name, { ...entry, value: scalar(inherited, entry.value.place) });
    // Docker takes the value of an env_file away here.
    else if (!isNull(entry.value) || !entries.has(name)) entries.set(name, entry);
  }
  const tag = own?.tag === undefined ? {} : { tag: own.tag };
  const moved =
    context.directory === context.root || files.length === 0
      ? service
      : withEntry(service, "env_file", absolute(files, service, context));
  return withEntry(moved, "environment", { kind: "map", entries, place: own?.place ?? service.place, ...tag });
}

/** The files by paths that mean the same in the folder of the first file: what is printed is read from there. */
function absolute(files: readonly Tree[], service: MapNode, context: EnvironmentContext): Tree {
  const made = files.map((file) => {
    const path = file.kind === "map" ? child(file, "path") : file;
    if (path === undefined) return file;
    const whole = scalar(absolutePath(textOf(path) ?? "", context), path.place);
    return file.kind === "map" ? withEntry(file, "path", whole) : whole;
  });
  return list(made, service.place);
}

function readVariables(file: Tree, path: string, context: EnvironmentContext): ReadonlyMap<string, string> {
  const name = textOf(child(file, "path")) ?? textOf(file) ?? "";
  const absolute = absolutePath(name, context);
  const refuse = (problem: string) => {
    context.findings.problem(file.place, path, `${name}: ${problem}`);
    return new Map<string, string>();
  };
  if (flagOf(child(file, "required")) === false && !context.reader.exists(absolute)) return new Map();
  const content = readText(context.reader, absolute);
  if (!content.ok) return refuse(content.problem);
  // A path alone is read as `docker stack deploy` reads it: quotes are part of the value. The long form is compose's.
  if (file.kind === "map" && textOf(child(file, "format")) !== "raw") {
    const parsed = parseDotenv(content.value, lookupIn(context.variables));
    return parsed.ok ? parsed.value : refuse(parsed.problem);
  }
  const parsed = parseEnvFile(content.value, context.variables);
  if (!parsed.ok) return refuse(parsed.problem);
  return new Map(
    parsed.value.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const),
  );
}
