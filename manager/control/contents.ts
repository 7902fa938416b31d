/**
 * Secrets and configs: made, changed in content, removed. Content lies in immutable versions; a change makes a new one,
 * and each service that refers to it a new spec version that pins it: so the update policy, the history and rollbacks of
 * services hold for what they read as well.
 *
 *   update ── same bytes ──▶ nothing
 *          ── new bytes ──▶ version n+1 ──▶ object ┬─ roll: spec version with task_version raised: tasks are replaced
 *                                                   └─ in place: task_version stays: tasks keep running and get the file
 */
import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type FieldProblem, invalidFields, SwarmError } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import { sameBytes } from "../../common/base/same-bytes.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import { contentProblems } from "../../common/model/validate-content.ts";
import {
  type CreateContentRequest,
  type UpdateContentRequest,
  UpdateContentRequest_OnChange,
} from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type Config,
  ConfigSchema,
  type ContentVersion,
  ContentVersionSchema,
  type Secret,
  SecretSchema,
  type Service,
  SpecVersionSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ContentPin, ContentPinSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { versionId } from "../store/kinds.ts";
import { effectivePins } from "../store/pins.ts";
import type { Proposal } from "../store/proposal.ts";
import { servicesReferringTo, specsReferringTo } from "./content-references.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { configLookup, secretLookup } from "./lookups.ts";
import { requireId, resolveReferences } from "./references.ts";
import { advanced } from "./service-versions.ts";

/** "secret" or "config": their objects differ in nothing that matters here. */
export type ContentKind = "secret" | "config";
type ContentObject = Secret | Config;
type ContentId = Branded<"content">;

/** Services whose new versions share a transaction: two objects each, with specs of up to 256 KiB. */
const SERVICES_PER_TRANSACTION = 3;
/** How often a write is tried again when a loop or another user changed the same object meanwhile. */
const ATTEMPTS_MAX = 5;

/** Makes a secret or config with its first version. */
export async function createContent<K extends ContentKind>(
  dependencies: ControlDependencies,
  kind: K,
  request: CreateContentRequest,
  signal: AbortSignal,
): Promise<string> {
  const { store, random } = dependencies;
  const { name, labels, templateDriver, data } = request;
  const problems = contentProblems(kind, { name, labels, templateDriver, data });
  if (problems.length > 0) throw invalidFields(problems);
  const taken = store.view.byName(kind, name);
  if (taken !== undefined) throw nameTaken(kind, name, taken.id);
  const id = newId<ContentId>(random);
  const content = contentVersion(dependencies, kind, { objectId: id, version: 1n, data });
  const fields = {
    id,
    name,
    spec: { name, labels, templateDriver },
    contentVersion: 1n,
    sizeBytes: BigInt(data.length),
  };
  const group: readonly Proposal[] = [
    kind === "secret"
      ? { type: "create", kind: "secret", object: create(SecretSchema, fields) }
      : { type: "create", kind: "config", object: create(ConfigSchema, fields) },
    { type: "create", kind: "content", object: content },
  ];
  const { conflicts } = await store.commit([group], { signal });
  if (conflicts.length > 0) throw new SwarmError("aborted", `create ${kind} ${name}: the store changed, try again`);
  return id;
}

/** Changes labels or content; answers the services that follow a change of content. */
export async function updateContent(
  dependencies: ControlDependencies,
  kind: ContentKind,
  request: UpdateContentRequest,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { store } = dependencies;
  const objects = kind === "secret" ? store.view.secrets : store.view.configs;
  const first: ContentObject = requireId<ContentObject>(objects, kind, request.id);
  if (request.version !== (first.meta?.version ?? 0n)) throw outOfSequence(kind, first.name);
  checkUpdate(kind, first, request);
  const spec = { name: first.name, labels: first.spec?.labels ?? {}, templateDriver: first.spec?.templateDriver ?? "" };
  if (request.labels) spec.labels = request.labels.labels;
  const { data } = request;
  if (data === undefined || isPresent(dependencies, kind, first, data)) {
    await commitObject(dependencies, kind, { ...first, spec: { ...first.spec, ...spec } } as ContentObject, signal);
    return [];
  }
  // The version goes ahead: it is large, harms nobody, and is collected if what follows fails.
  const versions = store.view.versionsOf("content", first.id);
  const version = (versions.at(-1)?.version ?? first.contentVersion) + 1n;
  const content = contentVersion(dependencies, kind, { objectId: first.id, version, data });
  const written = await store.commit([{ type: "create", kind: "content", object: content }], { signal });
  if (written.conflicts.length > 0) throw outOfSequence(kind, first.name);
  const changed = {
    ...first,
    spec: { ...first.spec, ...spec },
    contentVersion: version,
    sizeBytes: BigInt(data.length),
  };
  await commitObject(dependencies, kind, changed as ContentObject, signal);
  return await followChange(dependencies, { objectId: first.id, version }, request, signal);
}

