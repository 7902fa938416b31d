/** Services: create, update, roll back, remove, list. Writes go straight to the store; the loops see them there. */
import { create } from "@bufbuild/protobuf";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { newId, type ServiceId } from "../../common/base/id.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import { parseImageReference } from "../../common/model/image-reference.ts";
import { randomServiceName } from "../../common/model/names.ts";
import { sameServiceSpec, taskSpecChanged } from "../../common/model/task-diff.ts";
import { validateServiceSpec } from "../../common/model/validate.ts";
import type {
  CreateServiceRequest,
  ListServicesRequest,
  RemoveServiceRequest,
  ServiceView,
  UpdateServiceRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type Service,
  ServiceSchema,
  type SpecVersion,
  SpecVersionSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ContentPin, PullOptionsSchema, type ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { versionId } from "../store/kinds.ts";
import { effectivePins, samePins } from "../store/pins.ts";
import type { Proposal } from "../store/proposal.ts";
import { circleProblems } from "../waiting-circles.ts";
import { requireAttachable, resolveAttachments } from "./attachments.ts";
import { type ResolvedContents, resolveContents } from "./content-references.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { serviceLookup } from "./lookups.ts";
import { portConflicts } from "./port-conflicts.ts";
import { requireId, resolveReferences } from "./references.ts";
import { advanced, resumed } from "./service-versions.ts";
import { serviceView } from "./views.ts";

/** Spec versions deleted with their service in one transaction; the store takes 100 operations, two of them are the service's. */
const SPECS_PER_TRANSACTION = 90;
/** How often a write is tried again when a loop changed the same object meanwhile. */
const ATTEMPTS_MAX = 5;
/** Random names that are tried before giving up: there are about 25,000. */
const NAMES_MAX = 20;

/** Stores a new service and its first spec version together. */
export async function createService(
  dependencies: ControlDependencies,
  request: CreateServiceRequest,
  signal: AbortSignal,
): Promise<ServiceView> {
  const { store, random, clock } = dependencies;
  const given = request.spec;
  if (given === undefined) throw invalidFields([{ field: "spec", problem: "must be provided" }]);
  const named = given.name === "" ? { ...given, name: freeName(dependencies) } : given;
  const { spec, pins } = check(dependencies, named, undefined);
  const taken = store.view.serviceByName(spec.name);
  if (taken !== undefined) throw nameTaken(spec.name, taken.id);
  const id = newId<ServiceId>(random);
  const service = create(ServiceSchema, { id, name: spec.name, specVersion: 1n, taskVersion: 1n });
  const version = specVersion({ serviceId: id, version: 1n, taskVersion: 1n, spec, pins }, clock.nowMs());
  const group: readonly Proposal[] = [
    { type: "create", kind: "service", object: service },
    { type: "create", kind: "spec", object: version },
  ];
  const { conflicts } = await store.commit([group], { signal });
  if (conflicts.length > 0)
    throw new SwarmError("aborted", `create service ${spec.name}: the store changed, try again`);
  return viewOf(dependencies, id);
}

/** Stores a new spec version and makes it the service's; what changes nothing resumes a paused update, and else is answered with what is there. */
export async function updateService(
  dependencies: ControlDependencies,
  request: UpdateServiceRequest,
  signal: AbortSignal,
): Promise<ServiceView> {
  const { store, clock } = dependencies;
  const first = requireId(store.view.services, "service", request.serviceId);
  if (request.version !== (first.meta?.version ?? 0n)) throw outOfSequence(first);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const service = requireId(store.view.services, "service", request.serviceId);
    // A loop may have written the service meanwhile; another user's new spec must not be overwritten.
    if (service.specVersion !== first.specVersion) throw outOfSequence(service);
    const present = store.view.specVersion(service.id, service.specVersion)?.spec;
    if (present === undefined) throw new SwarmError("data_loss", `service ${service.name} has lost its spec`);
    const asked = request.rollback ? previousSpec(dependencies, service) : wantedSpec(request, present);
    const { spec, pins: newest } = checkUpdate(dependencies, service, { present, spec: asked });
    const pins = request.rollback ? previousPins(dependencies, service) : newest;
    const repinned = !samePins(effectivePins(store.view, service.id, service.specVersion), pins);
    const nowMs = clock.nowMs();
    if (sameServiceSpec(present, spec) && !(request.rollback && repinned)) {
      const object = resumed(service, nowMs);
      if (object === undefined) return viewOf(dependencies, service.id);
      const { conflicts } = await store.commit([{ type: "update", kind: "service", object }], { signal });
      if (conflicts.length === 0) return viewOf(dependencies, service.id);
      continue;
    }
    const version = service.specVersion + 1n;
    const replaced = taskSpecChanged(present, spec) || repinned;
    const object = advanced(service, { version, replaced, rollback: request.rollback, nowMs });
    const made = { serviceId: service.id, version, taskVersion: object.taskVersion, spec, pins };
    const group: readonly Proposal[] = [
      { type: "create", kind: "spec", object: specVersion(made, nowMs) },
      { type: "update", kind: "service", object },
    ];
    const { conflicts } = await store.commit([group], { signal });
    if (conflicts.length === 0) return viewOf(dependencies, service.id);
  }
  throw new SwarmError("aborted", `update service ${first.name}: the store keeps changing, try again`);
}

