/**
 * Which nodes renew next while the cluster changes its root, and when that is done. Pure; SwarmKit's reconciler as a function.
 *
 *                          trusted            signs    sent with a certificate
 *   before                 old                old
 *   rotating               old, new           new      the new root, signed by the old one
 *   every node has one     new                new
 *
 * Old and new certificates are believed by everyone all the while, so that the order of nodes does not matter. A node that is
 * away keeps the rotation open: it comes back with what it had, is believed, and renews then; or its certificate ends, after
 * which nobody believes it whatever the roots; or somebody removes it. Where
 * the old authority cannot sign the new root, nodes are first given the new root to trust, all of them, and then renew.
 */
import type { NodeId } from "../base/id.ts";
import type { KeyId } from "./certificates.ts";

/** What every node is to have in the end. */
export interface RotationGoal {
  /** The key that is to have signed its certificate. */
  readonly issuerKeyId: KeyId;
  /** The root's key that it is to trust; often the same. */
  readonly rootKeyId: KeyId;
  /** Whether the old root vouches for the new one. */
  readonly isCrossSigned: boolean;
}

/** What is known of a node. */
export interface RotatingNode {
  readonly id: NodeId;
  /** The key that signed the certificate it last came with; undefined when it never came. */
  readonly issuerKeyId: KeyId | undefined;
  /** The keys of the roots that it says it trusts. */
  readonly trusted: readonly KeyId[];
  readonly isConnected: boolean;
  /** Its certificate's time is over, on any clock: only a token lets it in again. */
  readonly hasEnded?: boolean;
  /** When it was last asked, in this phase of this rotation. */
  readonly askedMs?: number;
}

export type RotationStep =
  /** Every node has changed: trust the new root alone. */
  | { readonly type: "complete" }
  | {
      readonly type: "rotating";
      /** What the nodes are to do: take the new root, or a new certificate (which brings the root along). */
      readonly phase: "trust" | "certificates";
      /** Whom to ask now. */
      readonly ask: readonly NodeId[];
      /** How many have not done it yet, `offline` included. */
      readonly remaining: number;
      /** Who holds it up by being away, for people. */
      readonly offline: readonly NodeId[];
    };

/** How many may be at it at once: each costs a manager about 6 ms. SwarmKit's is 30. */
export const ROTATION_BATCH_MAX = 50;
/** A node that has not come with a new certificate by then has forgotten, or failed: it is asked again. */
export const ASK_AGAIN_MS = 30_000;

export function decideRotation(
  goal: RotationGoal,
  all: readonly RotatingNode[],
  { nowMs }: { readonly nowMs: number },
): RotationStep {
  const nodes = all.filter(({ isConnected, hasEnded = false }) => isConnected || !hasEnded);
  const untrusting = nodes.filter(({ trusted }) => !trusted.includes(goal.rootKeyId));
  const phase = goal.isCrossSigned || untrusting.length === 0 ? "certificates" : "trust";
  const remaining =
    phase === "trust"
      ? untrusting
      : nodes.filter(({ issuerKeyId, trusted }) => {
          return issuerKeyId !== goal.issuerKeyId || !trusted.includes(goal.rootKeyId);
        });
  if (remaining.length === 0) return { type: "complete" };
  const connected = remaining.filter(({ isConnected }) => isConnected);
  const isAtIt = ({ askedMs }: RotatingNode) => askedMs !== undefined && nowMs - askedMs < ASK_AGAIN_MS;
  const waiting = connected.filter((node) => !isAtIt(node));
  const room = Math.max(0, ROTATION_BATCH_MAX - (connected.length - waiting.length));
  return {
    type: "rotating",
    phase,
    // Those who were asked already had their turn: a node that always fails holds up nobody else.
    ask: waiting
      .toSorted((left, right) => (left.askedMs ?? 0) - (right.askedMs ?? 0))
      .slice(0, room)
      .map(({ id }) => id),
    remaining: remaining.length,
    offline: remaining.filter(({ isConnected }) => !isConnected).map(({ id }) => id),
  };
}
