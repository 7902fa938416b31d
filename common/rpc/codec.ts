/** Messages to bytes and back, the same for every transport. */
import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { SwarmError } from "../base/error.ts";

/**
 * What a server takes in one message. Above it one caller could make the process hold arbitrary memory; below it a
 * stack file's or an image manifest's request would not fit. Blobs and logs are streamed in parts.
 */
export const RECEIVE_BYTES_MAX_SERVER = 4 * 1024 * 1024;

/** What a server takes in one message of the calls that carry a whole stack with its secrets and configs. */
export const RECEIVE_BYTES_MAX_STACK = 16 * 1024 * 1024;

/** The requests that may be as large, by their messages' names. */
const LARGE_REQUESTS: ReadonlySet<string> = new Set(["swarm.v1.ApplyStackRequest", "swarm.v1.PlanStackRequest"]);

/** How large a request of this kind may be, in bytes. */
export function requestBytesMax(schema: DescMessage): number {
  return LARGE_REQUESTS.has(schema.typeName) ? RECEIVE_BYTES_MAX_STACK : RECEIVE_BYTES_MAX_SERVER;
}

/** What a client takes in one message: it trusts its manager, and a listing of 100,000 tasks has 25 MB. */
export const RECEIVE_BYTES_MAX_CLIENT = 64 * 1024 * 1024;

/** A unary call that says nothing about time waits this long. */
export const UNARY_TIMEOUT_MS = 5_000;

/** Serializes a message, or what makes one. */
export function encodeMessage(schema: DescMessage, message: MessageInitShape<DescMessage>): Uint8Array {
  return toBinary(schema, create(schema, message));
}

/** The error of a message that is too large, in gRPC's own words. */
export function tooLarge(bytes: number, bytesMax: number): SwarmError {
  return new SwarmError("resource_exhausted", `received message larger than max (${bytes} vs. ${bytesMax})`);
}

/** Parses a message; fields that `schema` does not know are dropped: what crosses this line is ours. */
export function decodeMessage(schema: DescMessage, bytes: Uint8Array): Message {
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch (reason) {
    throw SwarmError.wrap(`decode ${schema.typeName}`, reason, "invalid_argument");
  }
}
