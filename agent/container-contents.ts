/**
 * A task's secrets and configs as files on a tmpfs of the host: written before its container is made, replaced while it
 * runs, gone with it. They are never on a disk. What lies there is ours alone, so plain paths are safe.
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type Clock, withTimeout } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { expandContent, type TemplateContext } from "../common/model/template.ts";
import type { PinnedContent } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ContentSource } from "./content-cache.ts";
import type { ContentFile, ContentPlan } from "./content-plan.ts";

/** f_type of a tmpfs (statfs(2)). */
const TMPFS_MAGIC = 0x01021994;
/** Where hosts have a tmpfs; the first one that is one is taken. */
const PLACES = ["/run", "/dev/shm"];
/** It comes with the assignment or right after it; only a node whose managers are away waits. */
const WAIT_MS_MAX = 20_000;
/** Names the versions that are written: `pins.json` in a task's folder. */
const MANIFEST = "pins.json";

/** A node's folder of contents: on a tmpfs, or undefined on a host that has none. */
export function contentsDirectory(nodeId: string): string | undefined {
  const place = PLACES.find((path) => existsSync(path) && statfsSync(path).type === TMPFS_MAGIC);
  return place === undefined ? undefined : `${place}/swarm-agent/${nodeId}`;
}

/** What files are made of. */
export interface ContentFacts {
  readonly clock: Clock;
  readonly contents: ContentSource;
  readonly context: TemplateContext;
  /** `NAME=value` of the container's environment, for templates. */
  readonly env: readonly string[];
}

/**
 * Brings a task's files to what `plan` says; files that have their version already are left alone. Each is replaced by a
 * rename: a reader sees the old content or the new one. Answers the files that are new.
 * @throws invalid_argument: a template that cannot be expanded; resource_exhausted: the tmpfs is full.
 */
export async function writeContents(
  directory: string,
  plan: ContentPlan,
  facts: ContentFacts,
  signal: AbortSignal,
): Promise<readonly ContentFile[]> {
  const present = readManifest(directory);
  const fresh = plan.files.filter(({ path, pin }) => present.get(path) !== pinText(pin));
  if (fresh.length === 0) return [];
  const texts = new Map<ContentFile, Uint8Array>();
  for (const file of fresh) texts.set(file, await contentOf(file, plan, facts, signal));
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const { folder } of plan.mounts) mkdirSync(join(directory, folder), { recursive: true, mode: 0o755 });
    for (const [file, data] of texts) put(directory, file, data);
  } catch (reason) {
    throw storageError(reason);
  }
  return fresh;
}

/** Says that the files are as `plan` has them: after whoever reads them was told. */
export function recordContents(directory: string, plan: ContentPlan): void {
  const pins = Object.fromEntries(plan.files.map(({ path, pin }) => [path, pinText(pin)]));
  writeFileSync(join(directory, MANIFEST), JSON.stringify(pins), { mode: 0o600 });
}

/** Frees a task's files; none is no error. */
export function removeContents(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

/** Frees the files of tasks that are not `live`. */
export function collectContents(root: string, live: ReadonlySet<TaskId>): void {
  if (!existsSync(root)) return;
  for (const name of readdirSync(root)) if (!live.has(name as TaskId)) removeContents(join(root, name));
}

async function contentOf(
  file: ContentFile,
  plan: ContentPlan,
  facts: ContentFacts,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const content = await told(file, facts, signal);
  if (content.templateDriver === "") return content.data;
  // Functions of templates are synchronous: what they may name is fetched first.
  const known = new Map<ContentFile, string>();
  for (const each of plan.files) {
    known.set(each, new TextDecoder().decode((await told(each, facts, signal)).data));
  }
  const find = (kind: ContentFile["kind"]) => (name: string) => {
    const found = plan.files.find((each) => each.kind === kind && isCalled(each, name));
    return found === undefined ? undefined : known.get(found);
  };
  const env = (name: string) => facts.env.findLast((each) => each.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";
  const text = new TextDecoder().decode(content.data);
  const expanded = expandContent(text, facts.context, { secret: find("secret"), config: find("config"), env });
  if (!expanded.ok) throw new SwarmError("invalid_argument", `${file.kind} ${file.name}: ${expanded.problem}`);
  return new TextEncoder().encode(expanded.value);
}

/** What a manager says of a file. One that does not come is tried again later, and shows in the task's status meanwhile. */
async function told(file: ContentFile, { clock, contents }: ContentFacts, signal: AbortSignal): Promise<PinnedContent> {
  const options = { clock, timeoutMs: WAIT_MS_MAX, operation: `wait for ${file.kind} ${file.name} from a manager` };
  try {
    return await withTimeout(options, signal, (until) => contents.get(file.pin, until));
  } catch (reason) {
    if (signal.aborted) throw reason;
    throw new SwarmError("unavailable", `${file.kind} ${file.name} has not come from a manager`, { cause: reason });
  }
}

/** As SwarmKit by the target's name (template/context.go), and by the object's own. */
function isCalled({ kind, name, target }: ContentFile, text: string): boolean {
  const short = target.slice(kind === "secret" ? "/run/secrets/".length : 1);
  return text === name || text === target || text === short;
}

function put(directory: string, { path, uid, gid, mode }: ContentFile, data: Uint8Array): void {
  const place = join(directory, path);
  mkdirSync(dirname(place), { recursive: true, mode: 0o755 });
  // Beside the mounted folders: what is half written is never seen.
  const draft = join(directory, "draft");
  rmSync(draft, { force: true });
  writeFileSync(draft, data, { mode: 0o600 });
  chownSync(draft, uid, gid);
  chmodSync(draft, mode);
  renameSync(draft, place);
}

function readManifest(directory: string): ReadonlyMap<string, string> {
  try {
    const pins: unknown = JSON.parse(readFileSync(join(directory, MANIFEST), "utf8"));
    return new Map(Object.entries(pins as Record<string, string>));
  } catch (reason) {
    // A manifest that was cut off by a crash says nothing: all is written again.
    if (errnoOf(reason) === "ENOENT" || reason instanceof SyntaxError) return new Map();
    throw reason;
  }
}

function pinText({ objectId, version }: ContentFile["pin"]): string {
  return `${objectId}/${version}`;
}

function storageError(reason: unknown): SwarmError {
  const full = errnoOf(reason) === "ENOSPC";
  return SwarmError.wrap("write secrets and configs", reason, full ? "resource_exhausted" : "failed_precondition");
}
