/**
 * What each method of the Control API changes, for the audit log: which object, and what of it in a few words. Never contents, values
 * or command lines. A method that is not said to change something, or nothing, does not compile. Pure.
 */
import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import { slotName } from "../../common/model/names.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { ClusterSpecSchema, type Secret, type Task, User_Role } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role, NodeSpecSchema, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { diffMessages } from "../stacks/message-diff.ts";
import type { View } from "../store/view.ts";
import type { Answer, MethodName, Request } from "./rules.ts";

/** An object, and what becomes of it. */
export interface What {
  readonly kind: string;
  readonly name?: string | undefined;
  readonly id?: string | undefined;
  readonly detail?: string | undefined;
}

type Changes = { readonly [M in MethodName]: ((view: View, request: Request<M>) => What) | undefined };

/** Fields that are named: whoever wants all of them has the service's history. */
const FIELDS_MAX = 10;
const NAMES_LENGTH_MAX = 255;

/** Undefined: it changes nothing, and hands out nothing that must stay secret. */
export const CHANGES: Changes = {
  getInfo: undefined,
  getCa: undefined,
  resolveImages: undefined,
  listServices: undefined,
  listSpecVersions: undefined,
  listSecrets: undefined,
  listConfigs: undefined,
  listStacks: undefined,
  listStackRevisions: undefined,
  listVolumes: undefined,
  listNetworks: undefined,
  checkNetwork: undefined,
  listTasks: undefined,
  listNodes: undefined,
  listImages: undefined,
  listUsers: undefined,
  listAudit: undefined,
  planStack: undefined,
  missingBlobs: undefined,
  watchServices: undefined,
  serviceLogs: undefined,
  watchTaskStats: undefined,
  getUnlockKey: (_, { rotate }) => ({ kind: "unlock key", detail: rotate ? "rotate" : "read" }),
  getJoinTokens: (_, { rotate }) => ({
    kind: "join token",
    detail: rotate === undefined ? "read" : `rotate ${roleName(rotate)}`,
  }),
  rotateCa: (_, { certificates }) => ({
    kind: "CA",
    detail: certificates === "" ? "to a new root" : "to one that was brought",
  }),
  updateCluster: ({ cluster }, { spec }) => ({
    kind: "cluster",
    detail: fields(ClusterSpecSchema, cluster?.spec, spec),
  }),
  createUser: (_, { name, role, stackPrefixes, replace }) => ({
    kind: "user",
    name,
    detail: [`${User_Role[role]?.toLowerCase()}`, ...stackPrefixes, ...(replace ? ["replace"] : [])].join(" "),
  }),
  removeUser: (view, { userId }) => ({ kind: "user", id: userId, name: view.users.get(userId)?.name }),
  createService: (_, { spec }) => ({ kind: "service", name: spec?.name }),
  updateService: (view, { serviceId, spec, rollback }) => {
    const present = view.services.get(serviceId);
    const before = view.specVersion(serviceId, present?.specVersion ?? 0n)?.spec;
    return { ...service(view, serviceId), detail: rollback ? "rollback" : fields(ServiceSpecSchema, before, spec) };
  },
  removeService: (view, { serviceId }) => service(view, serviceId),
  setServiceStopped: (view, { serviceId, stopped }) => ({
    ...service(view, serviceId),
    detail: stopped ? "stop" : "start",
  }),
  createSecret: (_, { name }) => ({ kind: "secret", name }),
  updateSecret: (view, request) => file("secret", view.secrets, request),
  removeSecret: (view, request) => file("secret", view.secrets, request),
  createConfig: (_, { name }) => ({ kind: "config", name }),
  updateConfig: (view, request) => file("config", view.configs, request),
  removeConfig: (view, request) => file("config", view.configs, request),
  applyStack: (_, { stack }) => ({ kind: "stack", name: stack?.spec?.name, detail: stack?.prune ? "prune" : "" }),
  rollbackStack: (_, { name, to }) => ({
    kind: "stack",
    name,
    detail: `rollback to ${to === 0n ? "the one before" : to}`,
  }),
  removeStack: (_, { name }) => ({ kind: "stack", name }),
  createVolume: (_, { spec }) => ({ kind: "volume", name: spec?.name }),
  removeVolume: (_, { name, force }) => ({ kind: "volume", name, detail: force ? "force" : "" }),
  createNetwork: (_, { spec }) => ({ kind: "network", name: spec?.name }),
  removeNetwork: (view, { networkId }) => ({
    kind: "network",
    id: networkId,
    name: view.networks.get(networkId)?.name,
  }),
  putBlob: (_, { part }) => ({ kind: "blob", name: part.case === "header" ? part.value.digest : "" }),
  putImage: (_, { names }) => ({ kind: "image", name: names.join(" ") }),
  removeImage: (_, { reference }) => ({ kind: "image", name: reference }),
  updateNode: (view, { nodeId, spec }) => {
    const before = view.nodes.get(nodeId)?.spec;
    const changes = before && spec ? diffMessages(NodeSpecSchema, before, spec) : [];
    return { ...node(view, nodeId), detail: changes.map(({ path, after = "" }) => `${path} ${after}`).join(", ") };
  },
  removeNode: (view, { nodeId, force }) => ({ ...node(view, nodeId), detail: force ? "force" : "" }),
  // The program only: what stands after it may be a password.
  exec: (view, { content }) => {
    const { taskId = "", args = [], user = "" } = content.case === "start" ? content.value : {};
    return { ...task(view, taskId), detail: [args[0] ?? "", ...(user === "" ? [] : [`as ${user}`])].join(" ") };
  },
  copyFiles: (view, { content }) => {
    const { taskId = "", path = "" } = content.case === "from" || content.case === "to" ? content.value : {};
    return { ...task(view, taskId), detail: `${content.case === "to" ? "to" : "from"} ${path}` };
  },
};