/** Removes a service with its name and specs. Its tasks stay until the loops have stopped them. */
export async function removeService(
  { store }: ControlDependencies,
  request: RemoveServiceRequest,
  signal: AbortSignal,
): Promise<void> {
  requireId(store.view.services, "service", request.serviceId);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const service = store.view.services.get(request.serviceId);
    if (service === undefined) return;
    const versions = store.view.specVersions(service.id).map(({ version }) => version);
    const remove = (version: bigint): Proposal => ({
      type: "delete",
      kind: "spec",
      id: versionId(service.id, version),
    });
    // The oldest go first: until the service itself goes, its tasks still need the newest.
    const old = versions.slice(0, -SPECS_PER_TRANSACTION).map(remove);
    if (old.length > 0) await store.commit(old, { signal });
    const last: readonly Proposal[] = [
      { type: "delete", kind: "service", id: service.id },
      ...versions.slice(-SPECS_PER_TRANSACTION).map(remove),
    ];
    const { conflicts } = await store.commit([last], { signal });
    if (conflicts.length === 0) return;
  }
  throw new SwarmError("aborted", `remove service ${request.serviceId}: the store keeps changing, try again`);
}

/** Services by reference, or all, sorted by name. */
export function listServices({ store }: ControlDependencies, request: ListServicesRequest): ServiceView[] {
  const services = [...resolveReferences(serviceLookup(store.view), request.references)];
  services.sort((left, right) => (left.name < right.name ? -1 : Number(left.name > right.name)));
  return services.map((service) => serviceView(store.view, service, { withoutSpecs: request.withoutSpecs }));
}

function viewOf({ store }: ControlDependencies, id: string): ServiceView {
  const service = store.view.services.get(id);
  if (service === undefined) throw new SwarmError("not_found", `no such service: ${id}`);
  return serviceView(store.view, service, { withoutSpecs: false });
}

function specVersion(
  made: {
    readonly serviceId: string;
    readonly version: bigint;
    readonly taskVersion: bigint;
    readonly spec: ServiceSpec;
    readonly pins: readonly ContentPin[];
  },
  nowMs: number,
): SpecVersion {
  return create(SpecVersionSchema, { ...made, pins: [...made.pins], createdAt: toTimestamp(nowMs) });
}

function freeName({ store, random }: ControlDependencies): string {
  for (let attempt = 0; attempt < NAMES_MAX; attempt++) {
    const name = randomServiceName(random, attempt);
    if (store.view.serviceByName(name) === undefined) return name;
  }
  throw new SwarmError("resource_exhausted", "create service: no free random name, choose one");
}

/** Checks a spec and finds what it refers to. */
function check({ store }: ControlDependencies, spec: ServiceSpec, ownId: string | undefined): ResolvedContents {
  const problems = validateServiceSpec(spec);
  if (problems.length > 0) throw invalidFields(problems);
  const attached = resolveAttachments(store.view, spec);
  requireAttachable(attached);
  const resolved = resolveContents(store.view, attached.spec);
  const conflicts = [
    ...portConflicts(store.view, spec, ownId),
    ...resolved.problems,
    ...circleProblems(store.view, [spec]),
  ];
  if (conflicts.length > 0) throw invalidFields(conflicts);
  return resolved;
}

function checkUpdate(
  dependencies: ControlDependencies,
  service: Service,
  { present, spec }: { readonly present: ServiceSpec; readonly spec: ServiceSpec },
): ResolvedContents {
  if (spec.name !== service.name) {
    throw new SwarmError("unimplemented", `renaming services is not supported: ${service.name}`);
  }
  if ((spec.mode?.mode.case ?? "replicated") !== (present.mode?.mode.case ?? "replicated")) {
    throw new SwarmError("unimplemented", `service mode change is not allowed: ${service.name}`);
  }
  return check(dependencies, spec, service.id);
}

/** The content that the previous spec version had. */
function previousPins({ store }: ControlDependencies, service: Service): readonly ContentPin[] {
  // What a pin once told running tasks is no news to those that a rollback makes.
  const pins = effectivePins(store.view, service.id, service.previousSpecVersion);
  return pins.map((pin) => ({ ...pin, signal: "" }));
}

function wantedSpec(request: UpdateServiceRequest, present: ServiceSpec): ServiceSpec {
  if (request.spec === undefined) throw invalidFields([{ field: "spec", problem: "must be provided" }]);
  return withPresentToken(request.spec, present);
}

/**
 * The spec that is asked for. The API never shows a registry's token, so one that is absent means the one that is there, but
 * only for an image of the same registry: it must not be sent to another.
 */
export function withPresentToken(spec: ServiceSpec, present: ServiceSpec): ServiceSpec {
  const token = present.task?.container?.pullOptions?.registryAuth;
  const { task } = spec;
  if (!token || task?.container === undefined || task.container.pullOptions !== undefined) return spec;
  if (registryOf(task.container.image) !== registryOf(present.task?.container?.image ?? "")) return spec;
  const pullOptions = create(PullOptionsSchema, { registryAuth: token });
  return { ...spec, task: { ...task, container: { ...task.container, pullOptions } } };
}

function registryOf(image: string): string | undefined {
  const parsed = parseImageReference(image);
  return parsed.ok ? parsed.reference.domain : undefined;
}

function previousSpec({ store }: ControlDependencies, service: Service): ServiceSpec {
  const previous = store.view.specVersion(service.id, service.previousSpecVersion)?.spec;
  if (previous !== undefined) return previous;
  throw new SwarmError("failed_precondition", `service ${service.name} does not have a previous spec to roll back to`);
}

function nameTaken(name: string, id: string): SwarmError {
  return new SwarmError("already_exists", `service name ${JSON.stringify(name)} is in use (${id})`);
}

function outOfSequence(service: Service): SwarmError {
  return new SwarmError("aborted", `update out of sequence: service ${service.name} has changed since it was read`);
}
