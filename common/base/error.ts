import { getSystemErrorMessage } from "node:util";

/** The closed set of error codes: gRPC's, by name (https://grpc.io/docs/guides/status-codes/). */
export const ERROR_CODES = {
  canceled: 1,
  unknown: 2,
  invalid_argument: 3,
  deadline_exceeded: 4,
  not_found: 5,
  already_exists: 6,
  permission_denied: 7,
  resource_exhausted: 8,
  failed_precondition: 9,
  aborted: 10,
  out_of_range: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  data_loss: 15,
  unauthenticated: 16,
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/**
 * The one error class for operations that failed because of the world (not because of a bug: that is `assert`).
 * Its message says operation, object, reason and limit: `write memory.max of task k3…: EBUSY`.
 */
export class SwarmError extends Error {
  override readonly name = "SwarmError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /**
   * Turns anything thrown into a SwarmError; used at each edge. An abort becomes `canceled`, a system error keeps its
   * errno in the message, and the original stays as `cause`.
   */
  static from(reason: unknown, code: ErrorCode = "unknown"): SwarmError {
    if (reason instanceof SwarmError) return reason;
    if (reason instanceof Error) {
      if (reason.name === "AbortError") return new SwarmError("canceled", reason.message, { cause: reason });
      if (reason.name === "TimeoutError") return new SwarmError("deadline_exceeded", reason.message, { cause: reason });
      return new SwarmError(code, reason.message, { cause: reason });
    }
    return new SwarmError(code, String(reason), { cause: reason });
  }

  /** The same error with what was being done put before it: `prefix: message`; code and cause are kept. */
  static wrap(prefix: string, reason: unknown, code: ErrorCode = "unknown"): SwarmError {
    const error = SwarmError.from(reason, code);
    return new SwarmError(error.code, `${prefix}: ${error.message}`, { cause: error });
  }
}

/** One bad field of some input: its path as the user knows it and what is wrong with it. */
export interface FieldProblem {
  readonly field: string;
  readonly problem: string;
}

/** An `invalid_argument` that names every bad field at once, one `field: problem` a clause. */
export function invalidFields(problems: readonly FieldProblem[]): SwarmError {
  return new SwarmError("invalid_argument", problems.map(({ field, problem }) => `${field}: ${problem}`).join("; "));
}

/** The system's errno name of an error ("ENOENT"), or undefined when it has none. */
export function errnoOf(reason: unknown): string | undefined {
  if (!(reason instanceof Error) || !("code" in reason)) return undefined;
  return typeof reason.code === "string" && /^E[A-Z0-9]+$/.test(reason.code) ? reason.code : undefined;
}

/** Why the system refused, in its own words ("no such file or directory"): for people, who may not know its codes. */
export function systemMessage(reason: unknown): string {
  const errno = reason instanceof Error && "errno" in reason ? reason.errno : undefined;
  return typeof errno === "number" ? getSystemErrorMessage(errno) : String(reason);
}

/** Ends the process: a condition that only a bug of ours can break. The world's faults are SwarmErrors. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionFailure(message);
}

/** Closes a `switch` over a union; the compiler refuses the call while a case is missing. */
export function unreachable(value: never): never {
  throw new AssertionFailure(`unreachable: ${JSON.stringify(value)}`);
}

/** A broken invariant: never caught except to log it and end the process. */
export class AssertionFailure extends Error {
  override readonly name = "AssertionFailure";
}
