/**
 * Whether a node is READY or DOWN, from whether its session key is there. A node that lost its session gets a grace time
 * to appear at another manager; after a change of leader a longer one, so that one manager's death makes no stampede.
 */
import { NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";

/** How long a node may be without a session. Shorter moves tasks sooner, longer forgives more. */
export const GRACE_MS = 1_000;

/** The same while a leader is new: its agents may still be looking for a manager. */
export const GRACE_MS_AFTER_ELECTION = 6_000;

/**
 * The same for a node that a new leader has never seen with a session. After a long outage of the managers agents try
 * every 8 s at worst, perhaps one that is still away first: less would move tasks to which nothing happened.
 */
export const GRACE_MS_UNSEEN = 20_000;

/**
 * Nodes that lost one manager come back as fast as the others can take them, 50 a second or fewer where the processor is busy. While
 * at least `CROWD_MIN` came back within `CROWD_MS`, whoever is still away stands in that queue: one's word is awaited as long
 * again, but no longer than `CROWD_WAIT_MS_MAX` in all. A few that come and go hold up nobody's verdict.
 */
export const CROWD_MIN = 10;
export const CROWD_MS = 2_000;
export const CROWD_WAIT_MS_MAX = 30_000;

/** A node this long DOWN has its tasks ORPHANED, which frees what they hold in the books; SwarmKit's 24 h. */
export const ORPHAN_MS = 24 * 60 * 60_000;

export interface NodeSituation {
  readonly state: NodeStatus_State;
  readonly hasSession: boolean;
  /** Whether this leader has ever seen the node with a session. */
  readonly seen: boolean;
  /** When this leader first saw the node without a session, by the monotonic clock. */
  readonly absentSinceMs: number | undefined;
  /** When the last of a crowd came back, by the same clock; undefined while there is none. */
  readonly crowdMs: number | undefined;
  /** When this leader took over, by the same clock. */
  readonly leadingSinceMs: number;
  readonly nowMs: number;
}

export type NodeVerdict =
  | { readonly kind: "keep" }
  | { readonly kind: "wait"; readonly delayMs: number }
  | { readonly kind: "become"; readonly state: NodeStatus_State; readonly message: string };

export function decideNode(situation: NodeSituation): NodeVerdict {
  const { state, hasSession, absentSinceMs, nowMs } = situation;
  if (hasSession) {
    if (state === NodeStatus_State.READY) return { kind: "keep" };
    return { kind: "become", state: NodeStatus_State.READY, message: "" };
  }
  if (state === NodeStatus_State.DOWN) return { kind: "keep" };
  const absentMs = absentSinceMs ?? nowMs;
  const graceMs = situation.seen ? GRACE_MS_AFTER_ELECTION : GRACE_MS_UNSEEN;
  const crowdMs = Math.min((situation.crowdMs ?? Number.NEGATIVE_INFINITY) + CROWD_MS, absentMs + CROWD_WAIT_MS_MAX);
  const deadlineMs = Math.max(absentMs + GRACE_MS, situation.leadingSinceMs + graceMs, crowdMs);
  if (nowMs < deadlineMs) return { kind: "wait", delayMs: deadlineMs - nowMs };
  return { kind: "become", state: NodeStatus_State.DOWN, message: "heartbeat failure" };
}
