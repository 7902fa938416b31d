/**
 * Changes that all agents are told alike are made once and encoded once, however many hear of them: a thousand nodes that
 * come back are each told of a thousand nodes.
 */
import { create, type MessageInitShape, type UnknownField } from "@bufbuild/protobuf";
import { sizeDelimitedEncode, WireType } from "@bufbuild/protobuf/wire";
import {
  type AssignmentChange,
  AssignmentChangeSchema,
  type AssignmentsMessage,
  AssignmentsMessageSchema,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";

/** How a shared change stands in a message: length first, then its bytes. */
const encoded = new WeakMap<AssignmentChange, Uint8Array>();
const CHANGES = AssignmentsMessageSchema.field.changes.number;

/** Makes a change that many agents are to be told; the caller keeps it. */
export function sharedChange(init: MessageInitShape<typeof AssignmentChangeSchema>): AssignmentChange {
  const change = create(AssignmentChangeSchema, init);
  encoded.set(change, sizeDelimitedEncode(AssignmentChangeSchema, change));
  return change;
}

/**
 * A message of these changes. Those that are encoded already go into it as they are, after the others: the encoder takes
 * raw fields only as ones that it does not know.
 */
export function assignmentsMessage(
  header: MessageInitShape<typeof AssignmentsMessageSchema>,
  changes: readonly AssignmentChange[],
): AssignmentsMessage {
  const raw: UnknownField[] = [];
  const others: AssignmentChange[] = [];
  for (const change of changes) {
    const data = encoded.get(change);
    if (data === undefined) others.push(change);
    else raw.push({ no: CHANGES, wireType: WireType.LengthDelimited, data });
  }
  const message = create(AssignmentsMessageSchema, { ...header, changes: others });
  if (raw.length > 0) message.$unknown = raw;
  return message;
}
