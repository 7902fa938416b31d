/**
 * What a stack's deploy would do: the file's objects beside the cluster's, field by field. The same plan is shown by
 * `stack plan` and carried out by a deploy, so that the two cannot disagree. Pure.
 *
 *   StackRequest ─┐
 *                 ├─▶ problems (all of them), or objects + content
 *   View ─────────┘
 */
import { create, equals } from "@bufbuild/protobuf";
import type { FieldProblem } from "../../common/base/error.ts";
import { sameServiceSpec, taskSpecChanged } from "../../common/model/task-diff.ts";
import { quoted } from "../../common/model/units.ts";
import { validateServiceSpec } from "../../common/model/validate.ts";
import { volumeProblems } from "../../common/model/validate-volume.ts";
import {
  FieldChangeSchema,
  type ObjectPlan,
  ObjectPlan_Action,
  ObjectPlanSchema,
  type StackBase,
  StackBaseSchema,
  type StackRequest,
  type StackSpec,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type ContentVersion, type StackContent, StackContentSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, ServiceSpecSchema, VolumeSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { type AttachableNetwork, resolveAttachments } from "../control/attachments.ts";
import { type ContentView, resolveContents } from "../control/content-references.ts";
import { clashingPort, heldPorts } from "../control/port-conflicts.ts";
import { withPresentToken } from "../control/services.ts";
import { effectivePins, samePins } from "../store/pins.ts";
import type { View } from "../store/view.ts";
import { circleProblems } from "../waiting-circles.ts";
import { type FileContext, filesOfStack, planFiles, planGoneFiles, withFiles } from "./files.ts";
import { diffMessages } from "./message-diff.ts";
import { networksOfStack, planGoneNetworks, planNetworks } from "./networks.ts";
import { NAMESPACE_LABEL, type PresentService, servicesOfStack, stackNameOf } from "./stack-view.ts";

/** More services in one stack are refused: a file of ten thousand is a mistake (hardening §5, case 52). */
export const SERVICES_MAX = 500;

/** Docker's own rule for the name of a stack. */
const STACK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

/** A service as it is to be, beside the one that is there. */
export interface PlannedService {
  readonly name: string;
  readonly spec: ServiceSpec;
  readonly present: PresentService | undefined;
  readonly action: ObjectPlan_Action;
  /** Whether a secret or config that it refers to has other content. */
  readonly repinned: boolean;
  readonly contentProblems: readonly FieldProblem[];
}

export interface PlannedStack {
  readonly problems: readonly FieldProblem[];
  readonly objects: readonly ObjectPlan[];
  readonly services: readonly PlannedService[];
  /** Contents that are new: to be stored before anything refers to them. */
  readonly versions: readonly ContentVersion[];
  /** What the stack is to be, for its revision. */
  readonly content: StackContent;
  readonly base: StackBase;
  /** Whether anything would be written. */
  readonly changes: boolean;
}

/** What is wrong with a stack's name; undefined for one that it may have. */
export function stackNameProblem(name: string): string | undefined {
  if (STACK_NAME.test(name)) return undefined;
  return `${quoted(name)} is not a stack's name: 1 to 63 letters, digits, "_", "." and "-"`;
}

/** Compares a request with the cluster. With problems nothing may be applied. */
export function planStack(view: View, request: StackRequest, context: FileContext): PlannedStack {
  const spec = request.spec;
  const name = spec?.name ?? "";
  const problems: FieldProblem[] = [];
  const misnamed = stackNameProblem(name);
  if (misnamed !== undefined) problems.push({ field: "name", problem: misnamed });
  const given = spec?.services ?? [];
  if (given.length > SERVICES_MAX) {
    problems.push({ field: "services", problem: `${given.length} services, at most ${SERVICES_MAX} in one stack` });
  }
  const unset = new Set(request.unsetReplicas);
  const files = planFiles(view, request, context);
  const contents = withFiles(view, files.stored);
  const networks = planNetworks(view, request, context.random);
  const services = given.slice(0, SERVICES_MAX).map((each) => {
    const found = { contents, networks: networks.planned, keepsReplicas: unset.has(each.name) };
    return planService(view, { stack: name, given: each, ...found });
  });
  const gone = servicesOfStack(view, name).filter(({ service }) => !given.some((each) => each.name === service.name));
  problems.push(
    ...duplicates(given),
    ...services.flatMap((each) => serviceProblems(view, name, each)),
    ...portProblems(view, services, request.prune ? gone : []),
    ...files.problems,
    ...networks.problems,
    ...circleProblems(
      view,
      services.map((each) => each.spec),
    ),
  );
  const volumes = planVolumes(view, spec, problems);
  const removals = planRemovals(view, request, { gone, services });
  const made = [...networks.objects, ...services.map(describeService)];
  const objects = [...made, ...removals.services, ...files.objects, ...removals.others, ...volumes];
  const stack = view.byName("stack", name);
  const still = new Set([ObjectPlan_Action.UNCHANGED, ObjectPlan_Action.KEEP]);
  return {
    problems,
    objects,
    services,
    versions: files.versions,
    content: create(StackContentSchema, {
      services: services.map((each) => each.spec),
      volumes: spec?.volumes ?? [],
      ...files.stored,
      networks: [...networks.specs],
      ...removals.removed,
    }),
    base: baseOf(view, request),
    changes: stack === undefined || objects.some(({ action }) => !still.has(action)),
  };
}

/** What the stack had and the file has no more: services, and what only they needed. */
function planRemovals(
  view: View,
  request: StackRequest,
  { gone, services }: { readonly gone: readonly PresentService[]; readonly services: readonly PlannedService[] },
) {
  const removedServices = request.prune ? gone.map(({ service }) => service.name) : [];
  const after = { removedServices, specs: services.map((each) => each.spec) };
  const files = planGoneFiles(view, request, after);
  const networks = planGoneNetworks(view, request, after);
  const action = request.prune ? ObjectPlan_Action.REMOVE : ObjectPlan_Action.KEEP;
  return {
    services: gone.map(({ service }) => create(ObjectPlanSchema, { kind: "service", name: service.name, action })),
    others: [...files.objects, ...networks],
    removed: {
      removedServices,
      removedSecrets: files.removed("secret"),
      removedConfigs: files.removed("config"),
      removedNetworks: networks
        .filter((network) => network.action === ObjectPlan_Action.REMOVE)
        .map((network) => network.name),
    },
  };
}

/** What a plan for the stack rests on: its own objects, and what stands where it wants to make some. */
function baseOf(view: View, { spec }: StackRequest): StackBase {
  const name = spec?.name ?? "";
  const wanted = spec?.services.map((each) => each.name) ?? [];
  const names = new Set([...servicesOfStack(view, name).map(({ service }) => service.name), ...wanted]);
  const services = [...names].sort().map((each) => ({
    kind: "service",
    name: each,
    version: view.serviceByName(each)?.specVersion ?? 0n,
  }));
  const contents = (["secret", "config"] as const).flatMap((kind) =>
    filesOfStack(view, kind, name).map((each) => ({ kind, name: each.name, version: each.contentVersion })),
  );
  // Networks are made and removed, never changed.
  const present = networksOfStack(view, name).map((network) => ({ kind: "network", name: network.name, version: 1n }));
  const stack = { kind: "stack", name, version: view.byName("stack", name)?.revision ?? 0n };
  return create(StackBaseSchema, { objects: [stack, ...services, ...contents, ...present] });
}

/** What has changed since a plan was made, in words; empty when it still holds. */
export function staleness(planned: StackBase, now: StackBase): readonly string[] {
  const key = (object: { readonly kind: string; readonly name: string }) => `${object.kind} ${object.name}`;
  const before = new Map(planned.objects.map((object) => [key(object), object.version]));
  const after = new Map(now.objects.map((object) => [key(object), object.version]));
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((each) => {
    const [from = 0n, to = 0n] = [before.get(each), after.get(each)];
    if (from === to) return [];
    return [
      from === 0n
        ? `${each} was created`
        : to === 0n
          ? `${each} was removed`
          : `${each} went from version ${from} to ${to}`,
    ];
  });
}

interface GivenService {
  readonly stack: string;
  readonly given: ServiceSpec;
  readonly contents: ContentView;
  readonly networks: ReadonlyMap<string, AttachableNetwork>;
  readonly keepsReplicas: boolean;
}

function planService(view: View, { stack, given, contents, networks, keepsReplicas }: GivenService): PlannedService {
  const labelled = { ...given, labels: { ...given.labels, [NAMESPACE_LABEL]: stack } };
  const attached = resolveAttachments(view, labelled, networks);
  const { spec: resolved, pins, problems: missing } = resolveContents(contents, attached.spec);
  const problems = [...missing, ...attached.missing, ...attached.problems];
  const service = view.serviceByName(given.name);
  const before = service && view.specVersion(service.id, service.specVersion)?.spec;
  const common = { name: given.name, contentProblems: problems, repinned: false };
  if (!service || !before) {
    return { ...common, spec: resolved, present: undefined, action: ObjectPlan_Action.CREATE };
  }
  const spec = settled(resolved, before, keepsReplicas);
  const repinned = !samePins(effectivePins(view, service.id, service.specVersion), pins);
  const action =
    repinned || taskSpecChanged(before, spec)
      ? ObjectPlan_Action.REPLACE_TASKS
      : sameServiceSpec(before, spec)
        ? ObjectPlan_Action.UNCHANGED
        : ObjectPlan_Action.UPDATE_IN_PLACE;
  return { ...common, repinned, spec, present: { service, spec: before }, action };
}

/** The file's spec with what the cluster keeps where the file is silent: a forced restart, a scaled count, a registry's token. */
function settled(given: ServiceSpec, before: ServiceSpec, keepsReplicas: boolean): ServiceSpec {
  let spec = withPresentToken(given, before);
  const forced = before.task?.forceUpdate ?? 0n;
  if (spec.task && spec.task.forceUpdate === 0n && forced > 0n) {
    spec = { ...spec, task: { ...spec.task, forceUpdate: forced } };
  }
  const scaled = before.mode?.mode.case === "replicated" && (spec.mode?.mode.case ?? "replicated") === "replicated";
  return keepsReplicas && scaled && before.mode ? { ...spec, mode: before.mode } : spec;
}

function describeService({ name, spec, present, action, repinned }: PlannedService): ObjectPlan {
  const before =
    present?.spec ??
    create(ServiceSpecSchema, { name, labels: { [NAMESPACE_LABEL]: spec.labels[NAMESPACE_LABEL] ?? "" } });
  const changes = action === ObjectPlan_Action.UNCHANGED ? [] : diffMessages(ServiceSpecSchema, before, spec);
  if (repinned && changes.length === 0) {
    changes.push(create(FieldChangeSchema, { path: "secrets and configs", after: "content changed" }));
  }
  return create(ObjectPlanSchema, { kind: "service", name, action, changes });
}

function serviceProblems(
  view: View,
  stack: string,
  { name, spec, present, contentProblems }: PlannedService,
): FieldProblem[] {
  const field = `services.${name}`;
  const problems = [...validateServiceSpec(spec), ...contentProblems].map((each) => ({
    field: `${field}.${each.field}`,
    problem: each.problem,
  }));
  if (present === undefined) {
    if (view.serviceByName(name)) problems.push({ field, problem: "the service has lost its spec: remove it first" });
    return problems;
  }
  const owner = stackNameOf(present.spec);
  if (owner !== stack) {
    const whose = owner === undefined ? "belongs to no stack" : `belongs to stack ${owner}`;
    problems.push({ field, problem: `a service of this name is there already and ${whose}` });
  }
  const [from, to] = [present.spec, spec].map((each) => each.mode?.mode.case ?? "replicated");
  if (from !== to) {
    problems.push({ field: `${field}.mode`, problem: `cannot change from ${from} to ${to}: remove the service first` });
  }
  return problems;
}

function duplicates(services: readonly ServiceSpec[]): FieldProblem[] {
  const seen = new Set<string>();
  return services.flatMap(({ name }) => {
    if (!seen.has(name)) {
      seen.add(name);
      return [];
    }
    return [{ field: `services.${name}`, problem: "stands twice" }];
  });
}

/** Ports that would clash once all is applied: with other services, and within the stack. */
function portProblems(
  view: View,
  planned: readonly PlannedService[],
  removed: readonly PresentService[],
): FieldProblem[] {
  const published = planned.filter(({ spec }) => spec.endpoint?.ports.some(({ publishedPort }) => publishedPort !== 0));
  if (published.length === 0) return [];
  const own = new Set([...planned.map(({ name }) => name), ...removed.map(({ service }) => service.name)]);
  const others = [...view.services.values()]
    .filter(({ name }) => !own.has(name))
    .map(({ id, name }) => ({ name, ports: heldPorts(view, id) }));
  const problems: FieldProblem[] = [];
  published.forEach(({ name, spec }, position) => {
    const earlier = published
      .slice(0, position)
      .map((each) => ({ name: each.name, ports: each.spec.endpoint?.ports ?? [] }));
    spec.endpoint?.ports.forEach((port, index) => {
      const holder = [...others, ...earlier].find(({ ports }) => clashingPort(port, ports));
      if (holder === undefined) return;
      const problem = `port '${port.publishedPort}' is already in use by service '${holder.name}'`;
      problems.push({ field: `services.${name}.ports[${index}]`, problem });
    });
  });
  return problems;
}

function planVolumes(view: View, stack: StackSpec | undefined, problems: FieldProblem[]): ObjectPlan[] {
  for (const external of stack?.externalVolumes ?? []) {
    if (!volumeExists(view, external)) {
      problems.push({ field: `volumes.${external}`, problem: "is external and does not exist" });
    }
  }
  return (stack?.volumes ?? []).map((spec) => {
    const { name } = spec;
    for (const { field, problem } of volumeProblems(spec)) {
      problems.push({ field: `volumes.${name}.${field}`, problem });
    }
    const before = view.byName("volume", name)?.spec;
    if (before === undefined) {
      const changes = diffMessages(VolumeSpecSchema, create(VolumeSpecSchema, { name }), spec);
      return create(ObjectPlanSchema, { kind: "volume", name, action: ObjectPlan_Action.CREATE, changes });
    }
    const same = equals(VolumeSpecSchema, before, spec);
    if (!equals(VolumeSpecSchema, { ...before, labels: {} }, { ...spec, labels: {} })) {
      problems.push({
        field: `volumes.${name}`,
        problem: "is there already with another driver or other options, which cannot change",
      });
    }
    const action = same ? ObjectPlan_Action.UNCHANGED : ObjectPlan_Action.UPDATE_IN_PLACE;
    return create(ObjectPlanSchema, {
      kind: "volume",
      name,
      action,
      changes: diffMessages(VolumeSpecSchema, before, spec),
    });
  });
}

function volumeExists(view: View, name: string): boolean {
  if (view.byName("volume", name)) return true;
  return view.nodeVolumes.values().some(({ volumes }) => volumes.some((volume) => volume.name === name));
}
