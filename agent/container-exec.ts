/**
 * Commands in running containers, for people: as whom, where and with what they run, and their streams. Health checks go
 * another way, through the supervisor.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { abortable } from "../common/base/clock.ts";
import { invalidFields, SwarmError } from "../common/base/error.ts";
import { Scope } from "../common/base/scope.ts";
import { untilAborted } from "../common/base/until-aborted.ts";
import {
  type ExecRequest,
  type ExecResponse,
  ExecResponseSchema,
  type ExecStart,
} from "../proto/gen/swarm/v1/control_pb.js";
import type { NodeRuntime } from "./node-runtime.ts";
import type { OciProcess } from "./runtime/oci.ts";
import type { CgroupMembership, ContainerPath, HostPath } from "./runtime/op.ts";
import { type OutputPart, SessionProcess } from "./runtime/session-process.ts";
import { type CompiledSeccomp, planExec } from "./runtime/spec-plan.ts";
import type { Supervisor } from "./runtime/supervisor.ts";
import { resolveUser, USER_FILE_BYTES_MAX } from "./runtime/user.ts";

/** Detached commands of a node at once: nobody sees them, and each has a process of ours above it. */
const DETACHED_MAX = 64;

/** The container that a command enters. */
export interface ExecTarget {
  readonly supervisor: Supervisor;
  /** The container's own process, whose rights the command has. */
  readonly process: OciProcess;
  readonly cgroup: CgroupMembership;
  /** The container's filter; undefined where it has none. */
  readonly seccomp: CompiledSeccomp | undefined;
}

/** The commands of a node that run on without whoever started them. */
export class DetachedCommands implements AsyncDisposable {
  readonly #running = new Set<SessionProcess>();

