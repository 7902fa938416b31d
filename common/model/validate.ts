/**
 * Checks what a user wrote. All bad fields are told at once, by the names they have on the command line and in stack
 * files, in Docker's and SwarmKit's words (swarmkit manager/controlapi/service.go). What this version cannot do is refused
 * by name: nothing is silently ignored.
 */
import { toBinary } from "@bufbuild/protobuf";
import {
  type NodeSpec,
  NodeSpec_Availability,
  NodeSpec_Role,
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  RestartPolicy_Condition,
  ServiceDependency_Condition,
  type ServiceSpec,
  ServiceSpecSchema,
  type TaskSpec,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { FieldProblem } from "../base/error.ts";
import { parseConstraint } from "./constraints.ts";
import { parseIpAddress } from "./ip-prefix.ts";
import { readLogDriver } from "./log-driver.ts";
import { isWithoutNetwork } from "./networks.ts";
import { hostAddress, publishedPortKey, samePublishedPort } from "./ports.ts";
import { lineProblem } from "./text.ts";
import { quoted } from "./units.ts";
import { checkAttachments, checkEndpointMode } from "./validate-attachments.ts";
import { checkContainer } from "./validate-container.ts";
import { Problems } from "./validate-parts.ts";
import { checkResources } from "./validate-resources.ts";

/** As SwarmKit's, and as DNS has it for one label. */
const NAME = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_]*[a-zA-Z0-9])?$/;
const NAME_LENGTH_MAX = 63;
/** A service larger than any cluster we plan for is a typing error; slots are uint32. */
const REPLICAS_MAX = 1_000_000n;
const PORTS_MAX = 1000;
const PLACEMENT_MAX = 256;
const DEPENDENCIES_MAX = 256;
/** A spec is stored whole in one transaction of at most 1 MiB. */
const SPEC_BYTES_MAX = 256 * 1024;

/** Every bad field of a service's spec; none when it may be stored. */
export function validateServiceSpec(spec: ServiceSpec): readonly FieldProblem[] {
  const problems = new Problems();
  const bytes = toBinary(ServiceSpecSchema, spec).byteLength;
  if (bytes > SPEC_BYTES_MAX) {
    return [{ field: "spec", problem: `is ${bytes} bytes long; at most ${SPEC_BYTES_MAX}` }];
  }
  checkName(spec.name, problems);
  problems.labels("labels", spec.labels);
  checkContainer(spec.task?.container, problems);
  checkTask(spec.task, problems);
  checkMode(spec, problems);
  checkDependencies(spec, problems);
  checkUpdate("update_config", spec.update, problems);
  checkUpdate("rollback_config", spec.rollback, problems);
  if (spec.rollback?.failureAction === UpdateConfig_FailureAction.ROLLBACK) {
    problems.add("rollback_config.failure_action", 'must be "pause" or "continue"');
  }
  checkAttachments(spec, problems);
  checkEndpointMode(spec, problems);
  checkPorts(spec, problems);
  return problems.list;
}

/** Every bad field of a node's spec. */
export function validateNodeSpec(spec: NodeSpec): readonly FieldProblem[] {
  const problems = new Problems();
  problems.text("name", lineProblem(spec.name, 255));
  problems.labels("labels", spec.labels);
  problems.known("role", spec.desiredRole, NodeSpec_Role);
  problems.known("availability", spec.availability, NodeSpec_Availability);
  return problems.list;
}

function checkName(name: string, problems: Problems): void {
  if (name === "") problems.add("name", "name must be provided");
  else if (name.length > NAME_LENGTH_MAX) problems.add("name", `name must be ${NAME_LENGTH_MAX} characters or fewer`);
  else if (!NAME.test(name)) problems.add("name", `name must be valid as a DNS name component: ${quoted(name)}`);
}

function checkTask(task: TaskSpec | undefined, problems: Problems): void {
  if (task === undefined) return;
  checkResources(task, problems);
  const { restart, placement, logDriver } = task;
  if (restart !== undefined) {
    problems.known("restart_policy.condition", restart.condition, RestartPolicy_Condition);
    problems.duration("restart_policy.delay", restart.delay);
    problems.duration("restart_policy.window", restart.window);
  }
  placement?.constraints.slice(0, PLACEMENT_MAX).forEach((text, index) => {
    const parsed = parseConstraint(text);
    if (!parsed.ok) problems.add(`placement.constraints[${index}]`, parsed.problem);
  });
  if ((placement?.constraints.length ?? 0) + (placement?.preferences.length ?? 0) > PLACEMENT_MAX) {
    problems.add("placement", `at most ${PLACEMENT_MAX} constraints and preferences`);
  }
  placement?.preferences.forEach(({ spread }, index) => {
    if (!/^(?:node|engine)\.labels\.[^\s]+$/i.test(spread) || lineProblem(spread, 255) !== undefined) {
      problems.add(
        `placement.preferences[${index}]`,
        `spread must name node.labels.KEY or engine.labels.KEY, not ${quoted(spread)}`,
      );
    }
  });
  const logging = readLogDriver(logDriver);
  if (!logging.ok) for (const { field, problem } of logging.problems) problems.add(field, problem);
}

