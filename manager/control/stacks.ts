/**
 * Stacks: planned, applied, listed, rolled back, removed. What a stack is to be is stored before anything follows it:
 *
 *   plan ── fits ──▶ one transaction: revision, services, stack APPLIED
 *        └─ large ─▶ revision + stack APPLYING ──▶ services, in groups ──▶ removals ──▶ stack APPLIED
 *                                                   └── the leader goes on here, should this manager die
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import {
  type ApplyStackRequest,
  type ApplyStackResponse,
  ApplyStackResponseSchema,
  type ListStackRevisionsResponse,
  ListStackRevisionsResponseSchema,
  type ObjectVersion,
  ObjectVersionSchema,
  type RemoveStackRequest,
  type RemoveStackResponse,
  RemoveStackResponseSchema,
  type RollbackStackRequest,
  type StackFileSpec,
  StackFileSpecSchema,
  type StackPlan,
  StackPlanSchema,
  type StackRequest,
  StackRequestSchema,
  type StackView,
  StackViewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type Stack,
  Stack_State,
  type StackFile,
  StackRevisionSchema,
  StackSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { FILE_KINDS, type FileContext, type FileKind, filesOfStack, removeFile } from "../stacks/files.ts";
import { networksOfStack } from "../stacks/networks.ts";
import { type PlannedStack, planStack, stackNameProblem, staleness } from "../stacks/plan.ts";
import { applied } from "../stacks/stack-keeper.ts";
import { newestRevision, packContent, servicesOfStack, stackNameOf, unpackContent } from "../stacks/stack-view.ts";
import { allSteps, remainingSteps, removeService } from "../stacks/steps.ts";
import { versionId } from "../store/kinds.ts";
import type { Proposal } from "../store/proposal.ts";
import { specsReferringTo } from "./content-references.ts";
import { contentVersion, isContent } from "./contents.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { networkUsers } from "./network-users.ts";
import { withPlacements } from "./stack-placement.ts";

/** How often a write is tried again when a loop changed the same object meanwhile. */
const ATTEMPTS_MAX = 10;
/** Below the store's 100 operations and 1 MiB, since keys count as well. */
const OPERATIONS_MAX = 90;
const BYTES_MAX = 768 * 1024;
/** A revision is one value of the store. */
const CONTENT_BYTES_MAX = 900 * 1024;

/** What ApplyStack would do, and where new tasks would go. */
export function planOnly(dependencies: ControlDependencies, request: StackRequest | undefined): StackPlan {
  const { store, clock } = dependencies;
  const wanted = requireStack(request);
  const planned = checked(planStack(store.view, wanted, fileContext(dependencies)));
  return planMessage(wanted, planned, withPlacements(store.view, planned, clock.nowMs()));
}

/** Makes the stack what the request says. */
export async function applyStack(
  dependencies: ControlDependencies,
  request: ApplyStackRequest,
  signal: AbortSignal,
): Promise<ApplyStackResponse> {
  const wanted = requireStack(request.stack);
  return await apply(dependencies, { wanted, message: "deploy", base: request.base }, signal);
}

/** Applies an earlier revision as a new one; services that came after it go. */
export async function rollbackStack(
  dependencies: ControlDependencies,
  request: RollbackStackRequest,
  signal: AbortSignal,
): Promise<ApplyStackResponse> {
  const { view } = dependencies.store;
  const stack = requireNamed(dependencies, request.name);
  const revisions = view.versionsOf("stackrevision", stack.id);
  const to = request.to === 0n ? revisions.findLast(({ revision }) => revision < stack.revision)?.revision : request.to;
  if (to === undefined) {
    throw new SwarmError("failed_precondition", `stack ${stack.name} has no earlier revision to roll back to`);
  }
  const target = revisions.find(({ revision }) => revision === to);
  if (target === undefined) {
    const kept = revisions.map(({ revision }) => revision).join(", ");
    throw new SwarmError("not_found", `stack ${stack.name} has no revision ${to}; it has ${kept}`);
  }
  const content = unpackContent(target);
  const spec = {
    name: stack.name,
    services: content.services.map((each) => withoutToken(dependencies, each)),
    volumes: content.volumes,
    secrets: content.secrets.map((file) => storedFile(dependencies, "secret", file)),
    configs: content.configs.map((file) => storedFile(dependencies, "config", file)),
    networks: content.networks,
  };
  const wanted = create(StackRequestSchema, { spec, prune: true });
  return await apply(dependencies, { wanted, message: `rollback to ${to}`, base: undefined }, signal);
}

