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

/** What a client takes in one message: it trusts its manager, and a listing of 100,000 tasks has 25 MB. */
export const RECEIVE_BYTES_MAX_CLIENT = 64 * 1024 * 1024;

/** A unary call that says nothing about time waits this long. */
export const UNARY_TIMEOUT_MS = 5_000;

/** Serializes a message, or what makes one. */
export function encodeMessage(schema: DescMessage, message: MessageInitShape<DescMessage>): Uint8Array {
  return toBinary(schema, create(schema, message));
}

/** Parses a message; fields that `schema` does not know are dropped: what crosses this line is ours. */
export function decodeMessage(schema: DescMessage, bytes: Uint8Array): Message {
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch (reason) {
    throw SwarmError.wrap(`decode ${schema.typeName}`, reason, "invalid_argument");
  }
}
