/** Stack files → one merged tree. Knows in which order the stages run; converts nothing. */
import { dirname, resolve } from "node:path";
import { Findings, type StackProblem } from "./findings.ts";
import { type LayerContext, layerOf, withDotenv } from "./layer.ts";
import { merge, settle } from "./merge.ts";
import { fileReader, type StackReader } from "./reader.ts";
import { stackFile } from "./schema.ts";
import { child, itemsOf, type MapNode, textOf, withEntries, withEntry } from "./tree.ts";

/** Which files, seen from where. */
export interface ReadOptions {
  /** Paths, "-" for stdin; later ones are merged into earlier ones. Relative paths inside are relative to the first one's folder. */
  readonly files: readonly string[];
  /** What was read from stdin, where a file is "-". */
  readonly stdin?: Uint8Array | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Profiles that are on; "*" for all. COMPOSE_PROFILES of the environment or of `.env` adds to them. */
  readonly profiles?: readonly string[];
  /** Whether variables stay as they are written. */
  readonly skipInterpolation?: boolean;
  /** The caller's folder; the process's own by default. */
  readonly directory?: string;
  readonly reader?: StackReader;
}

/** Files as one tree. */
export type ReadStack =
  | { readonly ok: true; readonly file: MapNode; readonly warnings: readonly string[] }
  | { readonly ok: false; readonly problems: readonly StackProblem[]; readonly warnings: readonly string[] };

/** Reads, checks and merges; converts nothing. */
export function readStack(options: ReadOptions): ReadStack {
  const { findings, file } = readWith(options);
  const { problems, warnings } = findings;
  return findings.failed || file === undefined ? { ok: false, problems, warnings } : { ok: true, file, warnings };
}

/** The same with what a conversion needs. */
export function readWith(options: ReadOptions): {
  findings: Findings;
  file: MapNode | undefined;
  context: LayerContext;
} {
  const findings = new Findings();
  const reader = options.reader ?? fileReader;
  const caller = resolve(options.directory ?? ".");
  const [first = "-"] = options.files;
  const directory = first === "-" ? caller : dirname(resolve(caller, first));
  const { environment } = options;
  const skipInterpolation = options.skipInterpolation ?? false;
  const context: LayerContext = {
    findings,
    reader,
    variables: withDotenv({ reader, findings, variables: environment }, directory),
    directory,
    home: environment.HOME ?? "/",
    root: directory,
    caller,
    skipInterpolation,
    chain: [],
  };
  let merged: MapNode | undefined;
  for (const path of options.files) {
    const layer = path === "-" ? layerOf(options.stdin ?? new Uint8Array(), "-", context) : readFrom(path, context);
    if (layer === undefined) continue;
    const next = merged === undefined ? layer : merge(merged, layer, stackFile);
    merged = next.kind === "map" ? next : merged;
  }
  if (findings.failed || merged === undefined) return { findings, file: undefined, context };
  const settled = settle(merged);
  const file = settled.kind === "map" ? active(settled, options.profiles ?? [], context.variables) : undefined;
  return { findings, file, context };
}

/** A file is shown by the name it was given by, whatever the folder is that its paths are relative to. */
function readFrom(path: string, context: LayerContext): MapNode | undefined {
  const absolute = resolve(context.caller, path);
  const bytes = context.reader.read(absolute);
  if (bytes.ok) return layerOf(bytes.value, path, { ...context, chain: [absolute] });
  context.findings.file(path, bytes.problem);
  return undefined;
}

/** `file` without the services whose profiles are off. */
function active(file: MapNode, profiles: readonly string[], variables: LayerContext["variables"]): MapNode {
  const services = child(file, "services");
  if (services?.kind !== "map") return file;
  const on = new Set([...profiles, ...(variables.COMPOSE_PROFILES ?? "").split(",")].map((name) => name.trim()));
  const entries = [...services.entries].filter(([, { value }]) => {
    const wanted = itemsOf(child(value, "profiles"));
    return wanted.length === 0 || on.has("*") || wanted.some((item) => on.has(textOf(item) ?? ""));
  });
  return withEntry(file, "services", withEntries(services, new Map(entries)));
}
