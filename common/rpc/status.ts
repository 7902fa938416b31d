/** How SwarmErrors travel: a gRPC status number and a message, nothing else (causes and stacks stay at home). */
import { ERROR_CODES, type ErrorCode, SwarmError } from "../base/error.ts";

/** What a wire carries of an error. */
export interface WireStatus {
  readonly code: number;
  readonly details: string;
}

/**
 * Messages are cut here. HTTP/2 sends them as a header: above the receiver's header limit (16 KiB, and percent-encoding
 * can triple the length) the caller would see a protocol error instead of the reason.
 */
const DETAILS_LENGTH_MAX = 4_000;

const CODE_BY_NUMBER: ReadonlyMap<number, ErrorCode> = new Map(
  Object.entries(ERROR_CODES).map(([name, number]) => [number, name as ErrorCode]),
);

/** The status that tells `error` to the other end. */
export function statusOf(error: SwarmError): WireStatus {
  const { message } = error;
  const details = message.length > DETAILS_LENGTH_MAX ? `${message.slice(0, DETAILS_LENGTH_MAX)}…` : message;
  return { code: ERROR_CODES[error.code], details };
}

/** The error that a status from the other end tells; an unknown number becomes `unknown`. */
export function errorOfStatus(status: WireStatus, cause?: unknown): SwarmError {
  return new SwarmError(CODE_BY_NUMBER.get(status.code) ?? "unknown", status.details, cause ? { cause } : {});
}
