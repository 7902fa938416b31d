/** How changes are put into messages that an agent takes. Pure. */
import type { AssignmentChange } from "../../proto/gen/swarm/v1/dispatcher_pb.js";

/** Changes in one message: a message stays far below what an agent takes, and its work is interleaved with the rest. */
const CHANGES_MAX = 100;
/** Bytes of contents in one message: one of 1,000 KiB always fits, and gRPC takes 4 MiB. */
const CONTENT_BYTES_MAX = 1_500 * 1024;

/** Splits changes in order. */
export function batches(changes: readonly AssignmentChange[]): AssignmentChange[][] {
  const all: AssignmentChange[][] = [];
  let bytes = 0;
  for (const change of changes) {
    const size = change.item.case === "content" ? change.item.value.data.length : 0;
    const last = all.at(-1);
    if (last === undefined || last.length >= CHANGES_MAX || bytes + size > CONTENT_BYTES_MAX) {
      all.push([change]);
      bytes = size;
    } else {
      last.push(change);
      bytes += size;
    }
  }
  return all;
}

/** The complete set goes in one message; contents, which may be large, follow it: tasks wait for them. */
export function completeBatches(changes: readonly AssignmentChange[]): AssignmentChange[][] {
  const isContent = ({ item }: AssignmentChange) => item.case === "content";
  return [changes.filter((change) => !isContent(change)), ...batches(changes.filter(isContent))];
}