/** Every stack, by its own object or by the labels of services, in order of name. */
export function listStacks({ store }: ControlDependencies): StackView[] {
  const { view } = store;
  const counts = new Map<string, number>();
  for (const { name } of view.stacks.values()) counts.set(name, 0);
  for (const service of view.services.values()) {
    const name = stackNameOf(view.specVersion(service.id, service.specVersion)?.spec);
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts]
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, services]) => {
      const stack = view.byName("stack", name);
      return create(StackViewSchema, { name, services: BigInt(services), ...(stack ? { stack } : {}) });
    });
}

/** A stack's revisions, oldest first; what they hold stays here, since tokens are in it. */
export function listStackRevisions(dependencies: ControlDependencies, name: string): ListStackRevisionsResponse {
  const stack = requireNamed(dependencies, name);
  const revisions = dependencies.store.view.versionsOf("stackrevision", stack.id);
  return create(ListStackRevisionsResponseSchema, {
    revisions: revisions.map((each) => ({ ...each, content: new Uint8Array() })),
  });
}

/** Removes the stack's services, its networks but for those that others use, and its history. Volumes hold data: they stay, and are named. */
export async function removeStack(
  { store }: ControlDependencies,
  { name }: RemoveStackRequest,
  signal: AbortSignal,
): Promise<RemoveStackResponse> {
  const { view } = store;
  const removed: ObjectVersion[] = [];
  const revision = view.byName("stack", name);
  const content = revision && newestRevision(view, revision);
  const keptVolumes = content ? unpackContent(content).volumes.map((volume) => volume.name) : [];
  if (!revision && servicesOfStack(view, name).length + networksOfStack(view, name).length === 0) {
    requireStackName(name);
    throw new SwarmError("not_found", `nothing found in stack: ${name}`);
  }
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const own = servicesOfStack(view, name);
    const stack = view.byName("stack", name);
    const files = FILE_KINDS.flatMap((kind) => filesOfStack(view, kind, name).map((object) => ({ kind, object })));
    const unused = files.filter(({ object }) => specsReferringTo(view, object.id).length === 0);
    const networks = networksOfStack(view, name);
    const users = networkUsers(view);
    const left = networks.filter((network) => !users.has(network.name));
    if (own.length === 0 && stack === undefined && unused.length + left.length === 0) {
      const keptNetworks = networks.map((network) => network.name);
      return create(RemoveStackResponseSchema, { removed, keptVolumes, keptNetworks });
    }
    // The stack goes first: a leader must not bring back what is being removed.
    if (stack) {
      const revisions = view.versionsOf("stackrevision", stack.id).slice(-OPERATIONS_MAX);
      const group: readonly Proposal[] = [
        { type: "delete", kind: "stack", id: stack.id },
        ...revisions.map(
          (each): Proposal => ({
            type: "delete",
            kind: "stackrevision",
            id: versionId(stack.id, each.revision),
          }),
        ),
      ];
      await store.commit([group], { signal });
      continue;
    }
    if (own.length === 0) {
      const groups = unused.map(({ kind, object }) => removeFile(view, kind, object.id));
      const deletions = left.map(({ id }): Proposal => ({ type: "delete", kind: "network", id }));
      await store.commit([...groups, ...deletions], { signal });
      for (const network of left) {
        if (view.networks.has(network.id)) continue;
        removed.push(create(ObjectVersionSchema, { kind: "network", name: network.name }));
      }
      for (const { kind, object } of unused) {
        const { name: file, contentVersion } = object;
        if (!view.get(kind, object.id))
          removed.push(create(ObjectVersionSchema, { kind, name: file, version: contentVersion }));
      }
      continue;
    }
    await store.commit(
      own.map(({ service }) => removeService(view, service.id)),
      { signal },
    );
    for (const { service } of own) {
      if (view.services.has(service.id)) continue;
      removed.push(create(ObjectVersionSchema, { kind: "service", name: service.name, version: service.specVersion }));
    }
  }
  throw new SwarmError("aborted", `remove stack ${name}: the store keeps changing, try again`);
}