function checkMode(spec: ServiceSpec, problems: Problems): void {
  const mode = spec.mode?.mode;
  switch (mode?.case) {
    case undefined:
    case "global":
      return;
    case "replicated":
      if (mode.value.replicas > REPLICAS_MAX) {
        problems.add("replicas", `${mode.value.replicas} is too many: at most ${REPLICAS_MAX}`);
      }
      return;
    case "replicatedJob": {
      const { totalCompletions, maxConcurrent } = mode.value;
      const tooMany = [totalCompletions, maxConcurrent].find((count) => count > REPLICAS_MAX);
      if (tooMany !== undefined) problems.add("replicas", `${tooMany} is too many: at most ${REPLICAS_MAX}`);
      checkJob(spec, problems);
      return;
    }
    case "globalJob":
      checkJob(spec, problems);
  }
}

/** In SwarmKit's words (manager/controlapi/service.go validateJob). */
function checkJob(spec: ServiceSpec, problems: Problems): void {
  if (spec.update !== undefined) problems.add("update_config", "jobs may not have an update config");
  if (spec.rollback !== undefined) problems.add("rollback_config", "jobs may not have a rollback config");
}

/** Whom a service waits for: each named once, and never itself. Circles through others are the API's to find. */
function checkDependencies(spec: ServiceSpec, problems: Problems): void {
  const named = new Set<string>();
  if (spec.dependsOn.length > DEPENDENCIES_MAX) problems.add("depends_on", `at most ${DEPENDENCIES_MAX} services`);
  spec.dependsOn.slice(0, DEPENDENCIES_MAX).forEach(({ service, condition }, index) => {
    const field = `depends_on[${index}]`;
    if (!NAME.test(service)) problems.add(field, `${quoted(service)} is not a service's name`);
    else if (service === spec.name) problems.add(field, "a service cannot wait for itself");
    else if (named.has(service)) problems.add(field, `${quoted(service)} is named twice`);
    named.add(service);
    problems.known(field, condition, ServiceDependency_Condition);
  });
}

function checkUpdate(field: string, update: UpdateConfig | undefined, problems: Problems): void {
  if (update === undefined) return;
  problems.duration(`${field}.delay`, update.delay);
  problems.duration(`${field}.monitor`, update.monitor);
  // Written so that NaN fails too.
  if (!(update.maxFailureRatio >= 0 && update.maxFailureRatio <= 1)) {
    problems.add(`${field}.max_failure_ratio`, "cannot be less than 0 or bigger than 1");
  }
  problems.known(`${field}.failure_action`, update.failureAction, UpdateConfig_FailureAction);
  problems.known(`${field}.order`, update.order, UpdateConfig_Order);
}

function checkPorts(spec: ServiceSpec, problems: Problems): void {
  const endpoint = spec.endpoint;
  if (endpoint === undefined) return;
  if (endpoint.ports.length > PORTS_MAX) problems.add("ports", `at most ${PORTS_MAX} ports`);
  const ports = endpoint.ports.slice(0, PORTS_MAX);
  ports.forEach((port, index) => {
    checkPort(port, `ports[${index}]`, problems);
    const earlier = ports.slice(0, index).some((other) => samePublishedPort(other, port));
    if (port.publishedPort === 0 || !earlier) return;
    problems.add(`ports[${index}]`, `duplicate published ports provided: ${publishedPortKey(port)}`);
  });
  if (endpoint.ports.length > 0 && isWithoutNetwork(spec)) {
    problems.add("ports", `cannot be published with network ${spec.task?.networks[0]?.target}`);
  }
}

function checkPort(port: PortConfig, field: string, problems: Problems): void {
  if (port.targetPort < 1 || port.targetPort > 65535) {
    problems.add(`${field}.target`, `invalid port ${port.targetPort}: must be from 1 to 65535`);
  }
  if (port.publishedPort > 65535) {
    problems.add(`${field}.published`, `invalid port ${port.publishedPort}: must be at most 65535`);
  }
  problems.text(`${field}.name`, lineProblem(port.name, 255));
  problems.known(`${field}.protocol`, port.protocol, PortConfig_Protocol);
  problems.known(`${field}.mode`, port.publishMode, PortConfig_PublishMode);
  const address = hostAddress(port);
  if (address !== "" && parseIpAddress(address) === undefined) {
    problems.add(`${field}.host_ip`, `invalid host ip ${quoted(address)}: not an IP address`);
  }
  // The kernel translates no loopback address; a process passes bytes on there; Node has no SCTP.
  if ((address.startsWith("127.") || address === "::1") && port.protocol === PortConfig_Protocol.SCTP) {
    problems.add(`${field}.host_ip`, `sctp cannot be published on ${address}`);
  }
}
