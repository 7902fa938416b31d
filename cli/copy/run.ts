/**
 * `task cp`: asks the task's agent what is there, decides by docker cp's rules, and lets the tar flow, either way.
 *
 *     out    from ─▶   place ◀─ decide ─ data … ◀─ done ◀─    ─▶ disk or stdout
 *     in     to ─▶     place ◀─ decide ─ target, data …, data_end ─▶   done ◀─
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { abortable } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { untilAborted } from "../../common/base/until-aborted.ts";
import type { Parsed } from "../../common/model/parsed.ts";
import { inChunks } from "../../common/rpc/chunks.ts";
import { Pipe } from "../../common/rpc/pipe.ts";
import { type CopyRequestSchema, type PathState, PathState_Kind } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ControlClient, Invocation } from "../command.ts";
import { findTask } from "../find-task.ts";
import { UsageError } from "../usage-error.ts";
import { bytesOfText } from "./byte-path.ts";
import { absolutePath, localDestination, localSource } from "./local.ts";
import { Packer } from "./pack.ts";
import { CopyProgress } from "./progress.ts";
import { type CopyEnd, type CopyPlacement, parseCopyEnd, placeCopy, sourceName } from "./rules.ts";
import { Unpacker } from "./unpack.ts";

/** Bytes of the tar in one request. */
const DATA_BYTES_MAX = 64 * 1024;
/** Requests that wait for the manager. */
const REQUESTS_MAX = 4;

type Request = NonNullable<MessageInitShape<typeof CopyRequestSchema>["content"]>;
type TaskEnd = Extract<CopyEnd, { kind: "task" }>;

/** Copies as the words say; answers the exit code. */
export async function copyFiles(invocation: Invocation): Promise<number> {
  const [from, to] = invocation.words.map((word) => orUsage(parseCopyEnd(word), word));
  if (from?.kind === "task" && to?.kind === "task") throw new UsageError("copying between tasks is not supported");
  try {
    if (from?.kind === "task" && to) await copyOut(invocation, from, to);
    else if (to?.kind === "task" && from) await copyIn(invocation, from, to);
    else throw new UsageError("one side must be TASK:PATH");
    return 0;
  } catch (reason) {
    if (invocation.signal.aborted) return 130;
    throw reason;
  }
}

async function copyOut(invocation: Invocation, from: TaskEnd, to: CopyEnd): Promise<void> {
  const { flags, io } = invocation;
  const destination = to.kind === "local" ? await localDestination(to.path) : undefined;
  if (!destination && io.terminal) {
    throw new UsageError("an archive is not written to a terminal: redirect it, or name a path");
  }
  const { client, taskId } = await taskOf(invocation, from);
  const request = { taskId, path: from.path, followLink: flags.on("follow-link") };
  const progress = progressOf(invocation, "Copying from task");
  // What the agent calls it: its own first entry.
  const name = bytesOfText(sourceName(`/${from.path.replace(/^\/+/, "")}`));
  let unpacker: Unpacker | undefined;
  let done = false;
  try {
    for await (const { content } of exchange(client, { case: "from", value: request }, invocation.signal)) {
      if (content.case === "place" && destination) {
        const isDirectory = content.value.kind === PathState_Kind.DIRECTORY;
        const place = orFail(placeCopy({ name, isDirectory }, destination));
        unpacker = new Unpacker({ path: joined(place), name, keepOwners: flags.on("archive") });
      } else if (content.case === "data") {
        if (unpacker) await unpacker.push(content.value);
        else await abortable(io.console.write("out", content.value), invocation.signal);
        progress.add(content.value.length);
      } else if (content.case === "warning") progress.warn(content.value);
      else if (content.case === "done") done = true;
    }
    if (!done) throw endedEarly();
    await unpacker?.finish();
  } finally {
    progress.clear();
    await unpacker?.[Symbol.asyncDispose]();
  }
  for (const warning of unpacker?.warnings.takeAll("more were left out") ?? []) progress.warn(warning);
  if (to.kind === "local") progress.done(absolutePath(to.path));
}