/** Removes a secret or config that nothing refers to, with all its versions. */
export async function removeContent(
  { store }: ControlDependencies,
  kind: ContentKind,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const objects = kind === "secret" ? store.view.secrets : store.view.configs;
    const object: ContentObject = requireId<ContentObject>(objects, kind, id);
    const users = specsReferringTo(store.view, id);
    if (users.length > 0) {
      const services = users.length === 1 ? `service: ${users[0]}` : `services: ${users.join(", ")}`;
      throw new SwarmError("failed_precondition", `${kind} '${object.name}' is in use by the following ${services}`);
    }
    const versions = store.view.versionsOf("content", id);
    const group: readonly Proposal[] = [
      { type: "delete", kind, id },
      ...versions.map(({ version }): Proposal => ({ type: "delete", kind: "content", id: versionId(id, version) })),
    ];
    const { conflicts } = await store.commit([group], { signal });
    if (conflicts.length === 0) return;
  }
  throw new SwarmError("aborted", `remove ${kind} ${id}: the store keeps changing, try again`);
}

export function listSecrets({ store }: ControlDependencies, references: readonly string[]): Secret[] {
  return byName([...resolveReferences(secretLookup(store.view), references)]);
}

/** With their bytes, if asked: a config hides nothing. */
export function listConfigs(
  { store }: ControlDependencies,
  references: readonly string[],
  withData: boolean,
): { readonly config: Config; readonly data: Uint8Array }[] {
  return byName([...resolveReferences(configLookup(store.view), references)]).map((config) => {
    const content = withData ? store.view.versionOf("content", config.id, config.contentVersion) : undefined;
    return { config, data: content?.data ?? new Uint8Array() };
  });
}

function byName<T extends ContentObject>(objects: T[]): T[] {
  return objects.sort((left, right) => (left.name < right.name ? -1 : Number(left.name > right.name)));
}

/** Seals a secret's data; a config's lies there as it is. */
export function contentVersion(
  { sealer, clock }: Pick<ControlDependencies, "sealer" | "clock">,
  kind: ContentKind,
  of: { readonly objectId: string; readonly version: bigint; readonly data: Uint8Array },
): ContentVersion {
  const { objectId, version, data } = of;
  const sealed = kind === "secret";
  return create(ContentVersionSchema, {
    objectId,
    version,
    data: sealed ? sealer.seal(data, versionId(objectId, version)) : data,
    sealed,
    fingerprint: fingerprint(sealer, kind, data),
    createdAt: toTimestamp(clock.nowMs()),
  });
}

/** Whether this is the content that the object has now. */
export function isPresent(
  { store, sealer }: Pick<ControlDependencies, "store" | "sealer">,
  kind: ContentKind,
  object: ContentObject,
  data: Uint8Array,
): boolean {
  const present = store.view.versionOf("content", object.id, object.contentVersion);
  return present !== undefined && isContent({ sealer }, kind, present, data);
}

/** Whether a stored version has this content. */
export function isContent(
  { sealer }: Pick<ControlDependencies, "sealer">,
  kind: ContentKind,
  stored: ContentVersion,
  data: Uint8Array,
): boolean {
  return sameBytes(stored.fingerprint, fingerprint(sealer, kind, data));
}

function fingerprint(sealer: ControlDependencies["sealer"], kind: ContentKind, data: Uint8Array): Uint8Array {
  return kind === "secret" ? sealer.fingerprint(data) : createHash("sha256").update(data).digest();
}

