/** Words of objects as Docker's lists show them. Pure. */
import { timestampMs } from "../../common/model/duration.ts";
import { familiarName, parseImageReference } from "../../common/model/image-reference.ts";
import { taskStateName } from "../../common/model/task-state.ts";
import { humanDuration } from "../../common/model/units.ts";
import type { TaskStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/** The first 12 characters: enough to tell ids apart, and Docker's width. */
export function shortId(id: string): string {
  return id.slice(0, 12);
}

/** An image's name as people write it, without a digest if a tag stands beside it. */
export function shortImage(image: string): string {
  const parsed = parseImageReference(image);
  if (!parsed.ok) return image;
  const { digest, ...rest } = parsed.reference;
  return digest !== undefined && rest.tag !== undefined ? familiarName(rest) : familiarName(parsed.reference);
}

/** "Running 5 minutes ago". */
export function currentState(status: TaskStatus | undefined, nowMs: number): string {
  const sinceMs = timestampMs(status?.timestamp);
  const state = capitalized(taskStateName(status?.state ?? TaskState.NEW));
  if (sinceMs === undefined) return state;
  return `${state} ${humanDuration(Math.max(0, nowMs - sinceMs)).toLowerCase()} ago`;
}

/** "running" → "Running". */
export function capitalized(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}
