import { EtcdLeaseInvalidError, EtcdPermissionDeniedError } from "etcd3";
import { ERROR_CODES, type ErrorCode, SwarmError } from "../../common/base/error.ts";
import { outcomeUnknown } from "./kv.ts";

const CODE_BY_NUMBER = new Map<number, ErrorCode>(
  Object.entries(ERROR_CODES).map(([code, number]) => [number, code as ErrorCode]),
);

/** What grpc-js and etcd say when a request never reached a log: such a write is known not to have been made. */
const NOT_SENT =
  /No connection established|Name resolution failed|Channel closed|etcdserver: (no leader|too many requests)/;

/** Codes with which etcd refuses a write: it was not made. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set([
  "invalid_argument",
  "resource_exhausted",
  "out_of_range",
  "not_found",
  "permission_denied",
  "unauthenticated",
  "failed_precondition",
  "data_loss",
  "unimplemented",
]);

/** How to mend a full store; it is shown to the user. */
const NOSPACE =
  "the store is full: delete what is not needed, then compact, defragment and disarm the alarm with etcdctl";

/** A read's (or lease call's) failure as a SwarmError. */
export function readError(operation: string, reason: unknown): SwarmError {
  if (reason instanceof SwarmError) return reason;
  const message = reason instanceof Error ? reason.message : String(reason);
  return new SwarmError(codeOf(reason, message), `${operation}: ${describe(message)}`, { cause: reason });
}

/**
 * A write's failure: when etcd refused it, that refusal; when it may have been made nevertheless, `outcomeUnknown`.
 */
export function writeError(operation: string, reason: unknown): SwarmError {
  const error = readError(operation, reason);
  if (REFUSALS.has(error.code) || NOT_SENT.test(error.message)) return error;
  return outcomeUnknown(operation, reason);
}

/** etcd3 turns gRPC errors into classes without a code; the number still leads the message: "14 UNAVAILABLE: …". */
function codeOf(reason: unknown, message: string): ErrorCode {
  if (reason instanceof EtcdLeaseInvalidError) return "not_found";
  if (reason instanceof EtcdPermissionDeniedError) return "permission_denied";
  const number = /(?:^|\s)(\d+) [A-Z_]+:/.exec(message)?.[1];
  const code = CODE_BY_NUMBER.get(Number(number)) ?? "unavailable";
  // etcd answers several of its own troubles with UNKNOWN; for the caller they are one: try again later.
  return code === "unknown" || code === "internal" || code === "deadline_exceeded" ? "unavailable" : code;
}

function describe(message: string): string {
  if (message.includes("database space exceeded")) return NOSPACE;
  return message.replace(/^.*?\d+ [A-Z_]+: /, "");
}
