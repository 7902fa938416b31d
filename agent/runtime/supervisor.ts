/**
 * The client of one container's supervisor, over `control.sock` in the container's state directory. Any number of
 * clients may come and go; the exit record in the same directory is the truth about the end.
 */
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { connect as connectSocket, type Socket } from "node:net";
import { abortable, abortReason } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { ANSWER, type Answer, Channel, errnoError } from "./channel.ts";
import type { ContainerOp, HostPath } from "./op.ts";
import { describeOp, encodeOps } from "./plan.ts";

/** Request kinds: enum request of control.c. */
const REQUEST = { start: 1, signal: 2, exec: 3, state: 4 } as const;
const FLAG = { oom: 1, timedOut: 2, truncated: 4 } as const;
const STATUSES = ["created", "starting", "running"] as const;

/** How a container ended. */
export interface ExitRecord {
  /** The exit code, or 128 + signal as shells have it. */
  readonly code: number;
  /** The signal's number, 0 when it exited by itself. */
  readonly signal: number;
  /** Whether the kernel killed any process of it for want of memory. */
  readonly oom: boolean;
  /** Wall time in ns since the epoch. */
  readonly atNs: bigint;
}

/** What an exec'd command did. */
export interface ExecResult {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Killed because it took longer than it was given. */
  readonly timedOut: boolean;
  /** It wrote more than `maxOutputBytes`; the rest was dropped. */
  readonly truncated: boolean;
}

export interface SupervisorState {
  readonly status: (typeof STATUSES)[number];
  readonly pid: number;
  readonly supervisorPid: number;
}

/**
 * How this connection ended: with the container's exit; because the supervisor was killed ("lost": the kernel killed
 * its container with it, but kill the cgroup to be sure); or because this side closed it, and the container goes on.
 */
export type Ended =
  | { readonly kind: "exited"; readonly record: ExitRecord }
  | { readonly kind: "lost" }
  | { readonly kind: "closed" };

/** The longest path that fits sun_path; longer ones are reached through a descriptor of the directory. */
const SOCKET_PATH_BYTES_MAX = 107;

