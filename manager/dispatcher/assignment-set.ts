/** What one agent has been told, and what it must be told next. Pure: a view goes in, changes come out. */
import { create } from "@bufbuild/protobuf";
import {
  type AssignmentChange,
  AssignmentChange_Action,
  AssignmentChangeSchema,
  PinnedContentSchema,
  TaskTemplateSchema,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ContentVersion, NetworkAddresses, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ContentPin, type PortConfig, TaskState, type VolumeSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { isReachable } from "../store/network-index.ts";
import { effectivePins, pinKey, samePins } from "../store/pins.ts";
import type { View } from "../store/view.ts";
import { mayBecome, volumeSources } from "../volume-names.ts";
import { type NetworkChanges, NetworkSet, type NetworkView } from "./network-set.ts";
import { PurgeSet, sameDefinitions, volumeDefinitions } from "./volume-assignments.ts";

/** The parts of a view that assignments are made from. */
export type AssignmentView = Pick<
  View,
  | "tasks"
  | "services"
  | "specVersion"
  | "specVersions"
  | "versionOf"
  | "secrets"
  | "configs"
  | "tasksOfNode"
  | "volumes"
  | "byName"
  | "nodeVolumes"
> &
  NetworkView;

/** Opens what is sealed in the store. Throws `data_loss` when it cannot. */
export type OpenContent = (content: ContentVersion) => Uint8Array;

/** What changed since the last look: everything else stands as it did. */
export interface Touched {
  readonly taskIds: Iterable<string>;
  readonly serviceIds: Iterable<string>;
  readonly volumeNames: Iterable<string>;
  readonly nodeIds: Iterable<string>;
}

/** A port configuration as plain values: two services' ports are equal when these are. */
function portsKey(ports: readonly PortConfig[]): string {
  return ports
    .map(
      ({ publishedPort, targetPort, protocol, publishMode, hostIp, name }) =>
        `${hostIp}:${publishedPort}:${targetPort}/${protocol}/${publishMode}/${name}`,
    )
    .join(",");
}

/**
 * Whether agents hear of a service's change: of its ports and addresses, of what a new version says of its networks, and
 * of content that it brings to running tasks.
 */
export function concernsAgents(before: Service | undefined, after: Service | undefined): boolean {
  return (
    before?.specVersion !== after?.specVersion ||
    portsKey(before?.ports ?? []) !== portsKey(after?.ports ?? []) ||
    addressesKey(before?.vips ?? []) !== addressesKey(after?.vips ?? [])
  );
}

function addressesKey(networks: readonly NetworkAddresses[]): string {
  return networks.map(({ networkId, addresses }) => `${networkId} ${addresses.join(" ")}`).join(",");
}

/** Whether an agent hears of a task's change: not of its own words, which come back as the task's status. */
export function concernsAgent(before: Task | undefined, after: Task | undefined): boolean {
  if (!before || !after) return true;
  return (
    before.nodeId !== after.nodeId ||
    before.desiredState !== after.desiredState ||
    before.address !== after.address ||
    isAssigned(before) !== isAssigned(after) ||
    isReachable(before) !== isReachable(after)
  );
}

/**
 * Whether the agent of its node holds the task. It does from ASSIGNED on, also when the task is dead (its logs can be
 * read), until the task is to be removed and has ended, or its node was given up.
 */
function isAssigned({ status, desiredState }: Task): boolean {
  const state = status?.state ?? TaskState.NEW;
  if (state < TaskState.ASSIGNED || state === TaskState.ORPHANED) return false;
  return !(desiredState >= TaskState.REMOVE && state > TaskState.RUNNING);
}

interface Told {
  readonly serviceId: string;
  readonly specVersion: bigint;
  readonly desiredState: TaskState;
  readonly address: string;
}

interface ToldTemplate {
  readonly told: Told;
  readonly taskIds: Set<string>;
  pins: readonly ContentPin[];
  volumes: readonly VolumeSpec[];
}

/**
 * The set of tasks, templates and contents that an agent holds, and its network. Contents come before the first template that
 * pins them, templates and networks before the first task that needs them, and each goes with the last: so a secret reaches the
 * nodes that run a task with it, and no others. Volumes that were removed are said once per stream.
 */
export class AssignmentSet {
  readonly #nodeId: string;
  readonly #open: OpenContent;
  /** How many templates pin each version. */
  readonly #contents = new Map<string, number>();
  readonly #tasks = new Map<string, Told>();
  readonly #templates = new Map<string, ToldTemplate>();
  readonly #purges = new PurgeSet();
  readonly #network: NetworkSet;

  constructor(nodeId: string, open: OpenContent) {
    this.#nodeId = nodeId;
    this.#open = open;
    this.#network = new NetworkSet(nodeId);
  }

  /** Everything, for an agent that knows nothing yet. Called once, first. */
  complete(view: AssignmentView): AssignmentChange[] {
    const taskIds = [...view.tasksOfNode(this.#nodeId)].map(({ id }) => id);
    // First: a task of this very set may mount a volume that was removed while the node was away.
    const purges = this.#purges.update(view.nodeVolumes.get(this.#nodeId));
    const none = { taskIds, serviceIds: [], volumeNames: [], nodeIds: [] };
    return [...purges, ...this.#update(view, none, this.#network.complete(view))];
  }

  /** What must be said of the touched tasks and services: in an order that never names what is not there yet. */
  update(view: AssignmentView, touched: Touched): AssignmentChange[] {
    return this.#update(view, touched, this.#network.update(view, touched));
  }

  #update(view: AssignmentView, touched: Touched, network: NetworkChanges): AssignmentChange[] {
    const needs: AssignmentChange[] = [...network.before];
    const tasks: AssignmentChange[] = [];
    const left: Told[] = [];
    for (const taskId of touched.taskIds) {
      const told = this.#tasks.get(taskId);
      const task = this.#assignment(view, taskId);
      if (task) {
        if (told && told.desiredState === task.desiredState && told.address === task.address) continue;
        if (!told) needs.push(...this.#enter(view, task));
        this.#tasks.set(taskId, toldOf(task));
        tasks.push(change(AssignmentChange_Action.UPDATE, { case: "task", value: task }));
      } else if (told) {
        this.#tasks.delete(taskId);
        this.#templates.get(templateKey(told))?.taskIds.delete(taskId);
        left.push(told);
        tasks.push(change(AssignmentChange_Action.REMOVE, { case: "task", value: { id: taskId } }));
      }
    }
    const dropped: ContentPin[] = [];
    for (const serviceId of touched.serviceIds) {
      needs.push(...this.#repin(view, serviceId, dropped));
    }
    const volumeNames = [...touched.volumeNames];
    if (volumeNames.length > 0) {
      needs.push(...this.#purges.update(view.nodeVolumes.get(this.#nodeId)), ...this.#redefine(view, volumeNames));
    }
    for (const told of left) tasks.push(...this.#release(told, dropped));
    return [...needs, ...tasks, ...network.after, ...dropped.flatMap((pin) => this.#unpin(pin))];
  }

  /** The task if this agent is to hold it. One whose service is gone can still be stopped, but no longer begun. */
  #assignment(view: AssignmentView, taskId: string): Task | undefined {
    const task = view.tasks.get(taskId);
    if (task?.nodeId !== this.#nodeId || !isAssigned(task)) return undefined;
    const startable = this.#tasks.has(taskId) || view.specVersion(task.serviceId, task.specVersion);
    return startable || task.desiredState > TaskState.RUNNING ? task : undefined;
  }

  #enter(view: AssignmentView, task: Task): AssignmentChange[] {
    const changes: AssignmentChange[] = [];
    const key = templateKey(task);
    const template = this.#templates.get(key);
    if (template) template.taskIds.add(task.id);
    else {
      const pins = effectivePins(view, task.serviceId, task.specVersion);
      const volumes = volumeDefinitions(view, view.specVersion(task.serviceId, task.specVersion)?.spec);
      const made = { told: toldOf(task), taskIds: new Set([task.id]), pins, volumes };
      this.#templates.set(key, made);
      changes.push(...this.#pin(view, pins), templateChange(view, made));
    }
    return changes;
  }

  /** Content that changed in place: the templates that have it are told anew, with what they pin now. */
  #repin(view: AssignmentView, serviceId: string, dropped: ContentPin[]): AssignmentChange[] {
    const changes: AssignmentChange[] = [];
    for (const template of this.#templates.values()) {
      if (template.told.serviceId !== serviceId) continue;
      const pins = effectivePins(view, serviceId, template.told.specVersion);
      // A service that is gone has no pins; its tasks keep what they have until they end.
      if (!view.services.has(serviceId) || samePins(pins, template.pins)) continue;
      dropped.push(...template.pins);
      template.pins = pins;
      changes.push(...this.#pin(view, pins), templateChange(view, template));
    }
    return changes;
  }

  /** Volumes that were made or removed: the templates that name them are told anew. */
  #redefine(view: AssignmentView, names: readonly string[]): AssignmentChange[] {
    const changes: AssignmentChange[] = [];
    for (const template of this.#templates.values()) {
      const spec = view.specVersion(template.told.serviceId, template.told.specVersion)?.spec;
      const sources = volumeSources(spec);
      if (!sources.some((source) => names.some((name) => mayBecome(source, name)))) continue;
      const volumes = volumeDefinitions(view, spec);
      if (sameDefinitions(volumes, template.volumes)) continue;
      template.volumes = volumes;
      changes.push(templateChange(view, template));
    }
    return changes;
  }

  /** Counts a template's pins; says the contents that the agent does not have. */
  #pin(view: AssignmentView, pins: readonly ContentPin[]): AssignmentChange[] {
    return pins.flatMap((pin) => {
      const key = pinKey(pin);
      const count = this.#contents.get(key) ?? 0;
      this.#contents.set(key, count + 1);
      return count > 0 ? [] : contentChange(view, pin, this.#open);
    });
  }

  #unpin({ objectId, version }: ContentPin): AssignmentChange[] {
    const key = pinKey({ objectId, version });
    const count = (this.#contents.get(key) ?? 0) - 1;
    if (count > 0) {
      this.#contents.set(key, count);
      return [];
    }
    this.#contents.delete(key);
    return [change(AssignmentChange_Action.REMOVE, { case: "content", value: { objectId, version } })];
  }

  /** Takes back what the last task needed. */
  #release(told: Told, dropped: ContentPin[]): AssignmentChange[] {
    const changes: AssignmentChange[] = [];
    const { serviceId, specVersion } = told;
    const template = this.#templates.get(templateKey(told));
    if (template?.taskIds.size === 0) {
      dropped.push(...template.pins);
      this.#templates.delete(templateKey(told));
      changes.push(change(AssignmentChange_Action.REMOVE, { case: "template", value: { serviceId, specVersion } }));
    }
    return changes;
  }
}

type Item =
  | { readonly case: "task"; readonly value: Task | { readonly id: string } }
  | { readonly case: "template"; readonly value: { readonly serviceId: string; readonly specVersion: bigint } }
  | { readonly case: "content"; readonly value: { readonly objectId: string; readonly version: bigint } };

function change(action: AssignmentChange_Action, item: Item): AssignmentChange {
  return create(AssignmentChangeSchema, { action, item });
}

/** A service that is gone has an empty template: its tasks are only stopped any more. */
function templateChange(
  view: AssignmentView,
  { told: { serviceId, specVersion }, pins, volumes }: Pick<ToldTemplate, "told" | "pins" | "volumes">,
): AssignmentChange {
  const spec = view.specVersion(serviceId, specVersion)?.spec;
  const value = create(TaskTemplateSchema, {
    serviceId,
    specVersion,
    serviceName: spec?.name ?? "",
    serviceLabels: spec?.labels ?? {},
    spec: spec?.task ?? {},
    pins: [...pins],
    volumes: [...volumes],
  });
  return change(AssignmentChange_Action.UPDATE, { case: "template", value });
}

/** A version of a secret or config; none if it is not there, of which the agent then says that it waits for it. */
function contentChange(view: AssignmentView, { objectId, version }: ContentPin, open: OpenContent): AssignmentChange[] {
  const content = view.versionOf("content", objectId, version);
  if (content === undefined) return [];
  const { spec } = view.secrets.get(objectId) ?? view.configs.get(objectId) ?? {};
  const templateDriver = spec?.templateDriver ?? "";
  const value = create(PinnedContentSchema, { objectId, version, data: open(content), templateDriver });
  return [change(AssignmentChange_Action.UPDATE, { case: "content", value })];
}

function toldOf({ serviceId, specVersion, desiredState, address }: Task): Told {
  return { serviceId, specVersion, desiredState, address };
}

function templateKey({ serviceId, specVersion }: Pick<Told, "serviceId" | "specVersion">): string {
  return `${serviceId}/${specVersion}`;
}
