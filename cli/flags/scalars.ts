/** Flags with one value, written into a spec: the same for create and update. Only what is given is touched. */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "../../common/model/duration.ts";
import {
  type ContainerSpec,
  ContainerSpecSchema,
  EndpointSpec_Affinity,
  EndpointSpec_Mode,
  EndpointSpecSchema,
  HealthConfigSchema,
  LogDriverSchema,
  PlacementSchema,
  ResourceLimitsSchema,
  ResourceRequirementsSchema,
  ResourcesSchema,
  RestartPolicy_Condition,
  RestartPolicySchema,
  type ServiceSpec,
  type TaskSpec,
  TaskSpecSchema,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  UpdateConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { UsageError } from "../usage-error.ts";
import { parsePair } from "./lists.ts";
import type { Flags } from "./parse.ts";
import { UNSUPPORTED } from "./service-flags.ts";
import {
  bytesFlag,
  choiceFlag,
  commandFlag,
  countFlag,
  durationFlagMs,
  integerFlag,
  nanoCpusFlag,
  parsedOrThrow,
  ratioFlag,
} from "./values.ts";

const CONDITIONS = {
  none: RestartPolicy_Condition.NONE,
  "on-failure": RestartPolicy_Condition.ON_FAILURE,
  any: RestartPolicy_Condition.ANY,
};
const ORDERS = { "stop-first": UpdateConfig_Order.STOP_FIRST, "start-first": UpdateConfig_Order.START_FIRST };
const ROLLBACK_ACTIONS = {
  pause: UpdateConfig_FailureAction.PAUSE,
  continue: UpdateConfig_FailureAction.CONTINUE,
};
const UPDATE_ACTIONS = { ...ROLLBACK_ACTIONS, rollback: UpdateConfig_FailureAction.ROLLBACK };
const ENDPOINT_MODES = { vip: EndpointSpec_Mode.VIP, dnsrr: EndpointSpec_Mode.DNSRR };
const AFFINITIES = { none: EndpointSpec_Affinity.NONE, "client-ip": EndpointSpec_Affinity.CLIENT_IP };
const UINT32_MAX = 2 ** 32 - 1;

/** The spec's task part, made if it is missing. */
export function taskOf(spec: ServiceSpec): TaskSpec {
  spec.task ??= create(TaskSpecSchema, {});
  return spec.task;
}

/** The spec's container part, made if it is missing. */
export function containerOf(spec: ServiceSpec): ContainerSpec {
  const task = taskOf(spec);
  task.container ??= create(ContainerSpecSchema, {});
  return task.container;
}

/** Refuses what Docker has and we have not yet, by name. */
export function refuseUnsupported(flags: Flags): void {
  for (const given of flags.names()) {
    const name = given.replace(/-(?:add|rm)$/, "");
    // Docker's default, and all that Linux has.
    if (name === "isolation" && flags.text(given) === "default") continue;
    const reason = Object.hasOwn(UNSUPPORTED, name) ? UNSUPPORTED[name] : undefined;
    if (reason !== undefined) throw new UsageError(`--${given}: ${reason}`);
  }
}

/** Writes every given flag with one value. */
export function applyScalars(spec: ServiceSpec, flags: Flags): void {
  applyProcess(containerOf(spec), flags);
  applyHealth(containerOf(spec), flags);
  applyResources(taskOf(spec), flags);
  applyPolicies(spec, flags);
  applyLogging(taskOf(spec), flags);
}

function set<T>(value: T | undefined, write: (value: T) => void): void {
  if (value !== undefined) write(value);
}

function applyProcess(container: ContainerSpec, flags: Flags): void {
  set(flags.text("hostname"), (value) => {
    container.hostname = value;
  });
  set(flags.text("user"), (value) => {
    container.user = value;
  });
  set(flags.text("workdir"), (value) => {
    container.dir = value;
  });
  set(flags.text("stop-signal"), (value) => {
    container.stopSignal = value;
  });
  set(durationFlagMs(flags, "stop-grace-period"), (value) => {
    container.stopGracePeriod = toDuration(value);
  });
  set(commandFlag(flags, "entrypoint"), (value) => {
    container.command = [...value];
  });
  set(integerFlag(flags, "oom-score-adj", { min: -1000, max: 1000 }), (value) => {
    container.oomScoreAdj = value;
  });
  if (flags.has("init")) container.init = flags.on("init");
  if (flags.has("tty")) container.tty = flags.on("tty");
  if (flags.has("read-only")) container.readOnly = flags.on("read-only");
}

const HEALTH_TIMES = {
  "health-interval": "interval",
  "health-timeout": "timeout",
  "health-start-period": "startPeriod",
  "health-start-interval": "startInterval",
} as const;

function applyHealth(container: ContainerSpec, flags: Flags): void {
  const names = ["health-cmd", "health-retries", ...Object.keys(HEALTH_TIMES)];
  const given = names.some((name) => flags.has(name));
  if (flags.on("no-healthcheck")) {
    if (given) throw new UsageError("--no-healthcheck conflicts with --health-* options");
    container.healthcheck = create(HealthConfigSchema, { test: ["NONE"] });
    return;
  }
  if (!given) return;
  const inherited = container.healthcheck?.test[0] === "NONE" ? undefined : container.healthcheck;
  const health = inherited ?? create(HealthConfigSchema, {});
  container.healthcheck = health;
  set(flags.text("health-cmd"), (line) => {
    health.test = line === "" ? [] : ["CMD-SHELL", line];
  });
  set(integerFlag(flags, "health-retries", { min: 0, max: UINT32_MAX }), (value) => {
    health.retries = value;
  });
  for (const [name, field] of Object.entries(HEALTH_TIMES)) {
    set(durationFlagMs(flags, name), (value) => {
      health[field] = toDuration(value);
    });
  }
}

function applyResources(task: TaskSpec, flags: Flags): void {
  const limitCpu = nanoCpusFlag(flags, "limit-cpu");
  const limitMemory = bytesFlag(flags, "limit-memory");
  const limitPids = countFlag(flags, "limit-pids");
  const reserveCpu = nanoCpusFlag(flags, "reserve-cpu");
  const reserveMemory = bytesFlag(flags, "reserve-memory");
  const limited = [limitCpu, limitMemory, limitPids].some((value) => value !== undefined);
  const reserved = [reserveCpu, reserveMemory].some((value) => value !== undefined);
  if (!limited && !reserved) return;
  task.resources ??= create(ResourceRequirementsSchema, {});
  if (limited) {
    task.resources.limits ??= create(ResourceLimitsSchema, {});
    task.resources.limits.nanoCpus = limitCpu ?? task.resources.limits.nanoCpus;
    task.resources.limits.memoryBytes = limitMemory ?? task.resources.limits.memoryBytes;
    task.resources.limits.pids = limitPids ?? task.resources.limits.pids;
  }
  if (reserved) {
    task.resources.reservations ??= create(ResourcesSchema, {});
    task.resources.reservations.nanoCpus = reserveCpu ?? task.resources.reservations.nanoCpus;
    task.resources.reservations.memoryBytes = reserveMemory ?? task.resources.reservations.memoryBytes;
  }
}

function applyPolicies(spec: ServiceSpec, flags: Flags): void {
  const task = taskOf(spec);
  if (flags.names().some((name) => name.startsWith("restart-"))) {
    const restart = task.restart ?? create(RestartPolicySchema, {});
    task.restart = restart;
    set(choiceFlag(flags, "restart-condition", CONDITIONS), (value) => {
      restart.condition = value;
    });
    set(durationFlagMs(flags, "restart-delay"), (value) => {
      restart.delay = toDuration(value);
    });
    set(countFlag(flags, "restart-max-attempts"), (value) => {
      restart.maxAttempts = value;
    });
    set(durationFlagMs(flags, "restart-window"), (value) => {
      restart.window = toDuration(value);
    });
  }
  set(countFlag(flags, "replicas-max-per-node"), (value) => {
    task.placement ??= create(PlacementSchema, {});
    task.placement.maxReplicas = value;
  });
  set(choiceFlag(flags, "endpoint-mode", ENDPOINT_MODES), (value) => {
    spec.endpoint ??= create(EndpointSpecSchema, {});
    spec.endpoint.mode = value;
  });
  set(choiceFlag(flags, "session-affinity", AFFINITIES), (value) => {
    spec.endpoint ??= create(EndpointSpecSchema, {});
    spec.endpoint.affinity = value;
  });
  spec.update = withUpdateFlags(spec.update, "update", flags) ?? spec.update;
  spec.rollback = withUpdateFlags(spec.rollback, "rollback", flags) ?? spec.rollback;
}

function withUpdateFlags(
  present: UpdateConfig | undefined,
  prefix: "update" | "rollback",
  flags: Flags,
): UpdateConfig | undefined {
  if (!flags.names().some((name) => name.startsWith(`${prefix}-`))) return undefined;
  // In the message 0 means all at once, so the default must be written out.
  const config = present ?? create(UpdateConfigSchema, { parallelism: 1n });
  set(countFlag(flags, `${prefix}-parallelism`), (value) => {
    config.parallelism = value;
  });
  set(durationFlagMs(flags, `${prefix}-delay`), (value) => {
    config.delay = toDuration(value);
  });
  set(durationFlagMs(flags, `${prefix}-monitor`), (value) => {
    config.monitor = toDuration(value);
  });
  set(ratioFlag(flags, `${prefix}-max-failure-ratio`), (value) => {
    config.maxFailureRatio = value;
  });
  set(choiceFlag(flags, `${prefix}-order`, ORDERS), (value) => {
    config.order = value;
  });
  const actions: Readonly<Record<string, UpdateConfig_FailureAction>> =
    prefix === "update" ? UPDATE_ACTIONS : ROLLBACK_ACTIONS;
  set(choiceFlag(flags, `${prefix}-failure-action`, actions), (value) => {
    config.failureAction = value;
  });
  return config;
}

function applyLogging(task: TaskSpec, flags: Flags): void {
  if (!flags.has("log-driver") && !flags.has("log-opt")) return;
  task.logDriver = create(LogDriverSchema, {
    name: flags.text("log-driver") ?? task.logDriver?.name ?? "",
    options: Object.fromEntries(flags.list("log-opt").map((text) => parsedOrThrow("log-opt", text, parsePair))),
  });
}