  /** Throws `resource_exhausted` for the 65th. */
  checkRoom(): void {
    if (this.#running.size < DETACHED_MAX) return;
    throw new SwarmError("resource_exhausted", `${DETACHED_MAX} detached commands at once on this node`);
  }

  /** Holds it until it ends; what it still writes is thrown away. */
  keep(session: SessionProcess, output?: AsyncGenerator<OutputPart, void, undefined>): void {
    this.#running.add(session);
    if (output) discard(output).catch(() => {});
    session.ended.catch(() => {}).finally(() => this.#running.delete(session));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#running) await session[Symbol.asyncDispose]();
  }
}

async function discard(output: AsyncIterable<OutputPart>): Promise<void> {
  for await (const _ of output);
}

/** See `TaskController.exec`. */
export async function* execInContainer(
  target: ExecTarget,
  node: Pick<NodeRuntime, "runner" | "shimPath" | "detached">,
  { start, requests }: { readonly start: ExecStart; readonly requests: AsyncIterable<ExecRequest> },
  signal: AbortSignal,
): AsyncGenerator<ExecResponse, void, undefined> {
  if (start.detach) node.detached.checkRoom();
  const { supervisor, cgroup, seccomp } = target;
  const pid = await runningPid(supervisor, signal);
  const process = await commandProcess(target, node, { start, pid }, signal);
  const window = { rows: start.size?.rows ?? 0, columns: start.size?.columns ?? 0 };
  const session = await SessionProcess.start(
    {
      shimPath: node.shimPath,
      pid,
      cgroup,
      ops: planExec(process, seccomp, start.tty ? window : undefined),
      input: start.stdin,
      terminal: start.tty,
      detached: start.detach,
      confirm: async (inner) => {
        if ((await runningPid(supervisor, inner)) !== pid) throw new SwarmError("aborted", "the container has ended");
      },
    },
    signal,
  );
  if (session.kind === "refused") {
    yield say({ case: "ended", value: { exitCode: session.exitCode, error: session.reason } });
    return;
  }
  if (start.detach) {
    node.detached.keep(session);
    yield say({ case: "started", value: true });
    return;
  }
  yield* attend(session, node, requests, signal);
}

/** Why its output is not read any more. */
const LEFT = new SwarmError("canceled", "the command is left to itself");

/** Until the command ends, or is left to itself. Whoever leaves otherwise takes it along. */
async function* attend(
  session: SessionProcess,
  { detached }: Pick<NodeRuntime, "detached">,
  requests: AsyncIterable<ExecRequest>,
  signal: AbortSignal,
): AsyncGenerator<ExecResponse, void, undefined> {
  const leaving = new AbortController();
  const output = session.output(leaving.signal);
  // Aborted when the command is left to itself. Not a promise to race with: that would hold all that was ever written.
  const left = new AbortController();
  let kept = false;
  try {
    yield say({ case: "started", value: true });
    await using scope = new Scope(signal);
    scope.spawn("input", (inner) => passOn(requests, session, () => left.abort(LEFT), inner));
    const until = AbortSignal.any([scope.signal, left.signal]);
    while (true) {
      const next = await abortable(output.next(), until).catch((reason: unknown) => {
        if (reason !== LEFT) throw reason;
      });
      if (!next) {
        detached.checkRoom();
        detached.keep(session, output);
        kept = true;
        return;
      }
      if (next.done) break;
      yield say({ case: next.value.stream, value: next.value.data });
    }
    yield say({ case: "ended", value: { exitCode: await abortable(session.ended, scope.signal), error: "" } });
  } finally {
    if (!kept) {
      leaving.abort(new SwarmError("canceled", "nobody reads it any more"));
      await session[Symbol.asyncDispose]();
    }
  }
}

function say(content: MessageInitShape<typeof ExecResponseSchema>["content"]): ExecResponse {
  return create(ExecResponseSchema, { content: content ?? { case: undefined } });
}

/** The container's first process, as the host numbers it. Throws `failed_precondition` when there is none. */
export async function runningPid(supervisor: Supervisor, signal: AbortSignal): Promise<number> {
  const { status, pid } = await supervisor.state(signal);
  if (status !== "running") throw new SwarmError("failed_precondition", `the container is ${status}, not running`);
  return pid;
}

/** What the caller sends, to the command, at the command's pace. */
async function passOn(
  requests: AsyncIterable<ExecRequest>,
  session: SessionProcess,
  leave: () => void,
  signal: AbortSignal,
): Promise<void> {
  for await (const { content } of untilAborted(requests, signal)) {
    if (content.case === "stdin") await session.write(content.value, signal);
    else if (content.case === "stdinEnd") session.endInput();
    else if (content.case === "resize") await session.resize(content.value, signal);
    else if (content.case === "signal") await session.signal(content.value, signal);
    else if (content.case === "detach") return leave();
  }
}

/** The container's process with what the caller wants otherwise. Throws `invalid_argument` that names the field. */
async function commandProcess(
  { process }: ExecTarget,
  { runner }: Pick<NodeRuntime, "runner">,
  { start, pid }: { readonly start: ExecStart; readonly pid: number },
  signal: AbortSignal,
): Promise<OciProcess> {
  // The container's root as it is now, opened once by the shim and never left.
  const layers = [`/proc/${pid}/root` as HostPath];
  const read = async (path: string) => {
    try {
      return (
        await runner.readFile({ layers, path: path as ContainerPath, maxBytes: USER_FILE_BYTES_MAX }, signal)
      ).toString();
    } catch (reason) {
      if (reason instanceof SwarmError && reason.code === "not_found") return "";
      throw reason;
    }
  };
  const asked = { ...process, args: start.args, cwd: start.dir || process.cwd };
  if (start.dir !== "") await requireDirectory(start.dir, read);
  const base = withVariables(process.env ?? [], start.tty ? ["TERM=xterm"] : []);
  if (start.user === "") return { ...asked, env: withVariables(base, start.env) };
  const files = { passwd: await read("/etc/passwd"), group: await read("/etc/group") };
  const resolved = resolveUser(start.user, [], files);
  if (resolved.kind === "invalid") throw invalidFields(resolved.problems);
  const { uid, gid, additionalGids, home } = resolved.user;
  const bounding = process.capabilities?.bounding ?? [];
  // As execve(2) would leave them to that user.
  const held = uid === 0 ? bounding : [];
  return {
    ...asked,
    env: withVariables(base, [`HOME=${home}`, ...start.env]),
    user: { ...process.user, uid, gid, additionalGids },
    capabilities: { bounding, effective: held, permitted: held, inheritable: [], ambient: [] },
  };
}

/** A wrong directory is refused: entering it would make it. */
async function requireDirectory(path: string, read: (path: string) => Promise<string>): Promise<void> {
  try {
    await read(`${path}/.`);
  } catch (reason) {
    // It is there, and no file.
    if (reason instanceof SwarmError && reason.code === "failed_precondition") return;
    throw reason;
  }
  throw new SwarmError("not_found", `working directory ${path}: no such directory in the container`);
}

/** Later ones win; a name alone takes its variable away. */
function withVariables(env: readonly string[], more: readonly string[]): readonly string[] {
  const variables = new Map<string, string>();
  for (const variable of [...env, ...more]) {
    const equals = variable.indexOf("=");
    if (equals < 0) variables.delete(variable);
    else variables.set(variable.slice(0, equals), variable);
  }
  return [...variables.values()];
}