interface Application {
  readonly wanted: StackRequest;
  readonly message: string;
  readonly base: ApplyStackRequest["base"];
}

async function apply(
  dependencies: ControlDependencies,
  { wanted, message, base }: Application,
  signal: AbortSignal,
): Promise<ApplyStackResponse> {
  const { store } = dependencies;
  const name = wanted.spec?.name ?? "";
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const present = store.view.byName("stack", name);
    // What another deploy began is finished first: two half stacks at once would be neither.
    if (present?.state === Stack_State.APPLYING) await finish(dependencies, present.id, signal);
    const planned = checked(planStack(store.view, wanted, fileContext(dependencies)));
    if (base) requireFresh(name, staleness(base, planned.base));
    if (!planned.changes) return answer(dependencies, wanted, planned);
    if (await write(dependencies, { name, planned, message }, signal)) return answer(dependencies, wanted, planned);
  }
  throw new SwarmError("aborted", `deploy stack ${name}: the store keeps changing, try again`);
}

/** Stores the revision and what follows from it; false: something else changed meanwhile. */
async function write(
  dependencies: ControlDependencies,
  { name, planned, message }: { readonly name: string; readonly planned: PlannedStack; readonly message: string },
  signal: AbortSignal,
): Promise<boolean> {
  const { store, random, clock } = dependencies;
  const nowMs = clock.nowMs();
  const steps = allSteps(store.view, planned.content, { nowMs, random });
  const content = packContent(planned.content);
  if (content.length > CONTENT_BYTES_MAX) {
    throw new SwarmError(
      "invalid_argument",
      `stack ${name}: ${content.length} bytes compressed, at most ${CONTENT_BYTES_MAX}`,
    );
  }
  const present = store.view.byName("stack", name);
  const id = present?.id ?? newId<Branded<"stack">>(random);
  const revision = (present?.revision ?? 0n) + 1n;
  const files = planned.versions.map((object): Proposal => ({ type: "create", kind: "content", object }));
  const small = fits([...files, ...steps], content.length);
  const state = small ? Stack_State.APPLIED : Stack_State.APPLYING;
  const stack = create(StackSchema, { ...(present ?? { id, name }), revision, state });
  const pins = [...planned.content.secrets, ...planned.content.configs].map(({ objectId, version }) => ({
    objectId,
    version,
  }));
  const stored = create(StackRevisionSchema, {
    stackId: id,
    revision,
    content,
    message,
    createdAt: toTimestamp(nowMs),
    pins,
  });
  const group: readonly Proposal[] = [
    present ? { type: "update", kind: "stack", object: stack } : { type: "create", kind: "stack", object: stack },
    { type: "create", kind: "stackrevision", object: stored },
    ...(small ? [...files, ...steps] : []),
  ];
  // Nothing refers to a content before the revision does: those that stay alone are collected.
  if (!small && files.length > 0 && (await store.commit(files, { signal })).conflicts.length > 0) return false;
  const { conflicts } = await store.commit([group], { signal });
  if (conflicts.length > 0) return false;
  if (!small) await finish(dependencies, id, signal);
  return true;
}

/** Brings a stack that is APPLYING to its end. Another manager may be at it too: a conflict only means looking again. */
async function finish(
  { store, random, clock }: ControlDependencies,
  stackId: string,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const stack = store.view.stacks.get(stackId);
    if (stack?.state !== Stack_State.APPLYING) return;
    const revision = newestRevision(store.view, stack);
    const steps = revision ? remainingSteps(store.view, unpackContent(revision), { nowMs: clock.nowMs(), random }) : [];
    try {
      await store.commit(steps.length > 0 ? steps : [applied(stack)], { signal });
    } catch (reason) {
      // The leader, or another manager, has made a service of this stack at the same moment.
      if (!(reason instanceof SwarmError) || reason.code !== "already_exists") throw reason;
    }
  }
  throw new SwarmError("aborted", "deploy stack: the store keeps changing; the leader goes on with it");
}

