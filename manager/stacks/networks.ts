/**
 * The networks of a stack: planned, made before its services, removed after them. One that is there is never changed, since tasks
 * have its addresses: another definition is refused. Pure but for the chance that IPv6 subnets come from.
 */
import { create } from "@bufbuild/protobuf";
import type { FieldProblem } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";
import { isPredefinedNetwork, normaliseNetwork, overlayNetworks } from "../../common/model/networks.ts";
import { networkProblems } from "../../common/model/validate-network.ts";
import {
  type ObjectPlan,
  ObjectPlan_Action,
  ObjectPlanSchema,
  type StackRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type Network, NetworkSchema, type StackContent } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type NetworkSpec, NetworkSpecSchema, type ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { AttachableNetwork } from "../control/attachments.ts";
import { networkUsers } from "../control/network-users.ts";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { SubnetPlanner } from "../subnets.ts";
import { diffMessages } from "./message-diff.ts";
import { NAMESPACE_LABEL } from "./stack-view.ts";

/** Each takes two operations of the store's hundred, and all that are new are made together. */
const NETWORKS_MAX = 40;

interface PlannedNetworks {
  readonly objects: readonly ObjectPlan[];
  readonly specs: readonly NetworkSpec[];
  /** By name, as services will find them. */
  readonly planned: ReadonlyMap<string, AttachableNetwork>;
  readonly problems: readonly FieldProblem[];
}

/** The request's networks beside the cluster's. */
export function planNetworks(view: View, { spec }: StackRequest, random: Random): PlannedNetworks {
  const stack = spec?.name ?? "";
  const given = spec?.networks ?? [];
  const problems: FieldProblem[] = [];
  if (given.length > NETWORKS_MAX) {
    problems.push({ field: "networks", problem: `${given.length} networks, at most ${NETWORKS_MAX} in one stack` });
  }
  const planner = new SubnetPlanner(view, random);
  const planned = new Map<string, AttachableNetwork>();
  const objects: ObjectPlan[] = [];
  const specs = given.slice(0, NETWORKS_MAX).map((each) => labelled(each, stack));
  for (const wanted of specs) {
    const { name } = wanted;
    const field = `networks.${name}`;
    const tell = (found: readonly FieldProblem[]) => {
      for (const each of found) problems.push({ field: `${field}.${each.field}`, problem: each.problem });
    };
    tell(networkProblems(wanted));
    if (planned.has(name)) problems.push({ field, problem: "stands twice" });
    const present = view.byName("network", name);
    if (present === undefined) {
      const allocation = planner.add(wanted);
      if (!allocation.ok) tell(allocation.problems);
      planned.set(name, { name, ipam: allocation.ok ? [...allocation.ipam] : [] });
      objects.push(describeNetwork(nothingBut(name, stack), wanted, ObjectPlan_Action.CREATE));
      continue;
    }
    planned.set(name, present);
    const problem = presentProblem(present, wanted, stack);
    if (problem !== undefined) problems.push({ field, problem });
    const before = present.spec ?? create(NetworkSpecSchema, { name });
    const changes = diffMessages(NetworkSpecSchema, before, wanted).length > 0;
    const action = changes ? ObjectPlan_Action.UPDATE_IN_PLACE : ObjectPlan_Action.UNCHANGED;
    objects.push(describeNetwork(before, wanted, action));
  }
  for (const name of spec?.externalNetworks ?? []) {
    if (isPredefinedNetwork(name) || view.byName("network", name)) continue;
    problems.push({
      field: `networks.${name}`,
      problem: "is external and does not exist: create it with network create",
    });
  }
  return { objects, specs, planned, problems };
}

/** What the stack had and the file has no more. Only what nobody is attached to any longer can go. */
export function planGoneNetworks(
  view: View,
  { spec, prune }: StackRequest,
  after: { readonly removedServices: readonly string[]; readonly specs: readonly ServiceSpec[] },
): readonly ObjectPlan[] {
  const given = new Set(spec?.networks.map(({ name }) => name));
  const isUsed = usedBesides(view, after.removedServices);
  return networksOfStack(view, spec?.name ?? "")
    .filter(({ name }) => !given.has(name))
    .map(({ name }) => {
      const used = after.specs.some((each) => overlayNetworks(each).includes(name)) || isUsed(name);
      const action = prune && !used ? ObjectPlan_Action.REMOVE : ObjectPlan_Action.KEEP;
      return create(ObjectPlanSchema, { kind: "network", name, action });
    });
}

