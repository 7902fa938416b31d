/** What people must hear of how the managers stand: too few, or a number that gains them nothing. Pure. */
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** How they stand, as one of them sees it. */
export interface ManagersStanding {
  /** Those that there should be. */
  readonly members: number;
  /** Those that are there. */
  readonly reachable: number;
  /** Whether the store is their own: then a majority of them must be there for anything to change. */
  readonly isStoreTheirs: boolean;
  /** Whether the one that says it reaches the store. */
  readonly isInTouch: boolean;
}

/**
 * Counts who is to have a place in the store: who has one, and who is on the way to one, as after `node promote`; not who was
 * demoted and has not left yet.
 */
export function managersStanding(
  { nodes, managers, sessions }: Pick<View, "nodes" | "managers" | "sessions">,
  places: readonly string[],
): Pick<ManagersStanding, "members" | "reachable"> {
  const roleOf = (id: string) => nodes.get(id)?.spec?.desiredRole;
  const stay = places.filter((id) => roleOf(id) !== NodeSpec_Role.WORKER);
  const come = [...nodes.keys()].filter((id) => {
    return roleOf(id) === NodeSpec_Role.MANAGER && sessions.has(id) && !places.includes(id);
  });
  const members = stay.length + come.length;
  return { members, reachable: members - stay.filter((id) => !managers.has(id)).length };
}

export function managerWarnings({ members, reachable, isStoreTheirs, isInTouch }: ManagersStanding): readonly string[] {
  const quorum = Math.floor(members / 2) + 1;
  if (!isInTouch) {
    const remedy = `${quorum} of ${members} managers must be there. If they are lost for good: swarmctl swarm init --force-new-cluster`;
    return [`the store does not answer: nothing can be changed${isStoreTheirs && members > 1 ? `; ${remedy}` : ""}`];
  }
  if (!isStoreTheirs) return [];
  const warnings: string[] = [];
  if (reachable < members) {
    const spare = reachable - quorum;
    const next = spare > 0 ? `${spare} more may be lost` : "when one more is lost nothing can be changed";
    warnings.push(`${members - reachable} of ${members} managers cannot be reached: ${next}`);
  }
  if (members > 0 && members % 2 === 0) {
    const survives = members - quorum;
    warnings.push(
      `the swarm has ${members} managers: it survives the loss of ${survives === 0 ? "none" : survives}, as with ${members - 1}. ` +
        "An odd number is better: promote or demote one",
    );
  }
  return warnings;
}
