/**
 * What a container's task says about its life, apart from what is in its OCI spec: how it is stopped, checked, attached
 * and logged. Pure, so that a bad field is found before an image is pulled.
 */

import { create } from "@bufbuild/protobuf";
import { invalidFields, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { STOP_SIGNAL_DEFAULT, stopGracePeriodMs } from "../common/model/defaults.ts";
import { type LogRetention, readLogDriver } from "../common/model/log-driver.ts";
import type { ImageConfig } from "../common/model/oci-image.ts";
import { expandContainerSpec, type TemplateContext } from "../common/model/template.ts";
import { type ContainerSpec, ContainerSpecSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { type MountDirectories, type PlannedMount, planMounts } from "./container-mounts.ts";
import { attachmentOf } from "./container-network.ts";
import { type ContentPlan, planContents } from "./content-plan.ts";
import type { AssignedTask } from "./executor.ts";
import { type HealthPolicy, healthPolicy } from "./health.ts";
import type { Attachment } from "./network/attach.ts";
import { signalNumber } from "./stop-signal.ts";

/** The node, as templates name it. */
export interface NodeNames {
  readonly nodeId: string;
  readonly hostname: string;
  readonly architecture: string;
  readonly os: string;
}

/** What a task asks for, with templates expanded and everything checked that needs no image. */
export interface ContainerSettings {
  readonly spec: ContainerSpec;
  readonly hostname: string;
  readonly attachment: Attachment;
  readonly mounts: readonly PlannedMount[];
  /** Its secrets and configs. */
  readonly contents: ContentPlan;
  readonly context: TemplateContext;
  readonly log: LogRetention;
  readonly gracePeriodMs: number;
}

/** What depends on the image too. */
export interface LifeSettings {
  readonly stopSignal: number;
  readonly gracePeriodMs: number;
  readonly health: HealthPolicy | undefined;
}

/** Throws `invalid_argument` that names the field. */
export function containerSettings(
  assigned: AssignedTask,
  node: NodeNames,
  directories: MountDirectories,
): ContainerSettings {
  const { task, template } = assigned;
  const written = template.spec?.container ?? create(ContainerSpecSchema);
  const context = templateContext(assigned, node);
  const expanded = expandContainerSpec(written, context);
  if (!expanded.ok) throw new SwarmError("invalid_argument", expanded.problem);
  const spec = expanded.value;
  // Checked early; the image's own signal is checked once it is known.
  if (spec.stopSignal !== "") signalNumber(spec.stopSignal);
  const logging = readLogDriver(template.spec?.logDriver);
  if (!logging.ok) throw invalidFields(logging.problems);
  const contents = planContents(spec, template.pins);
  const missing = spec.secrets.length + spec.configs.length - contents.files.length;
  if (missing > 0)
    throw new SwarmError("failed_precondition", `${missing} of the task's secrets and configs do not exist any more`);
  return {
    contents,
    context,
    spec: { ...spec, env: [...identityVariables(assigned, node), ...spec.env] },
    hostname: hostnameOf(spec, task.id, node),
    attachment: attachmentOf(assigned),
    mounts: planMounts(spec.mounts, { taskId: task.id as TaskId, directories, definitions: template.volumes }),
    log: logging.retention,
    gracePeriodMs: stopGracePeriodMs(template.spec),
  };
}

/** In the host's uts namespace a container has the host's name. */
function hostnameOf(spec: ContainerSpec, taskId: string, node: NodeNames): string {
  return spec.utsMode === "host" ? node.hostname : spec.hostname || taskId.slice(0, 12);
}

/** What a program may want to know of where it runs; the service's own variables win. */
function identityVariables({ task, template }: AssignedTask, node: NodeNames): string[] {
  const place = task.slot > 0 ? String(task.slot) : node.nodeId;
  return [
    `SWARM_SERVICE_NAME=${template.serviceName}`,
    `SWARM_TASK_NAME=${template.serviceName}.${place}.${task.id}`,
    `SWARM_TASK_SLOT=${place}`,
    `SWARM_NODE_HOSTNAME=${node.hostname}`,
  ];
}

/** The service's wishes before the image's. */
export function lifeSettings(settings: ContainerSettings, image: ImageConfig): LifeSettings {
  return {
    stopSignal: signalNumber(settings.spec.stopSignal || image.stopSignal || STOP_SIGNAL_DEFAULT),
    gracePeriodMs: settings.gracePeriodMs,
    health: healthPolicy(settings.spec.healthcheck, image.healthcheck),
  };
}

function templateContext({ task, template }: AssignedTask, node: NodeNames): TemplateContext {
  return {
    serviceId: task.serviceId,
    serviceName: template.serviceName,
    serviceLabels: template.serviceLabels,
    nodeId: node.nodeId,
    nodeHostname: node.hostname,
    nodeArchitecture: node.architecture,
    nodeOs: node.os,
    taskId: task.id,
    slot: task.slot,
  };
}
