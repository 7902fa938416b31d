import type { ICompare, IEvent, IKeyValue, IRangeRequest, IRequestOp } from "etcd3";
import type { Compare, KvEntry, LeaseId, Operation, RangeRequest, WatchEvent } from "./kv.ts";

/** A range of keys in etcd's words. */
export function toRange({ from, limit, revision, keysOnly }: RangeRequest): IRangeRequest {
  const keys =
    "key" in from
      ? { key: Buffer.from(from.key) }
      : {
          key: Buffer.from(from.after === undefined ? from.prefix : `${from.after}\0`),
          range_end: endOfPrefix(from.prefix),
        };
  return { ...keys, limit, revision: revision ?? 0, keys_only: keysOnly ?? false };
}

/** The first key after all keys with this prefix. */
export function endOfPrefix(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  // Keys are ASCII: the last byte can always grow.
  end.writeUInt8(end.readUInt8(end.length - 1) + 1, end.length - 1);
  return end;
}

/** A stored key, decoded. */
export function toEntry(kv: IKeyValue): KvEntry {
  return {
    key: kv.key.toString(),
    value: kv.value,
    createRevision: Number(kv.create_revision),
    modRevision: Number(kv.mod_revision),
    lease: toLease(kv.lease),
  };
}

/** etcd writes "no lease" as 0. */
function toLease(lease: string): LeaseId | undefined {
  return lease === "0" ? undefined : (lease as LeaseId);
}

/** A condition in etcd's words. */
export function toCompare(compare: Compare): ICompare {
  const key = Buffer.from(compare.key);
  if ("modRevision" in compare) {
    return { result: "Equal", target: "Mod", key, mod_revision: compare.modRevision };
  }
  return { result: "Equal", target: "Create", key, create_revision: compare.createRevision };
}

/** A change in etcd's words. */
export function toOperation(operation: Operation): IRequestOp {
  const key = Buffer.from(operation.key);
  if (operation.type === "delete") return { request_delete_range: { key } };
  const { value, lease } = operation;
  return {
    request_put: { key, value: Buffer.from(value.buffer, value.byteOffset, value.byteLength), lease: lease ?? 0 },
  };
}

/** An event of a watch, decoded. */
export function toEvent({ type, kv }: IEvent): WatchEvent {
  const key = kv.key.toString();
  const modRevision = Number(kv.mod_revision);
  if (type === "Delete") return { type: "delete", key, modRevision };
  return {
    type: "put",
    key,
    value: kv.value,
    createRevision: Number(kv.create_revision),
    modRevision,
    lease: toLease(kv.lease),
  };
}