export class Supervisor implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #channel: Channel;
  readonly #ended: Promise<Ended>;
  #closing = false;

  private constructor(socket: Socket, stateDirectory: HostPath) {
    const exited = Promise.withResolvers<ExitRecord | undefined>();
    this.#socket = socket;
    this.#channel = Channel.over(`supervisor in ${stateDirectory}`, socket, ({ kind, payload }) => {
      if (kind === ANSWER.exited) exited.resolve(decodeExit(payload));
    });
    this.#ended = this.#channel.closed
      .then(() => exited.resolve(undefined))
      .then(() => exited.promise)
      .then(async (event) => event ?? (await readExitRecord(stateDirectory)))
      .then((record): Ended => {
        if (record) return { kind: "exited", record };
        return { kind: this.#closing ? "closed" : "lost" };
      });
    this.#ended.catch(() => {});
  }

  /** Connects; `not_found` when no supervisor listens there (then see `readExitRecord`). */
  static async connect(stateDirectory: HostPath, signal: AbortSignal): Promise<Supervisor> {
    if (signal.aborted) throw abortReason(signal);
    const path = `${stateDirectory}/control.sock`;
    if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return Supervisor.#dial(path, stateDirectory, signal);
    const directory = openSync(stateDirectory, "r");
    try {
      return await Supervisor.#dial(`/proc/self/fd/${directory}/control.sock`, stateDirectory, signal);
    } finally {
      closeSync(directory);
    }
  }

  static async #dial(path: string, stateDirectory: HostPath, signal: AbortSignal): Promise<Supervisor> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connectSocket({ path });
    socket.once("connect", resolve);
    socket.once("error", reject);
    try {
      await abortable(promise, signal);
    } catch (reason) {
      socket.destroy();
      const errno = errnoOf(reason);
      const gone = errno === "ENOENT" || errno === "ECONNREFUSED" || errno === "ECONNRESET";
      throw SwarmError.wrap(`connect to ${path}`, reason, gone ? "not_found" : "unavailable");
    }
    return new Supervisor(socket, stateDirectory);
  }

  /** Lets the container run; resolves once its program was exec'd. Repeating it is fine. */
  async start(ops: readonly ContainerOp[], signal: AbortSignal): Promise<void> {
    const answer = await abortable(this.#channel.request(REQUEST.start), signal);
    if (answer.kind === "error") throw opError(ops, answer);
  }

  /** Sends a signal to the first process, or to every process of the cgroup (SIGKILL then without a race). */
  async signal(options: { readonly number: number; readonly all: boolean }, signal: AbortSignal): Promise<void> {
    const request = this.#channel.request(REQUEST.signal, (writer) => writer.u32(options.number).boolean(options.all));
    const answer = await abortable(request, signal);
    if (answer.kind === "error") throw errnoError(`signal ${options.number}`, answer.failure.errno);
  }

  /**
   * Runs a command inside: `ops` begin with join-container and end with exec. A command that cannot be run throws
   * (`not_found`, `permission_denied`); one that ran out of time is killed, with the whole of its session group.
   */
  async exec(
    ops: readonly ContainerOp[],
    options: { readonly timeoutMs: number; readonly maxOutputBytes: number },
    signal: AbortSignal,
  ): Promise<ExecResult> {
    const streams: [Buffer[], Buffer[]] = [[], []];
    const answer = await abortable(
      this.#channel.request(
        REQUEST.exec,
        (writer) => encodeOps(ops, writer.u32(options.timeoutMs).u32(options.maxOutputBytes)),
        (payload) => streams[payload.readUInt32LE(0) === 2 ? 1 : 0].push(Buffer.from(payload.subarray(4))),
      ),
      signal,
    );
    if (answer.kind === "error") throw opError(ops, answer);
    const flags = answer.payload.readUInt32LE(8);
    return {
      code: answer.payload.readUInt32LE(0),
      stdout: Buffer.concat(streams[0]),
      stderr: Buffer.concat(streams[1]),
      timedOut: (flags & FLAG.timedOut) !== 0,
      truncated: (flags & FLAG.truncated) !== 0,
    };
  }

  async state(signal: AbortSignal): Promise<SupervisorState> {
    const answer = await abortable(this.#channel.request(REQUEST.state), signal);
    if (answer.kind === "error") throw errnoError("state", answer.failure.errno);
    const status = STATUSES[answer.payload.readUInt32LE(0)] ?? "running";
    return { status, pid: answer.payload.readUInt32LE(4), supervisorPid: answer.payload.readUInt32LE(8) };
  }

  /** Resolves when the container has ended, or the connection has; rejects with `data_loss` on a damaged record. */
  get ended(): Promise<Ended> {
    return this.#ended;
  }

  /** Closes this connection; the container goes on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    this.#socket.destroy();
    await this.#channel.closed;
  }
}

/** The record a container's supervisor left at its end; undefined while there is none. Throws `data_loss` on garbage. */
export async function readExitRecord(stateDirectory: HostPath): Promise<ExitRecord | undefined> {
  let text: string;
  try {
    text = await readFile(`${stateDirectory}/exit`, "utf8");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap(`read exit record in ${stateDirectory}`, reason);
  }
  const match = /^exit 1 (\d{1,3}) (\d{1,2}) ([01]) (\d{1,20})\n$/.exec(text);
  if (!match) throw new SwarmError("data_loss", `exit record in ${stateDirectory} is damaged`);
  return { code: Number(match[1]), signal: Number(match[2]), oom: match[3] === "1", atNs: BigInt(match[4] ?? 0) };
}

function decodeExit(payload: Buffer): ExitRecord {
  return {
    code: payload.readUInt32LE(0),
    signal: payload.readUInt32LE(4),
    oom: (payload.readUInt32LE(8) & FLAG.oom) !== 0,
    atNs: payload.readBigUInt64LE(12) * 1_000_000_000n + BigInt(payload.readUInt32LE(20)),
  };
}

/** The error of an operation that failed, by its name. */
export function opError(ops: readonly ContainerOp[], answer: Extract<Answer, { kind: "error" }>): SwarmError {
  const { stage, index, errno } = answer.failure;
  const op = stage === "container" ? ops[index] : undefined;
  const error = errnoError(op ? describeOp(op) : "run in container", errno);
  // What people search for.
  if (op?.op !== "exec" || error.code !== "not_found") return error;
  return new SwarmError(error.code, `exec: ${JSON.stringify(op.args[0] ?? "")}: executable file not found in $PATH`, {
    cause: error,
  });
}
