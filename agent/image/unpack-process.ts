/** One `swarm-shim unpack` process: takes operations and content, says what went wrong. The one file here that launches something. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Writable } from "node:stream";
import { getSystemErrorMap } from "node:util";
import { abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { tarPathText } from "../../common/model/tar.ts";
import { encodeUnpackOp, type UnpackOp, unpackOpName } from "./unpack-op.ts";

/** Where to unpack, with what. */
export interface UnpackProcessOptions {
  /** The swarm-shim program. */
  readonly shimPath: string;
  /** An existing directory that nobody else writes to. */
  readonly directory: string;
  /** No file may grow beyond this. */
  readonly fileBytesMax: number;
}

/** Small operations are gathered to this size before they are written: a system call each would double the time. */
const BATCH_BYTES = 256 * 1024;
/** Content pieces from this size on are written as they are, not copied into the batch. */
const COPY_BYTES_MAX = 16 * 1024;
/** A failure message is one path long at most. */
const MESSAGE_BYTES_MAX = 8192;

/**
 * Runs while operations are sent; `finish` waits until all of it is on disk. Disposal kills it if it still runs, so an
 * abandoned unpack leaves no process.
 */
export class UnpackProcess implements AsyncDisposable {
  readonly #directory: string;
  readonly #child: ChildProcess;
  readonly #input: Writable;
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.#child.kill("SIGKILL");
  readonly #exited: Promise<SwarmError | undefined>;
  #isInputGone = false;
  #batch = Buffer.allocUnsafe(BATCH_BYTES);
  #batchBytes = 0;

  constructor(options: UnpackProcessOptions, signal: AbortSignal) {
    this.#directory = options.directory;
    this.#signal = signal;
    const child = spawn(options.shimPath, ["unpack", options.directory, String(options.fileBytesMax)], {
      stdio: ["pipe", "pipe", "ignore"],
      env: {},
      cwd: "/",
    });
    this.#child = child;
    this.#input = child.stdin;
    this.#exited = this.#outcome(child, child.stdout);
    // A process that has failed closes its end; why is told by its exit.
    this.#input.on("error", () => {
      this.#isInputGone = true;
    });
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Sends operations; resolves when there is room for more. */
  async send(operations: readonly UnpackOp[]): Promise<void> {
    for (const operation of operations) await this.content(encodeUnpackOp(operation));
  }

  /** Sends content of the last `file` operation. */
  async content(bytes: Uint8Array): Promise<void> {
    if (bytes.length > COPY_BYTES_MAX) {
      await this.#flush();
      return this.#write(bytes);
    }
    if (this.#batchBytes + bytes.length > BATCH_BYTES) await this.#flush();
    this.#batch.set(bytes, this.#batchBytes);
    this.#batchBytes += bytes.length;
  }

  /** Waits for the end after the `end` operation: all is on disk. Throws the failure of the first operation that failed. */
  async finish(): Promise<void> {
    await this.#flush();
    this.#input.end();
    const failure = await this.#exited;
    if (failure) throw failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  async #flush(): Promise<void> {
    if (this.#batchBytes === 0) return;
    const batch = this.#batch.subarray(0, this.#batchBytes);
    this.#batch = Buffer.allocUnsafe(BATCH_BYTES);
    this.#batchBytes = 0;
    await this.#write(batch);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#signal.aborted) throw abortReason(this.#signal);
    if (!this.#isInputGone && this.#input.write(bytes)) return;
    if (!this.#isInputGone) await Promise.race([once(this.#input, "drain").catch(() => {}), this.#exited]);
    if (this.#isInputGone || this.#child.exitCode !== null || this.#child.signalCode !== null) {
      throw (
        (await this.#exited) ?? new SwarmError("internal", `unpack in ${this.#directory}: ended before its input did`)
      );
    }
  }

  /** Undefined after success. Never rejects. */
  async #outcome(child: ChildProcess, stdout: AsyncIterable<Buffer>): Promise<SwarmError | undefined> {
    const closed = Promise.withResolvers<SwarmError | undefined>();
    child.once("error", (cause) => {
      closed.resolve(new SwarmError("failed_precondition", `start ${child.spawnfile}: ${cause.message}`, { cause }));
    });
    child.once("exit", (code, signal) => {
      if (code === 0) return closed.resolve(undefined);
      if (this.#signal.aborted) return closed.resolve(abortReason(this.#signal));
      closed.resolve(
        new SwarmError("internal", `unpack in ${this.#directory}: ended with ${signal ?? `code ${code}`}`),
      );
    });
    const message = await readMessage(stdout);
    return failureOf(message) ?? closed.promise;
  }
}

async function readMessage(stdout: AsyncIterable<Buffer>): Promise<string> {
  let message = Buffer.alloc(0);
  try {
    for await (const bytes of stdout) {
      if (message.length < MESSAGE_BYTES_MAX) message = Buffer.concat([message, bytes]);
    }
  } catch {
    // A killed process has nothing to say; its exit says it.
  }
  return message.toString("latin1");
}

/** `KIND ERRNO PATH` as an error that names operation, path and reason. */
function failureOf(message: string): SwarmError | undefined {
  const parts = /^([0-9]+) ([0-9]+) (.*)$/s.exec(message);
  if (!parts) return undefined;
  const [name, text] = getSystemErrorMap().get(-Number(parts[2])) ?? ["", `errno ${parts[2]}`];
  const isFull = name === "ENOSPC" || name === "EDQUOT" || name === "EFBIG";
  const code = isFull ? "resource_exhausted" : "invalid_argument";
  return new SwarmError(code, `${unpackOpName(Number(parts[1]))} ${tarPathText(parts[3] ?? "")}: ${text} (${name})`);
}
