/** Files out of running containers and into them, for whoever asks: requests and responses around agent/copy. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { SwarmError } from "../common/base/error.ts";
import { untilAborted } from "../common/base/until-aborted.ts";
import {
  type CopyFrom,
  type CopyRequest,
  type CopyResponse,
  CopyResponseSchema,
  type CopyTo,
  PathState_Kind,
} from "../proto/gen/swarm/v1/control_pb.js";
import { type ExecTarget, runningPid } from "./container-exec.ts";
import { CopyIn } from "./copy/copy-in.ts";
import { copyOut, copyOutOp } from "./copy/copy-out.ts";
import type { FileState } from "./copy/records.ts";
import type { NodeRuntime } from "./node-runtime.ts";
import type { CopyInOp, CopyOutOp } from "./runtime/op.ts";
import { SessionProcess } from "./runtime/session-process.ts";
import { planCopy } from "./runtime/spec-plan.ts";

type Target = Omit<ExecTarget, "seccomp">;
type Node = Pick<NodeRuntime, "shimPath">;

/** See `TaskController.copy`. */
export async function* copyInContainer(
  target: Target,
  node: Node,
  { first, requests }: { readonly first: CopyRequest; readonly requests: AsyncIterable<CopyRequest> },
  signal: AbortSignal,
): AsyncGenerator<CopyResponse, void, undefined> {
  const { content } = first;
  if (content.case === "from") yield* copyFrom(target, node, content.value, signal);
  else if (content.case === "to") yield* copyTo(target, node, { to: content.value, requests }, signal);
  else throw new SwarmError("invalid_argument", "from or to: must be the first request");
}

async function* copyFrom(target: Target, node: Node, from: CopyFrom, signal: AbortSignal) {
  const op = copyOutOp(from);
  await using session = await startCopy(target, node, op, signal);
  for await (const part of copyOut(op, session.output(signal))) {
    if (part.kind === "state") yield say({ case: "place", value: { ...stateOf(part.state), path: op.path } });
    else if (part.kind === "data") yield say({ case: "data", value: part.bytes });
    else yield say({ case: "warning", value: part.text });
  }
  yield say({ case: "done", value: true });
}

async function* copyTo(
  target: Target,
  node: Node,
  { to, requests }: { readonly to: CopyTo; readonly requests: AsyncIterable<CopyRequest> },
  signal: AbortSignal,
) {
  await using session = await startCopy(target, node, { op: "copy-in" }, signal);
  const copy = new CopyIn(session, signal);
  const { state, path } = await copy.look(to.path, signal);
  yield say({ case: "place", value: { ...stateOf(state), path: Buffer.from(path, "latin1").toString("utf8") } });
  const incoming = untilAborted(requests, signal);
  const { value: second } = await incoming.next();
  if (second?.content.case !== "target") throw new SwarmError("invalid_argument", "target: must follow");
  const { directory, keepOwners } = second.content.value;
  await copy.enter(directory, signal);
  for (const text of await copy.receive(dataOf(incoming), { keepOwners }, signal)) {
    yield say({ case: "warning", value: text });
  }
  yield say({ case: "done", value: true });
}

/** The tar, up to its end; one that does not come is a caller who has left. */
async function* dataOf(requests: AsyncIterable<CopyRequest>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const { content } of requests) {
    if (content.case === "data") yield content.value;
    else if (content.case === "dataEnd") return;
    else throw new SwarmError("invalid_argument", `${content.case ?? "an empty request"}: not in the middle of a tar`);
  }
  throw new SwarmError("canceled", "the tar ended before its end was told");
}

async function startCopy(
  { supervisor, process, cgroup }: Target,
  { shimPath }: Node,
  op: CopyInOp | CopyOutOp,
  signal: AbortSignal,
): Promise<SessionProcess> {
  const pid = await runningPid(supervisor, signal);
  const session = await SessionProcess.start(
    {
      ...{ shimPath, pid, cgroup, ops: planCopy(process, op) },
      ...{ input: op.op === "copy-in", terminal: false, detached: false },
      confirm: async (inner) => {
        if ((await runningPid(supervisor, inner)) !== pid) throw new SwarmError("aborted", "the container has ended");
      },
    },
    signal,
  );
  if (session.kind === "running") return session;
  throw new SwarmError("internal", session.reason);
}

const KINDS: Readonly<Record<FileState["kind"], PathState_Kind>> = {
  file: PathState_Kind.FILE,
  hardlink: PathState_Kind.FILE,
  directory: PathState_Kind.DIRECTORY,
  symlink: PathState_Kind.SYMLINK,
  character: PathState_Kind.OTHER,
  block: PathState_Kind.OTHER,
  fifo: PathState_Kind.OTHER,
  socket: PathState_Kind.OTHER,
};

function stateOf(state: FileState | undefined) {
  return state
    ? { kind: KINDS[state.kind], sizeBytes: BigInt(state.sizeBytes) }
    : { kind: PathState_Kind.MISSING, sizeBytes: 0n };
}

function say(content: MessageInitShape<typeof CopyResponseSchema>["content"]): CopyResponse {
  return create(CopyResponseSchema, { content: content ?? { case: undefined } });
}