async function commitObject(
  { store }: ControlDependencies,
  kind: ContentKind,
  object: ContentObject,
  signal: AbortSignal,
): Promise<void> {
  const proposal: Proposal =
    kind === "secret"
      ? { type: "update", kind: "secret", object: object as Secret }
      : { type: "update", kind: "config", object: object as Config };
  const { conflicts } = await store.commit([proposal], { signal });
  if (conflicts.length > 0) throw outOfSequence(kind, object.name);
}

/** Gives each service that refers to the object a spec version with the new pin; those that a loop changed are tried again. */
async function followChange(
  dependencies: ControlDependencies,
  pin: { readonly objectId: string; readonly version: bigint },
  request: UpdateContentRequest,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { store } = dependencies;
  const inPlace = request.onChange === UpdateContentRequest_OnChange.IN_PLACE;
  const wanted = create(ContentPinSchema, { ...pin, signal: inPlace ? request.signal : "" });
  const followed = new Set<string>();
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const behind = servicesReferringTo(store.view, pin.objectId).filter(
      (service) => !hasPin(dependencies, service, pin),
    );
    if (behind.length === 0) return [...followed];
    const groups: Proposal[][] = [];
    behind.forEach((service, index) => {
      if (index % SERVICES_PER_TRANSACTION === 0) groups.push([]);
      groups.at(-1)?.push(...repinned(dependencies, service, wanted, inPlace));
      followed.add(service.id);
    });
    await store.commit(groups, { signal });
  }
  throw new SwarmError("aborted", "some services did not follow the change: the store keeps changing, try again");
}

function hasPin(
  { store }: ControlDependencies,
  service: Service,
  { objectId, version }: { readonly objectId: string; readonly version: bigint },
): boolean {
  const pins = effectivePins(store.view, service.id, service.specVersion);
  return pins.some((pin) => pin.objectId === objectId && pin.version >= version);
}

/** The same spec in a new version that pins other content. */
function repinned(
  { store, clock }: ControlDependencies,
  service: Service,
  wanted: ContentPin,
  inPlace: boolean,
): readonly Proposal[] {
  const present = store.view.specVersion(service.id, service.specVersion);
  if (present === undefined) return [];
  const version = service.specVersion + 1n;
  const nowMs = clock.nowMs();
  const object = advanced(service, { version, replaced: !inPlace, rollback: false, nowMs });
  const others = effectivePins(store.view, service.id, service.specVersion).filter(
    ({ objectId }) => objectId !== wanted.objectId,
  );
  const spec: MessageInitShape<typeof SpecVersionSchema> = {
    serviceId: service.id,
    version,
    createdAt: toTimestamp(nowMs),
    // What others brought into running tasks has been told to them.
    pins: [...others.map((pin) => ({ ...pin, signal: "" })), wanted],
    taskVersion: object.taskVersion,
    ...(present.spec ? { spec: present.spec } : {}),
  };
  return [
    { type: "create", kind: "spec", object: create(SpecVersionSchema, spec) },
    { type: "update", kind: "service", object },
  ];
}

function checkUpdate(kind: ContentKind, object: ContentObject, request: UpdateContentRequest): void {
  const problems: FieldProblem[] = [
    ...contentProblems(kind, {
      name: object.name,
      labels: request.labels?.labels ?? {},
      templateDriver: object.spec?.templateDriver ?? "",
      data: request.data ?? Buffer.of(0),
      signal: request.signal,
    }),
  ];
  if (request.signal !== "" && request.onChange !== UpdateContentRequest_OnChange.IN_PLACE) {
    problems.push({ field: "signal", problem: "needs a change in place" });
  }
  if (problems.length > 0) throw invalidFields(problems);
}

function nameTaken(kind: ContentKind, name: string, id: string): SwarmError {
  return new SwarmError("already_exists", `${kind} name ${JSON.stringify(name)} is in use (${id})`);
}

function outOfSequence(kind: ContentKind, name: string): SwarmError {
  return new SwarmError("aborted", `update out of sequence: ${kind} ${name} has changed since it was read`);
}
