/**
 * One `swarm-shim session` process: a command in a container with somebody at its streams. It is the agent's child and
 * ends with it; closing its control channel kills the command with all of its session.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex, Readable, Writable } from "node:stream";
import { abortable, abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { Scope } from "../../common/base/scope.ts";
import { Pipe } from "../../common/rpc/pipe.ts";
import { type Answer, Channel, errnoError } from "./channel.ts";
import type { Writer } from "./encode.ts";
import type { CgroupMembership, ContainerOp, WindowSize } from "./op.ts";
import { encodeCgroup, encodeOps } from "./plan.ts";
import { opError } from "./supervisor.ts";

/** Request kinds: enum request of session.c. */
const REQUEST = { open: 1, run: 2, resize: 3, signal: 4 } as const;
/** Parts of output that wait for their reader; what more there is stays in the pipes and stops the command. */
const OUTPUT_PARTS_MAX = 2;

/** What to run, where. */
export interface SessionOptions {
  /** The swarm-shim program. */
  readonly shimPath: string;
  /** The container's first process, as the host numbers it. */
  readonly pid: number;
  readonly cgroup: CgroupMembership;
  /** Of `planExec`: join-container to exec. */
  readonly ops: readonly ContainerOp[];
  /** Whether something will be written to it; without, it reads the container's /dev/null. */
  readonly input: boolean;
  /** Whether `ops` open a terminal. */
  readonly terminal: boolean;
  /** Nobody reads what it writes. */
  readonly detached: boolean;
  /**
   * Asked once the process is held by a descriptor: throws unless `pid` is still the container's, for a pid is given to
   * another process after its own has ended.
   */
  readonly confirm: (signal: AbortSignal) => Promise<void>;
}

/** A program that could not be run, with Docker's exit code for it: 127 it is not there, 126 it may not be run. */
export interface Refused {
  readonly kind: "refused";
  readonly exitCode: 126 | 127;
  readonly reason: string;
}

/** A part of what a command wrote. On a terminal all of it is `stdout`. */
export interface OutputPart {
  readonly stream: "stdout" | "stderr";
  readonly data: Buffer;
}

export class SessionProcess implements AsyncDisposable {
  readonly kind = "running";
  readonly #child: ChildProcess;
  readonly #channel: Channel;
  readonly #input: Writable | null;
  #inputGone = false;
  #ended: Promise<number> = Promise.resolve(0);