/** Whether a method of Control is one of those. */
export function isChange({ parent, localName }: DescMethod): boolean {
  return parent.typeName === Control.typeName && CHANGES[localName as MethodName] !== undefined;
}

/** Names that the manager chose. */
export const MADE: { readonly [M in MethodName]?: (answer: Answer<M>) => string | undefined } = {
  createService: ({ service }) => service?.service?.name,
  createVolume: ({ volume }) => volume?.name,
};

/** Names and details are others' texts: a record of them stays short. */
export function shortened(text: string | undefined): string {
  return (text ?? "").slice(0, NAMES_LENGTH_MAX);
}

/** Which fields differ, by their paths and without what is in them. */
function fields<T extends Message>(
  schema: DescMessage & { readonly typeName: T["$typeName"] },
  before: T | undefined,
  after: T | undefined,
): string {
  if (!before || !after) return "";
  const paths = diffMessages(schema, before, after).map(({ path }) => path);
  const shown = paths.slice(0, FIELDS_MAX);
  return [...shown, ...(paths.length > shown.length ? [`and ${paths.length - shown.length} more`] : [])].join(", ");
}

function service(view: View, id: string): What {
  return { kind: "service", id, name: view.services.get(id)?.name };
}

function file(kind: string, objects: ReadonlyMap<string, Pick<Secret, "name">>, { id }: { readonly id: string }): What {
  return { kind, id, name: objects.get(id)?.name };
}

function node(view: View, id: string): What {
  return { kind: "node", id, name: view.nodes.get(id)?.description?.hostname };
}

function task(view: View, id: string): What {
  const found: Task | undefined = view.tasks.get(id);
  const serviceName = view.services.get(found?.serviceId ?? "")?.name;
  return { kind: "task", id, name: found && serviceName ? slotName(serviceName, found) : "" };
}

function roleName(role: NodeSpec_Role): string {
  return NodeSpec_Role[role]?.toLowerCase() ?? "";
}
