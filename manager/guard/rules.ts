/**
 * The rules of the Control API for users with stack prefixes: of each method, what a request is about, and what of its answer is
 * shown. A method without a rule does not compile. Pure.
 */
import type { MessageShape } from "@bufbuild/protobuf";
import type { Control, CopyRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { servicesReferringTo } from "../control/content-references.ts";
import { configLookup, secretLookup } from "../control/lookups.ts";
import { NAMESPACE_LABEL, unpackContent } from "../stacks/stack-view.ts";
import type { View } from "../store/view.ts";
import type { Reach, Subject } from "./reach.ts";
import { isServiceShown, isShown, isTaskShown, shownNetworks, shownStats, shownVolumes, shownWatch } from "./shown.ts";
import {
  cluster,
  contentSubjects,
  fileSubject,
  networkSpecSubjects,
  networkSubject,
  networksReferred,
  ownedBy,
  privilegeSubjects,
  referred,
  serviceById,
  serviceSubject,
  servicesReferred,
  specSubjects,
  stackSubjects,
  taskSubject,
  tasksReferred,
  volumeSubjects,
} from "./subjects.ts";

type Methods = (typeof Control)["method"];
export type MethodName = keyof Methods;
export type Request<M extends MethodName> = MessageShape<Methods[M]["input"]>;
export type Answer<M extends MethodName> = MessageShape<Methods[M]["output"]>;

/** One method's rule. */
export interface Rule<M extends MethodName> {
  /** What a request is about; of a stream, its first one. */
  about(view: View, request: Request<M>): readonly Subject[];
  /** What is shown of an answer, or of each message of one call's stream. Absent: nothing that others have is in it. */
  shows?(reach: Reach): (answer: Answer<M>) => Answer<M>;
}

const nothing = () => [];
const of = (what: string) => () => cluster(what);
const NODES = { about: of("nodes") };
const IMAGES = { about: of("images") };
const USERS = { about: of("users") };
const SETTINGS = { about: of("settings and keys") };

const SERVICES = {
  createService: { about: (view, { spec }) => specSubjects(view, spec) },
  updateService: {
    about: (view, { serviceId, spec, rollback }) => {
      const service = view.services.get(serviceId);
      const previous = view.specVersion(serviceId, service?.previousSpecVersion ?? 0n)?.spec;
      return [...serviceById(view, serviceId), ...specSubjects(view, rollback ? previous : spec)];
    },
  },
  removeService: { about: (view, { serviceId }) => serviceById(view, serviceId) },
  setServiceStopped: { about: (view, { serviceId }) => serviceById(view, serviceId) },
  listSpecVersions: { about: (view, { serviceId }) => serviceById(view, serviceId) },
  listServices: {
    about: (view, { references }) => servicesReferred(view, references),
    shows: (reach) => (answer) => ({
      ...answer,
      services: answer.services.filter((view) => isServiceShown(reach, view)),
    }),
  },
  watchServices: { about: (view, { serviceIds }) => servicesReferred(view, serviceIds), shows: shownWatch },
} as const satisfies Partial<Rules>;

const FILES = {
  createSecret: { about: (_, { name, labels }) => [{ kind: "secret", name, stack: labels[NAMESPACE_LABEL] }] },
  updateSecret: { about: (view, request) => fileUpdate(view, "secret", request) },
  removeSecret: { about: (view, { id }) => fileById(view, "secret", id) },
  listSecrets: {
    about: (view, { references }) =>
      references.flatMap((text) =>
        referred(secretLookup(view), text, (secret) => fileSubject("secret", secret), "secret"),
      ),
    shows: (reach) => (answer) => ({
      ...answer,
      secrets: answer.secrets.filter((secret) => isShown(reach, fileSubject("secret", secret))),
    }),
  },
  createConfig: { about: (_, { name, labels }) => [{ kind: "config", name, stack: labels[NAMESPACE_LABEL] }] },
  updateConfig: { about: (view, request) => fileUpdate(view, "config", request) },
  removeConfig: { about: (view, { id }) => fileById(view, "config", id) },
  listConfigs: {
    about: (view, { references }) =>
      references.flatMap((text) =>
        referred(configLookup(view), text, (config) => fileSubject("config", config), "config"),
      ),
    shows: (reach) => (answer) => ({
      ...answer,
      configs: answer.configs.filter(({ config }) => config && isShown(reach, fileSubject("config", config))),
    }),
  },
} as const satisfies Partial<Rules>;

const STACKS = {
  planStack: { about: (view, { stack }) => (stack ? stackSubjects(view, stack) : []) },
  applyStack: { about: (view, { stack }) => (stack ? stackSubjects(view, stack) : []) },
  rollbackStack: {
    about: (view, { name, to }) => {
      const stack = view.byName("stack", name);
      const revisions = stack ? view.versionsOf("stackrevision", stack.id) : [];
      const target = revisions.findLast(({ revision }) =>
        to === 0n ? revision < (stack?.revision ?? 0n) : revision === to,
      );
      return [...ownedBy(view, name), ...(target ? contentSubjects(view, unpackContent(target)) : [])];
    },
  },
  removeStack: { about: (view, { name }) => ownedBy(view, name) },
  listStackRevisions: { about: (_, { name }) => [{ kind: "stack", name }] },
  listStacks: {
    about: nothing,
    shows: (reach) => (answer) => ({
      ...answer,
      stacks: answer.stacks.filter(({ name }) => isShown(reach, { kind: "stack", name })),
    }),
  },
} as const satisfies Partial<Rules>;

const VOLUMES = {
  createVolume: { about: (_, { spec }) => volumeSubjects(spec) },
  removeVolume: { about: (_, { name }) => [{ kind: "volume", name }] },
  listVolumes: {
    about: (_, { names }) => names.map((name) => ({ kind: "volume", name })),
    shows: (reach) => (answer) => shownVolumes(reach, answer),
  },
} as const satisfies Partial<Rules>;

const NETWORKS = {
  createNetwork: { about: (view, { spec }) => networkSpecSubjects(view, spec) },
  removeNetwork: {
    about: (view, { networkId }) => {
      const network = view.networks.get(networkId);
      return network ? [networkSubject(network)] : [];
    },
  },
  listNetworks: {
    about: (view, { references }) => networksReferred(view, references),
    shows: (reach) => (answer) => shownNetworks(reach, answer),
  },
  // It tells of all nodes.
  checkNetwork: { about: () => cluster("nodes") },
} as const satisfies Partial<Rules>;

const TASKS = {
  listTasks: {
    about: (view, { references, serviceIds, nodeIds }) => [
      ...tasksReferred(view, references),
      ...servicesReferred(view, serviceIds),
      ...(nodeIds.length > 0 ? cluster("nodes") : []),
    ],
    shows: (reach) => (answer) => ({ ...answer, tasks: answer.tasks.filter((view) => isTaskShown(reach, view)) }),
  },
  serviceLogs: {
    about: (view, { selector }) => [
      ...servicesReferred(view, selector?.serviceIds ?? []),
      ...tasksReferred(view, selector?.taskIds ?? []),
    ],
  },
  watchTaskStats: {
    about: (view, { services, tasks, nodes }) => [
      ...servicesReferred(view, services),
      ...tasksReferred(view, tasks),
      ...(nodes.length > 0 ? cluster("nodes") : []),
    ],
    shows: (reach) => (message) => shownStats(reach, message),
  },
  exec: { about: (view, { content }) => insideTask(view, content.case === "start" ? content.value.taskId : "") },
  copyFiles: { about: (view, request) => insideTask(view, taskOfCopy(request)) },
} as const satisfies Partial<Rules>;

type Rules = { readonly [M in MethodName]: Rule<M> };

/** By the methods' names. */
export const RULES: Rules = {
  ...{ ...SERVICES, ...FILES, ...STACKS, ...VOLUMES, ...NETWORKS, ...TASKS },
  getInfo: { about: nothing },
  // Not the names of nodes.
  getCa: { about: nothing, shows: () => (answer) => ({ ...answer, away: [] }) },
  // Registries are asked with the caller's own credentials; a digest is no secret.
  resolveImages: { about: nothing },
  getUnlockKey: SETTINGS,
  getJoinTokens: SETTINGS,
  rotateCa: SETTINGS,
  updateCluster: SETTINGS,
  createUser: USERS,
  listUsers: USERS,
  removeUser: USERS,
  listAudit: { about: of("audit records") },
  listNodes: NODES,
  updateNode: NODES,
  removeNode: NODES,
  listImages: IMAGES,
  removeImage: IMAGES,
  missingBlobs: IMAGES,
  putBlob: IMAGES,
  putImage: IMAGES,
};

function fileById(view: View, kind: "secret" | "config", id: string): readonly Subject[] {
  const object = (kind === "secret" ? view.secrets : view.configs).get(id);
  return object ? [fileSubject(kind, object)] : [];
}

/** New content reaches every service that refers to the object, so all of them must be within reach, and stay in their tasks. */
function fileUpdate(
  view: View,
  kind: "secret" | "config",
  { id, labels, data }: Request<"updateSecret">,
): readonly Subject[] {
  const object = (kind === "secret" ? view.secrets : view.configs).get(id);
  if (!object) return [];
  const present = fileSubject(kind, object);
  const wanted: readonly Subject[] = labels ? [{ ...present, stack: labels.labels[NAMESPACE_LABEL] } as Subject] : [];
  const followers = data === undefined ? [] : servicesReferringTo(view, id);
  return [
    present,
    ...wanted,
    ...followers.flatMap((service) => [
      serviceSubject(view, service),
      ...privilegeSubjects(view.specVersion(service.id, service.specVersion)?.spec),
    ]),
  ];
}

/** Who acts within a task has what it has: one that somebody else gave more than a task's own is theirs alone. */
function insideTask(view: View, taskId: string): readonly Subject[] {
  const task: Task | undefined = view.tasks.get(taskId);
  if (!task) return [];
  return [taskSubject(view, task), ...privilegeSubjects(view.specVersion(task.serviceId, task.specVersion)?.spec)];
}

function taskOfCopy({ content }: CopyRequest): string {
  return content.case === "from" || content.case === "to" ? content.value.taskId : "";
}