async function copyIn(invocation: Invocation, from: CopyEnd, to: TaskEnd): Promise<void> {
  const { flags, io, signal } = invocation;
  const source = from.kind === "local" ? await localSource(from.path, flags.on("follow-link")) : undefined;
  if (!source && io.stdin.isTTY === true) throw new UsageError("an archive is not read from a terminal: redirect it");
  const { client, taskId } = await taskOf(invocation, to);
  const progress = progressOf(invocation, "Copying to task");
  const packer = new Packer();
  const requests = new Pipe<Request>(REQUESTS_MAX);
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal]);
  const send = async (place: PathState) => {
    const { directory, name } = source ? placement(source, place) : streamPlacement(place, to);
    // An archive on standard input says itself whose its files are, as docker cp has it.
    const keepOwners = flags.on("archive") || !source;
    await requests.write({ case: "target", value: { directory, keepOwners } }, until);
    // Who writes to standard input may be silent for ever: the copy's end is not to wait for a byte.
    const tar = source ? packer.pack({ path: source.path, name }) : untilAborted(io.stdin, until);
    for await (const value of inChunks(tar, DATA_BYTES_MAX)) {
      await requests.write({ case: "data", value }, until);
      progress.add(value.length);
    }
    await requests.write({ case: "dataEnd", value: true }, until);
  };
  let failure: unknown;
  let sending: Promise<void> | undefined;
  let [done, path] = [false, to.path];
  try {
    const first: Request = { case: "to", value: { taskId, path: to.path } };
    for await (const { content } of exchange(client, first, until, requests)) {
      if (content.case === "place") {
        path = content.value.path;
        sending = send(content.value).catch((reason: unknown) => {
          failure ??= reason;
          over.abort(SwarmError.from(reason));
        });
      } else if (content.case === "warning") progress.warn(content.value);
      else if (content.case === "done") done = true;
    }
    if (!done) throw endedEarly();
  } catch (reason) {
    // What went wrong here ended the call; what the agent refused ended the sending.
    throw failure ?? reason;
  } finally {
    over.abort(new SwarmError("canceled", "the copy is over"));
    await sending;
    progress.clear();
  }
  for (const warning of packer.warnings) progress.warn(warning);
  progress.done(`${to.reference}:${path}`);
}

/** One copy's responses; what is put into `requests` goes out after the first. */
async function* exchange(client: ControlClient, first: Request, signal: AbortSignal, requests?: Pipe<Request>) {
  async function* messages(): AsyncGenerator<MessageInitShape<typeof CopyRequestSchema>> {
    yield { content: first };
    if (requests) for await (const content of requests.read(signal)) yield { content };
  }
  yield* client.copyFiles(messages(), { signal });
}

async function taskOf({ connect, flags }: Invocation, { reference }: TaskEnd) {
  const client = await connect();
  const { task } = await findTask(client, reference, flags.text("task"));
  return { client, taskId: task?.id ?? "" };
}

function progressOf({ io, clock, flags }: Invocation, head: string): CopyProgress {
  return new CopyProgress(io, clock, { quiet: flags.on("quiet"), head });
}

/** Where a local source goes in the task: names are byte strings, the directory is text. */
function placement(source: { readonly name: string; readonly isDirectory: boolean }, place: PathState): CopyPlacement {
  if (place.kind === PathState_Kind.OTHER) {
    throw new SwarmError("failed_precondition", `destination ${place.path} must be a directory or a regular file`);
  }
  const exists = place.kind !== PathState_Kind.MISSING;
  const destination = { path: place.path, exists, isDirectory: place.kind === PathState_Kind.DIRECTORY };
  const { directory, name } = orFail(placeCopy(source, destination));
  return { directory, name: destination.isDirectory ? source.name : bytesOfText(name) };
}

function streamPlacement(place: PathState, to: TaskEnd): CopyPlacement {
  if (place.kind === PathState_Kind.DIRECTORY) return { directory: place.path, name: "." };
  throw new SwarmError("failed_precondition", `destination ${to.reference}:${to.path} must be a directory`);
}

/** The path of what is placed. */
function joined({ directory, name }: CopyPlacement): string {
  return name === "." ? directory : `${directory === "/" ? "" : directory}/${name}`;
}

function orUsage<T>(parsed: Parsed<T>, word: string): T {
  if (parsed.ok) return parsed.value;
  throw new UsageError(`${word}: ${parsed.problem}`);
}

function orFail<T>(parsed: Parsed<T>): T {
  if (parsed.ok) return parsed.value;
  throw new SwarmError("failed_precondition", parsed.problem);
}

function endedEarly(): SwarmError {
  return new SwarmError("unavailable", "the copy's stream ended early");
}
