/**
 * The loop that brings every node along when the authority changes. It keeps in memory when it asked whom, and nothing else: a new
 * leader goes on by what nodes have told, and counts whoever was asked before as asked just now.
 *
 *   node without a certificate of the goal's ── asked, a few at a time ──▶ its session: renew ──▶ it tells of the new one
 *   all have one ──▶ the former authorities are forgotten
 */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import type { Logger } from "../../common/base/logger.ts";
import { ASK_AGAIN_MS, decideRotation } from "../../common/pki/root-rotation.ts";
import { type Cluster, type ClusterCa, NodeCertificateSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Loop, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { rotationGoal, withNextSigning, withRotationOver } from "./cluster-ca.ts";
import { rotatingMembers } from "./rotating-members.ts";

const KEY = "ca";
/** Many nodes tell of their certificates at once: one look for all of them. */
const PAUSE_MS = 100;
const NOTHING: LoopDecision = { groups: [], wakeups: [] };

export class RootRotator implements Loop {
  readonly name = "root rotation";
  readonly pauseMs = PAUSE_MS;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** When nodes were asked in this rotation, by the monotonic clock. */
  readonly #askedMs = new Map<string, number>();
  #rotationId = "";

  constructor({ clock, logger }: { readonly clock: Clock; readonly logger: Logger }) {
    this.#clock = clock;
    this.#logger = logger;
  }

  begin(): Iterable<string> {
    return [KEY];
  }

  *observe({ kind }: Change, view: View): Iterable<string> {
    const concerns = kind === "cluster" || kind === "node" || kind === "manager" || kind === "session";
    if (concerns && view.cluster?.ca?.rotation) yield KEY;
  }

  decide(view: View): LoopDecision {
    const { cluster } = view;
    const ca = cluster?.ca;
    if (cluster === undefined || ca?.rotation === undefined) return NOTHING;
    const { id } = ca.rotation;
    if (id !== this.#rotationId) this.#begin(view, id);
    const nowMs = this.#clock.monotonicMs();
    const members = rotatingMembers(view, this.#clock.nowMs()).map((member) => {
      const askedMs = member.kind === "agent" ? this.#askedMs.get(member.id) : undefined;
      return askedMs === undefined ? member : { ...member, askedMs };
    });
    const step = decideRotation(rotationGoal(ca), members, { nowMs });
    // Certificates end without anybody's telling.
    const wakeups = [{ key: KEY, delayMs: ASK_AGAIN_MS }];
    if (ca.rotation.next !== "") {
      const isTrusted = step.type === "complete" || step.phase === "certificates";
      if (isTrusted) return this.#changeTo(cluster, withNextSigning(ca), "every node trusts the new root");
      // Nodes take a root as soon as they hear of it: there is nobody to ask.
      return { groups: [], wakeups };
    }
    if (step.type === "complete") return this.#changeTo(cluster, withRotationOver(ca), "root rotation is complete");
    for (const nodeId of step.ask) this.#askedMs.set(nodeId, nowMs);
    this.#logger.debug(
      { rotation: id, remaining: step.remaining, offline: step.offline.length },
      "root rotation goes on",
    );
    return { groups: asks(view, step.ask, id), wakeups };
  }

  refused(proposal: Proposal): void {
    if (proposal.type === "update" && proposal.kind === "node") this.#askedMs.delete(proposal.object.id);
  }

  /** Another rotation, or another leader's. */
  #begin(view: View, id: string): void {
    this.#rotationId = id;
    this.#askedMs.clear();
    const nowMs = this.#clock.monotonicMs();
    for (const node of view.nodes.values()) {
      if (node.certificate?.askedRotation === id) this.#askedMs.set(node.id, nowMs);
    }
  }

  #changeTo(cluster: Cluster, ca: ClusterCa, what: string): LoopDecision {
    this.#logger.info({ rotation: this.#rotationId }, what);
    return { groups: [{ type: "update", kind: "cluster", object: { ...cluster, ca } }], wakeups: [] };
  }
}

/** Who was asked already keeps it in mind: only the time counts anew. A host may be there twice, as an agent and as a manager. */
function asks(view: View, nodeIds: readonly string[], rotationId: string): readonly ProposalGroup[] {
  return [...new Set(nodeIds)].flatMap((nodeId): ProposalGroup[] => {
    const node = view.nodes.get(nodeId);
    if (node === undefined || node.certificate?.askedRotation === rotationId) return [];
    const certificate = { ...(node.certificate ?? create(NodeCertificateSchema)), askedRotation: rotationId };
    return [{ type: "update", kind: "node", object: { ...node, certificate } }];
  });
}
