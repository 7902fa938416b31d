/**
 * Requests and answers over one byte stream to a shim process: many at once, each under its id.
 */
import { constants } from "node:os";
import type { Duplex, Readable, Writable } from "node:stream";
import { type ErrorCode, SwarmError } from "../../common/base/error.ts";
import { encodeFrame, type Frame, FrameReader, type Writer } from "./encode.ts";

/** Kinds of answers: enum answer_kind of shim.h. */
export const ANSWER = { ok: 0, error: 1, output: 2, exited: 3 } as const;

/** Which part of a plan failed: enum stage of shim.h. */
export type Stage = "supervisor" | "host" | "clone" | "container";
const STAGES: readonly Stage[] = ["supervisor", "host", "clone", "container"];

/** What the shim says of a failure: the stage, the operation's index in its list, and errno's name. */
export interface Failure {
  readonly stage: Stage;
  readonly index: number;
  readonly errno: string;
}

/** Names by number; of two names for one number the first by the alphabet. Node's own `getSystemErrorName` lacks a dozen. */
const ERRNO_NAMES = new Map(
  Object.entries(constants.errno)
    .toReversed()
    .map(([name, errno]) => [errno, name]),
);

function decodeFailure(payload: Buffer): Failure {
  const errno = payload.readUInt32LE(8);
  return {
    stage: STAGES[payload.readUInt32LE(0)] ?? "supervisor",
    index: payload.readUInt32LE(4),
    errno: ERRNO_NAMES.get(errno) ?? `error ${errno}`,
  };
}

const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "not_found",
  ESRCH: "not_found",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  EEXIST: "already_exists",
  ENOSPC: "resource_exhausted",
  ENOMEM: "resource_exhausted",
  EMFILE: "resource_exhausted",
  EAGAIN: "resource_exhausted",
  EFBIG: "out_of_range",
  EDQUOT: "resource_exhausted",
  EBADMSG: "internal",
};

/** A SwarmError `what: ERRNO` with the code that suits the errno. */
export function errnoError(what: string, errno: string): SwarmError {
  return new SwarmError(ERRNO_CODES[errno] ?? "failed_precondition", `${what}: ${errno}`);
}

/** How a request ended that was not interrupted. */
export type Answer =
  | { readonly kind: "ok"; readonly payload: Buffer }
  | { readonly kind: "exited"; readonly payload: Buffer }
  | { readonly kind: "error"; readonly failure: Failure };

/** A request on its way. */
export interface Sent {
  readonly id: number;
  readonly answer: Promise<Answer>;
}

interface Pending {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (reason: SwarmError) => void;
  readonly output: ((payload: Buffer) => void) | undefined;
}

/** One stream to a shim. It is closed by its owner, or by the stream's end, which fails whatever is pending. */
export class Channel {
  readonly #writable: Writable;
  readonly #pending = new Map<number, Pending>();
  readonly #reader = new FrameReader();
  readonly #name: string;
  readonly #onEvent: ((frame: Frame) => void) | undefined;
  readonly #closed = Promise.withResolvers<void>();
  #lastId = 0;
  #ended = false;

  /** `onEvent` is told frames with id 0, which no request asked for. */
  constructor(
    options: { readonly name: string; readonly readable: Readable; readonly writable: Writable },
    onEvent?: (frame: Frame) => void,
  ) {
    this.#name = options.name;
    this.#writable = options.writable;
    this.#onEvent = onEvent;
    options.readable.on("data", (chunk: Buffer) => this.#take(chunk));
    options.readable.on("error", () => this.#end());
    options.readable.on("close", () => this.#end());
    options.readable.on("end", () => this.#end());
    options.writable.on("error", () => this.#end());
  }

  static over(name: string, stream: Duplex, onEvent?: (frame: Frame) => void): Channel {
    return new Channel({ name, readable: stream, writable: stream }, onEvent);
  }

  /** Resolves once the stream has ended and every pending request has failed. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get open(): boolean {
    return !this.#ended;
  }

  /** Sends a request; its answer, an `unavailable` when the stream ends first. `output` is told parts that come before. */
  request(kind: number, write?: (writer: Writer) => void, output?: (payload: Buffer) => void): Promise<Answer> {
    return this.send(kind, write, output).answer;
  }

  /** `request`, for whom has to name it later. */
  send(kind: number, write?: (writer: Writer) => void, output?: (payload: Buffer) => void): Sent {
    if (this.#ended) return { id: 0, answer: Promise.reject(this.#unavailable()) };
    this.#lastId = this.#lastId >= 0x7fffffff ? 1 : this.#lastId + 1;
    const id = this.#lastId;
    const frame = encodeFrame(id, kind, write);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#pending.set(id, { resolve, reject, output });
    this.#writable.write(frame);
    return { id, answer: promise };
  }

  #take(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.push(chunk)) this.#dispatch(frame);
    } catch {
      this.#writable.destroy();
      this.#end();
    }
  }

  #dispatch(frame: Frame): void {
    const { id, kind, payload } = frame;
    const pending = this.#pending.get(id);
    if (id === 0) {
      this.#onEvent?.(frame);
      return;
    }
    if (kind === ANSWER.output) {
      pending?.output?.(payload);
      return;
    }
    this.#pending.delete(id);
    if (kind === ANSWER.error) pending?.resolve({ kind: "error", failure: decodeFailure(payload) });
    else pending?.resolve({ kind: kind === ANSWER.exited ? "exited" : "ok", payload });
  }

  /** Ends the channel from this side: `reason` is what pending requests fail with. */
  fail(reason: SwarmError): void {
    this.#writable.destroy();
    this.#end(reason);
  }

  #unavailable(): SwarmError {
    return new SwarmError("unavailable", `${this.#name} is gone`);
  }

  #end(reason: SwarmError = this.#unavailable()): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#pending.clear();
    this.#closed.resolve();
  }
}