/** The networks that bear the stack's label. */
export function networksOfStack({ networks }: Pick<View, "networks">, stack: string): Network[] {
  return [...networks.values()]
    .filter(({ spec }) => spec?.labels[NAMESPACE_LABEL] === stack)
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** Those that are missing, all in one group, and labels that differ. */
export function networkSteps(view: View, { networks }: StackContent, random: Random): Proposal[][] {
  const planner = new SubnetPlanner(view, random);
  const made: Proposal[] = [];
  const labels: Proposal[][] = [];
  for (const spec of networks) {
    const present = view.byName("network", spec.name);
    if (present === undefined) {
      const allocation = planner.add(spec);
      // Somebody took the last subnet since it was planned: the services' tasks say what they miss.
      if (!allocation.ok) continue;
      const id = newId<Branded<"network">>(random);
      const object = create(NetworkSchema, { id, name: spec.name, spec, ipam: [...allocation.ipam] });
      made.push({ type: "create", kind: "network", object });
    } else if (present.spec && diffMessages(NetworkSpecSchema, present.spec, spec).length > 0) {
      const labelledSpec = { ...present.spec, labels: spec.labels };
      if (diffMessages(NetworkSpecSchema, present.spec, labelledSpec).length === 0) continue;
      labels.push([{ type: "update", kind: "network", object: { ...present, spec: labelledSpec } }]);
    }
  }
  return made.length > 0 ? [[...made, planner.guard()], ...labels] : labels;
}

/** Takes away what the content names as removed, unless somebody has come to be attached to it. */
export function networkRemovals(view: View, content: StackContent): Proposal[][] {
  const isUsed = usedBesides(view, content.removedServices);
  return content.removedNetworks.flatMap((name) => {
    const network = view.byName("network", name);
    return network && !isUsed(name) ? [[{ type: "delete", kind: "network", id: network.id }]] : [];
  });
}

function labelled(spec: NetworkSpec, stack: string): NetworkSpec {
  return normaliseNetwork({ ...spec, labels: { ...spec.labels, [NAMESPACE_LABEL]: stack } });
}

/** What goes without saying is no news in a plan. */
function nothingBut(name: string, stack: string): NetworkSpec {
  return create(NetworkSpecSchema, { name, labels: { [NAMESPACE_LABEL]: stack } });
}

function describeNetwork(before: NetworkSpec, after: NetworkSpec, action: ObjectPlan_Action): ObjectPlan {
  const { name } = after;
  const changes = diffMessages(NetworkSpecSchema, before, after);
  return create(ObjectPlanSchema, { kind: "network", name, action, changes });
}

function presentProblem({ spec }: Network, wanted: NetworkSpec, stack: string): string | undefined {
  const before = spec ?? create(NetworkSpecSchema, { name: wanted.name });
  const owner = before.labels[NAMESPACE_LABEL];
  if (owner !== stack) {
    const whose = owner === undefined ? "belongs to no stack" : `belongs to stack ${owner}`;
    return `a network of this name is there already and ${whose}`;
  }
  const changes = diffMessages(NetworkSpecSchema, { ...before, labels: {} }, { ...wanted, labels: {} });
  if (changes.length === 0) return undefined;
  const fields = changes.map(({ path, before: from = "(none)", after = "(none)" }) => `${path} ${from} -> ${after}`);
  return `is there already and cannot change (${fields.join(", ")}): give it another name, or remove the stack first`;
}

/** Whether services are on a network that do not go themselves. */
function usedBesides(view: View, removedServices: readonly string[]): (network: string) => boolean {
  const users = networkUsers(view);
  return (network) => (users.get(network) ?? []).some((service) => !removedServices.includes(service));
}