  private constructor({ shimPath, input, detached }: SessionOptions) {
    const output = detached ? "ignore" : "pipe";
    const child = spawn(shimPath, ["session"], {
      stdio: [input ? "pipe" : "ignore", output, output, "pipe"],
      env: {},
      cwd: "/",
    });
    const control = child.stdio[3] as Duplex;
    this.#child = child;
    this.#channel = Channel.over("the command's session", control);
    this.#input = child.stdin;
    child.on("error", (reason) => this.#channel.fail(SwarmError.wrap("start the shim", reason, "failed_precondition")));
    this.#input?.on("error", () => {
      this.#inputGone = true;
    });
    for (const stream of [child.stdout, child.stderr]) stream?.on("error", () => {});
  }

  /**
   * Starts the command; resolves once its program was exec'd, or could not be.
   * @throws what an operation before that failed with; `failed_precondition` when the container has ended.
   */
  static async start(options: SessionOptions, signal: AbortSignal): Promise<SessionProcess | Refused> {
    if (signal.aborted) throw abortReason(signal);
    const session = new SessionProcess(options);
    try {
      const refused = await session.#start(options, signal);
      if (!refused) return session;
      await session[Symbol.asyncDispose]();
      return refused;
    } catch (reason) {
      await session[Symbol.asyncDispose]();
      throw reason;
    }
  }

  async #start(options: SessionOptions, signal: AbortSignal): Promise<Refused | undefined> {
    const { pid, cgroup, ops, input, terminal, confirm } = options;
    const opened = await abortable(
      this.#channel.request(REQUEST.open, (writer) => writer.u32(pid)),
      signal,
    );
    if (opened.kind === "error") throw errnoError("enter the container", opened.failure.errno);
    await confirm(signal);
    const write = (writer: Writer) => {
      writer.boolean(input).boolean(terminal);
      encodeCgroup(cgroup, writer);
      encodeOps(ops, writer);
    };
    const running = Promise.withResolvers<undefined>();
    const answer = this.#channel.request(REQUEST.run, write, () => running.resolve(undefined));
    this.#ended = answer.then((end) => {
      if (end.kind === "error") throw opError(ops, end);
      return end.payload.readUInt32LE(0);
    });
    // Whoever asks for it hears of it; nobody may.
    this.#ended.catch(() => {});
    const first = await abortable(Promise.race([running.promise, answer]), signal);
    return first?.kind === "error" ? refusal(ops, first) : undefined;
  }

  /** The exit code, or 128 + signal; rejects with `unavailable` when the session was killed from outside. */
  get ended(): Promise<number> {
    return this.#ended;
  }

  /** What the command writes, at the pace of who iterates, until it has ended and all is read. */
  async *output(signal: AbortSignal): AsyncGenerator<OutputPart, void, undefined> {
    const { stdout, stderr } = this.#child;
    await using scope = new Scope(signal);
    const parts = new Pipe<OutputPart>(OUTPUT_PARTS_MAX);
    const read = async (stream: OutputPart["stream"], source: Readable | null, inner: AbortSignal) => {
      if (source) for await (const data of source) await parts.write({ stream, data: data as Buffer }, inner);
    };
    scope.spawn("read output", async (inner) => {
      try {
        await Promise.all([read("stdout", stdout, inner), read("stderr", stderr, inner)]);
      } catch (reason) {
        // Its end closed the streams in the middle: how it ended is what counts.
        if (inner.aborted) throw reason;
      } finally {
        parts.close();
      }
    });
    try {
      yield* parts.read(scope.signal);
    } finally {
      // A reader in the middle of a silence would hold the scope.
      stdout?.destroy();
      stderr?.destroy();
    }
  }

  /** Hands bytes to the command's standard input; resolves when there is room for more, and when nobody reads any more. */
  async write(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const input = this.#input;
    // Of a process that has ended the stream is closed already: nothing more would ever be heard of it.
    if (!input?.writable || this.#inputGone || input.write(bytes)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const settle = () => resolve();
    input.once("drain", settle).once("close", settle);
    try {
      await abortable(promise, signal);
    } finally {
      input.off("drain", settle).off("close", settle);
    }
  }

  /** The command's standard input ends. */
  endInput(): void {
    if (!this.#inputGone) this.#input?.end();
  }

  async resize({ rows, columns }: WindowSize, signal: AbortSignal): Promise<void> {
    await this.#tell(REQUEST.resize, (writer) => writer.u32(rows).u32(columns), signal);
  }

  /** Sends a signal to the command. One that has ended needs none. */
  async signal(number: number, signal: AbortSignal): Promise<void> {
    await this.#tell(REQUEST.signal, (writer) => writer.u32(number), signal);
  }

  async #tell(kind: number, write: (writer: Writer) => void, signal: AbortSignal): Promise<void> {
    await abortable(
      this.#channel.request(kind, write).catch(() => undefined),
      signal,
    );
  }

  /** Kills what still runs of the session. It is not waited for: that may hang in the kernel. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stream of this.#child.stdio) stream?.destroy();
  }
}

/** A failed exec is an answer; any other operation that fails is an error. */
function refusal(ops: readonly ContainerOp[], answer: Extract<Answer, { kind: "error" }>): Refused {
  const error = opError(ops, answer);
  const { stage, index } = answer.failure;
  if (stage !== "container" || ops[index]?.op !== "exec") throw error;
  return { kind: "refused", exitCode: error.code === "not_found" ? 127 : 126, reason: error.message };
}
