import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { LeaderSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { KvEntry } from "./kv.ts";

/** Who leads. */
export interface LeaderView {
  /** Empty when the value is none of ours. */
  readonly managerId: string;
  /** The leader key's create_revision: the fence of every write of this leadership. */
  readonly epoch: number;
}

/** The value of the leader key. */
export function encodeLeader(managerId: string): Uint8Array {
  return toBinary(LeaderSchema, create(LeaderSchema, { managerId }));
}

/** The leader key, decoded. Whoever wrote garbage there still holds the key. */
export function decodeLeader({ value, createRevision }: KvEntry): LeaderView {
  try {
    return { managerId: fromBinary(LeaderSchema, value).managerId, epoch: createRevision };
  } catch {
    return { managerId: "", epoch: createRevision };
  }
}
