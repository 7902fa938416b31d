/**
 * The secrets and configs of a stack: planned, written, removed. Their contents are stored ahead, each under the version that
 * the revision names; so a leader that finishes a stack needs neither the bytes nor the key that seals them. Pure but for
 * what the context makes.
 */
import { create } from "@bufbuild/protobuf";
import type { FieldProblem } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";
import { contentProblems } from "../../common/model/validate-content.ts";
import {
  FieldChangeSchema,
  type ObjectPlan,
  ObjectPlan_Action,
  ObjectPlanSchema,
  type StackFileSpec,
  type StackRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type Config,
  ConfigSchema,
  type ContentVersion,
  type Secret,
  SecretSchema,
  type StackContent,
  type StackFile,
  StackFileSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { type ContentView, refersTo, specsReferringTo } from "../control/content-references.ts";
import { versionId } from "../store/kinds.ts";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { diffMaps } from "./message-diff.ts";
import { NAMESPACE_LABEL } from "./stack-view.ts";

export type FileKind = "secret" | "config";
export const FILE_KINDS: readonly FileKind[] = ["secret", "config"];

/** What makes contents: ids, and versions as they are stored. */
export interface FileContext {
  readonly random: Random;
  /** A content as it is stored; a secret's is sealed. */
  contentVersion(
    kind: FileKind,
    of: { readonly objectId: string; readonly version: bigint; readonly data: Uint8Array },
  ): ContentVersion;
  /** Whether this is the content of a stored version. */
  isContent(kind: FileKind, stored: ContentVersion, data: Uint8Array): boolean;
}

interface PlannedFiles {
  readonly objects: readonly ObjectPlan[];
  readonly stored: Pick<StackContent, "secrets" | "configs">;
  readonly versions: readonly ContentVersion[];
  readonly problems: readonly FieldProblem[];
}

/** The request's secrets and configs beside the cluster's. What they hold is compared, never shown. */
export function planFiles(view: View, { spec }: StackRequest, context: FileContext): PlannedFiles {
  const objects: ObjectPlan[] = [];
  const versions: ContentVersion[] = [];
  const problems: FieldProblem[] = [];
  const plan = (kind: FileKind, files: readonly StackFileSpec[]) =>
    files.map((file) => {
      const planned = planFile(view, { kind, file, stack: spec?.name ?? "" }, context);
      objects.push(planned.object);
      problems.push(...planned.problems);
      if (planned.version) versions.push(planned.version);
      return planned.stored;
    });
  const secrets = plan("secret", spec?.secrets ?? []);
  const configs = plan("config", spec?.configs ?? []);
  const external = [
    ...(spec?.externalSecrets ?? []).map((name) => ["secret", name] as const),
    ...(spec?.externalConfigs ?? []).map((name) => ["config", name] as const),
  ];
  for (const [kind, name] of external) {
    if (view.byName(kind, name)) continue;
    problems.push({
      field: `${kind}s.${name}`,
      problem: `is external and does not exist: create it with ${kind} create`,
    });
  }
  return { objects, stored: { secrets, configs }, versions, problems };
}

interface GivenFile {
  readonly kind: FileKind;
  readonly file: StackFileSpec;
  readonly stack: string;
}

function planFile(view: View, { kind, file, stack }: GivenFile, context: FileContext) {
  const { name, templateDriver, data } = file;
  const labels = { ...file.labels, [NAMESPACE_LABEL]: stack };
  const field = `${kind}s.${name}`;
  const problems = contentProblems(kind, { name, labels, templateDriver, data }).map((each) => ({
    field: `${field}.${each.field}`,
    problem: each.problem,
  }));
  const present = view.byName(kind, name);
  const owner = present?.spec?.labels[NAMESPACE_LABEL];
  if (present && owner !== stack) {
    const whose = owner === undefined ? "belongs to no stack" : `belongs to stack ${owner}`;
    problems.push({ field, problem: `a ${kind} of this name is there already and ${whose}` });
  }
  const objectId = present?.id ?? newId<Branded<"content">>(context.random);
  const known = view
    .versionsOf("content", objectId)
    .findLast((each) => each.version >= (present?.contentVersion ?? 0n) && context.isContent(kind, each, data));
  const newest = view.versionsOf("content", objectId).at(-1)?.version ?? 0n;
  const version = known?.version ?? newest + 1n;
  const stored = create(StackFileSchema, {
    objectId,
    version,
    name,
    labels,
    templateDriver,
    sizeBytes: BigInt(data.length),
  });
  const changes = diffMaps("labels", present?.spec?.labels ?? { [NAMESPACE_LABEL]: stack }, labels);
  if (present && present.spec?.templateDriver !== templateDriver) {
    changes.push(
      create(FieldChangeSchema, {
        path: "templateDriver",
        before: present.spec?.templateDriver ?? "",
        after: templateDriver,
      }),
    );
  }
  if (present && version !== present.contentVersion) {
    changes.push(create(FieldChangeSchema, { path: "content", after: "content changed" }));
  }
  const action = !present
    ? ObjectPlan_Action.CREATE
    : changes.length > 0
      ? ObjectPlan_Action.UPDATE_IN_PLACE
      : ObjectPlan_Action.UNCHANGED;
  return {
    problems,
    stored,
    object: create(ObjectPlanSchema, { kind, name, action, changes }),
    version: known || problems.length > 0 ? undefined : context.contentVersion(kind, { objectId, version, data }),
  };
}

/** What the stack had and the file has no more. Only what nothing needs any longer can go. */
export function planGoneFiles(
  view: View,
  { spec, prune }: StackRequest,
  after: { readonly removedServices: readonly string[]; readonly specs: readonly ServiceSpec[] },
): { readonly objects: readonly ObjectPlan[]; removed(kind: FileKind): string[] } {
  const given = { secret: spec?.secrets ?? [], config: spec?.configs ?? [] };
  const objects = FILE_KINDS.flatMap((kind) =>
    filesOfStack(view, kind, spec?.name ?? "")
      .filter(({ name }) => !given[kind].some((each) => each.name === name))
      .map(({ id, name }) => {
        const used = after.specs.some((each) => refersTo(each, id)) || isNeeded(view, id, after.removedServices);
        const action = prune && !used ? ObjectPlan_Action.REMOVE : ObjectPlan_Action.KEEP;
        return create(ObjectPlanSchema, { kind, name, action });
      }),
  );
  return {
    objects,
    removed: (kind) =>
      objects.filter((each) => each.kind === kind && each.action === ObjectPlan_Action.REMOVE).map(({ name }) => name),
  };
}

/** The secrets or configs that bear the stack's label. */
export function filesOfStack(view: View, kind: FileKind, stack: string): (Secret | Config)[] {
  const objects: readonly (Secret | Config)[] = [...(kind === "secret" ? view.secrets : view.configs).values()];
  return objects.filter(({ spec }) => spec?.labels[NAMESPACE_LABEL] === stack);
}

/** The view as references see it once `content` is applied. */
export function withFiles(view: View, content: Pick<StackContent, "secrets" | "configs">): ContentView {
  if (content.secrets.length + content.configs.length === 0) return view;
  const files = { secret: content.secrets.map(secretOf), config: content.configs.map(configOf) };
  const names = new Map<string, Secret | Config>();
  for (const kind of FILE_KINDS) for (const each of files[kind]) names.set(`${kind}/${each.name}`, each);
  return {
    secrets: new Map([...view.secrets, ...files.secret.map((each) => [each.id, each] as const)]),
    configs: new Map([...view.configs, ...files.config.map((each) => [each.id, each] as const)]),
    // Each kind's own objects stand under its own names.
    byName: ((kind: FileKind, name: string) =>
      names.get(`${kind}/${name}`) ?? view.byName(kind, name)) as ContentView["byName"],
  };
}

/** The objects that are not yet as the content says; their contents are stored already. */
export function fileSteps(view: View, { secrets, configs }: StackContent): Proposal[][] {
  return [
    ...secrets.map((file): Proposal[] => {
      const present = view.secrets.get(file.objectId);
      if (present === undefined) return [{ type: "create", kind: "secret", object: secretOf(file) }];
      return isAs(present, file)
        ? []
        : [{ type: "update", kind: "secret", object: { ...secretOf(file), ...metaOf(present) } }];
    }),
    ...configs.map((file): Proposal[] => {
      const present = view.configs.get(file.objectId);
      if (present === undefined) return [{ type: "create", kind: "config", object: configOf(file) }];
      return isAs(present, file)
        ? []
        : [{ type: "update", kind: "config", object: { ...configOf(file), ...metaOf(present) } }];
    }),
  ];
}

/** Takes away what the content names as removed, unless something has come to need it. */
export function fileRemovals(view: View, content: StackContent): Proposal[][] {
  const names = { secret: content.removedSecrets, config: content.removedConfigs };
  return FILE_KINDS.flatMap((kind) =>
    names[kind].flatMap((name) => {
      const object = view.byName(kind, name);
      return object && !isNeeded(view, object.id, content.removedServices) ? [removeFile(view, kind, object.id)] : [];
    }),
  );
}

/** A secret or config goes with all its contents. */
export function removeFile(view: View, kind: FileKind, id: string): Proposal[] {
  return [
    { type: "delete", kind, id },
    ...view
      .versionsOf("content", id)
      .map(({ version }): Proposal => ({ type: "delete", kind: "content", id: versionId(id, version) })),
  ];
}

function isNeeded(view: View, id: string, removedServices: readonly string[]): boolean {
  return specsReferringTo(view, id).some((service) => !removedServices.includes(service));
}

function secretOf(file: StackFile): Secret {
  return create(SecretSchema, fieldsOf(file));
}

function configOf(file: StackFile): Config {
  return create(ConfigSchema, fieldsOf(file));
}

function fieldsOf({ objectId: id, name, labels, templateDriver, version, sizeBytes }: StackFile) {
  return { id, name, spec: { name, labels, templateDriver }, contentVersion: version, sizeBytes };
}

function metaOf({ meta }: Secret | Config) {
  return meta ? { meta } : {};
}

function isAs(present: Secret | Config, file: StackFile): boolean {
  const labels = present.spec?.labels ?? {};
  return (
    present.contentVersion >= file.version &&
    present.spec?.templateDriver === file.templateDriver &&
    diffMaps("labels", labels, file.labels).length === 0
  );
}