/** Whether all can be one transaction. */
function fits(steps: readonly Proposal[], contentBytes: number): boolean {
  let [operations, bytes] = [4, contentBytes];
  for (const step of steps) {
    const named = step.kind !== "spec" && step.type !== "update";
    operations += named ? 2 : 1;
    if (step.kind === "spec" && step.type === "create" && step.object.spec) {
      bytes += toBinary(ServiceSpecSchema, step.object.spec).length;
    }
    if (step.kind === "content" && step.type === "create") bytes += step.object.data.length;
    bytes += 1024;
  }
  return operations <= OPERATIONS_MAX && bytes <= BYTES_MAX;
}

function answer({ store }: ControlDependencies, wanted: StackRequest, planned: PlannedStack): ApplyStackResponse {
  const name = wanted.spec?.name ?? "";
  const stack = store.view.byName("stack", name);
  return create(ApplyStackResponseSchema, {
    plan: planMessage(wanted, planned, planned.objects),
    ...(stack ? { stack } : {}),
    services: planned.services.flatMap((each) => {
      const service = store.view.serviceByName(each.name);
      return service ? [{ id: service.id, name: service.name, specVersion: service.specVersion }] : [];
    }),
  });
}

function planMessage(
  wanted: StackRequest,
  { base }: PlannedStack,
  objects: StackPlan["objects"] | PlannedStack["objects"],
): StackPlan {
  return create(StackPlanSchema, { stack: wanted.spec?.name ?? "", objects: [...objects], base });
}

function checked(planned: PlannedStack): PlannedStack {
  if (planned.problems.length > 0) throw invalidFields(planned.problems);
  return planned;
}

function requireStack(request: StackRequest | undefined): StackRequest {
  if (request?.spec === undefined) throw invalidFields([{ field: "stack.spec", problem: "must be provided" }]);
  return request;
}

function requireFresh(name: string, stale: readonly string[]): void {
  if (stale.length === 0) return;
  throw new SwarmError("aborted", `the plan for stack ${name} is out of date: ${stale.join(", ")}; plan again`);
}

function requireStackName(name: string): void {
  const problem = stackNameProblem(name);
  if (problem !== undefined) throw invalidFields([{ field: "name", problem }]);
}

function requireNamed({ store }: ControlDependencies, name: string): Stack {
  requireStackName(name);
  const stack = store.view.byName("stack", name);
  if (stack === undefined) throw new SwarmError("not_found", `no such stack: ${name}`);
  return stack;
}

/** How contents are made and told apart here: sealed under the cluster's key. */
function fileContext(dependencies: ControlDependencies): FileContext {
  return {
    random: dependencies.random,
    contentVersion: (kind, of) => contentVersion(dependencies, kind, of),
    isContent: (kind, stored, data) => isContent(dependencies, kind, stored, data),
  };
}

/** A secret or config as a revision had it, with its bytes. */
function storedFile({ store, sealer }: ControlDependencies, kind: FileKind, file: StackFile): StackFileSpec {
  const { name, labels, templateDriver, objectId, version } = file;
  const stored = store.view.versionOf("content", objectId, version);
  if (stored === undefined) {
    throw new SwarmError(
      "failed_precondition",
      `the content that ${kind} ${name} had then was removed with the ${kind}`,
    );
  }
  const data = stored.sealed ? sealer.open(stored.data, versionId(objectId, version)) : stored.data;
  return create(StackFileSpecSchema, { name, labels, templateDriver, data });
}

/** A token of long ago gives way to the one that the service has now. */
function withoutToken({ store }: ControlDependencies, spec: ServiceSpec): ServiceSpec {
  const container = spec.task?.container;
  if (!spec.task || !container?.pullOptions || !store.view.serviceByName(spec.name)) return spec;
  const { pullOptions: _, ...rest } = container;
  return { ...spec, task: { ...spec.task, container: rest } };
}
