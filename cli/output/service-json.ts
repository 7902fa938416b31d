/** A service in the shape of Docker's API (GET /services/{id}), for `service inspect`. Pure. */

import { protocolName } from "../../common/model/ports.ts";
import { isJob } from "../../common/model/service-mode.ts";
import type { ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type ContainerSpec,
  EndpointSpec_Affinity,
  EndpointSpec_Mode,
  type FileTarget,
  type HealthConfig,
  type Mount,
  Mount_Type,
  type PortConfig,
  PortConfig_PublishMode,
  PullPolicy,
  type ResourceRequirements,
  RestartPolicy_Condition,
  ServiceDependency_Condition,
  type ServiceSpec,
  type TaskSpec,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  type UpdateStatus,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { enumWord, filled, labelsJson, nanosJson, timeJson } from "./json-parts.ts";
import { withDefaults } from "./spec-defaults.ts";

/** The whole object. */
export function serviceJson({ service, spec, previousSpec, waitingFor }: ServiceView): Record<string, unknown> {
  return filled(
    {
      ID: service?.id ?? "",
      Version: { Index: Number(service?.meta?.version ?? 0n) },
      CreatedAt: timeJson(service?.meta?.createdAt),
      UpdatedAt: timeJson(service?.meta?.updatedAt),
      Spec: spec ? specJson(withDefaults(spec)) : {},
      PreviousSpec: previousSpec && specJson(previousSpec),
      Endpoint: filled({
        Spec: spec?.endpoint ? endpointJson(spec) : {},
        Ports: service?.ports.map(portJson) ?? [],
        VirtualIPs: service?.vips.flatMap(({ networkId, addresses }) =>
          addresses.map((address) => ({ NetworkID: networkId, Addr: address })),
        ),
      }),
      // The iteration of a job is the spec version that began it.
      JobStatus: isJob(spec) ? { JobIteration: { Index: Number(service?.taskVersion ?? 0n) } } : undefined,
      WaitingFor: waitingFor,
      UpdateStatus: service?.updateStatus && updateStatusJson(service.updateStatus),
    },
    ["ID", "Version", "Spec", "Endpoint", "WaitingFor"],
  );
}

function updateStatusJson(status: UpdateStatus): Record<string, unknown> {
  return filled({
    State: enumWord(UpdateStatus_State, status.state).replaceAll("-", "_"),
    StartedAt: timeJson(status.startedAt),
    CompletedAt: timeJson(status.completedAt),
    Message: status.message,
  });
}

function specJson(spec: ServiceSpec): Record<string, unknown> {
  return filled(
    {
      Name: spec.name,
      Labels: labelsJson(spec.labels),
      TaskTemplate: taskJson(spec.task),
      Mode: modeJson(spec),
      UpdateConfig: spec.update && updateJson(spec.update),
      RollbackConfig: spec.rollback && updateJson(spec.rollback),
      EndpointSpec: spec.endpoint && endpointJson(spec),
      DependsOn: spec.dependsOn.map(({ service, condition, optional }) =>
        filled({ Service: service, Condition: enumWord(ServiceDependency_Condition, condition), Optional: optional }),
      ),
    },
    ["Labels"],
  );
}

function modeJson({ mode }: ServiceSpec): Record<string, unknown> {
  switch (mode?.mode.case) {
    case "global":
      return { Global: {} };
    case "globalJob":
      return { GlobalJob: {} };
    case "replicatedJob": {
      const { maxConcurrent, totalCompletions } = mode.mode.value;
      return { ReplicatedJob: { MaxConcurrent: Number(maxConcurrent), TotalCompletions: Number(totalCompletions) } };
    }
    case "replicated":
      return { Replicated: { Replicas: Number(mode.mode.value.replicas) } };
    case undefined:
      return { Replicated: { Replicas: 1 } };
  }
}

function taskJson(task: TaskSpec | undefined): Record<string, unknown> {
  const { restart, placement, logDriver } = task ?? {};
  const fields = {
    ContainerSpec: containerJson(task?.container),
    Resources: resourcesJson(task?.resources),
    RestartPolicy:
      restart &&
      filled(
        {
          Condition: enumWord(RestartPolicy_Condition, restart.condition),
          Delay: nanosJson(restart.delay),
          MaxAttempts: Number(restart.maxAttempts),
          Window: nanosJson(restart.window),
        },
        ["MaxAttempts"],
      ),
    Placement: filled({
      Constraints: placement?.constraints,
      Preferences: placement?.preferences.map(({ spread }) => ({ Spread: { SpreadDescriptor: spread } })),
      MaxReplicas: Number(placement?.maxReplicas ?? 0n),
    }),
    LogDriver: logDriver && filled({ Name: logDriver.name, Options: labelsJson(logDriver.options) }),
    Networks: task?.networks.map(({ target, aliases, addresses }) =>
      filled({ Target: target, Aliases: aliases, Addresses: addresses }),
    ),
    ForceUpdate: Number(task?.forceUpdate ?? 0n),
    Runtime: "container",
  };
  return filled(fields, ["ContainerSpec", "Resources", "Placement", "ForceUpdate"]);
}

/** Docker's defaults are written out. */
function fileJson(file: FileTarget | undefined, name: string): Record<string, unknown> {
  return { Name: file?.name || name, UID: file?.uid || "0", GID: file?.gid || "0", Mode: file?.mode ?? 0o444 };
}

function containerJson(container: ContainerSpec | undefined): Record<string, unknown> {
  if (container === undefined) return {};
  return filled(
    {
      Image: container.image,
      Labels: labelsJson(container.labels),
      Command: container.command,
      Args: container.args,
      Env: container.env,
      Dir: container.dir,
      User: container.user,
      Groups: container.groups,
      Hostname: container.hostname,
      TTY: container.tty,
      OpenStdin: container.openStdin,
      ReadOnly: container.readOnly,
      Mounts: container.mounts.map(mountJson),
      Secrets: container.secrets.map(({ secretId, secretName, file }) => ({
        File: fileJson(file, secretName),
        SecretID: secretId,
        SecretName: secretName,
      })),
      Configs: container.configs.map(({ configId, configName, file }) => ({
        File: fileJson(file, configName),
        ConfigID: configId,
        ConfigName: configName,
      })),
      StopSignal: container.stopSignal,
      StopGracePeriod: nanosJson(container.stopGracePeriod),
      Healthcheck: container.healthcheck && healthJson(container.healthcheck),
      Hosts: container.hosts,
      DNSConfig:
        container.dns &&
        filled({
          Nameservers: container.dns.nameservers,
          Search: container.dns.search,
          Options: container.dns.options,
        }),
      CapabilityAdd: container.capAdd,
      CapabilityDrop: container.capDrop,
      Sysctls: labelsJson(container.sysctls),
      Ulimits: container.ulimits.map(({ name, soft, hard }) => ({
        Name: name,
        Soft: Number(soft),
        Hard: Number(hard),
      })),
      OomScoreAdj: container.oomScoreAdj,
      ...isolationJson(container),
      Init: container.init,
    },
    ["Image", ...(container.init === undefined ? [] : ["Init"])],
  );
}

/** Docker's API has words for some of it (Privileges, 1.44; HostConfig of a container for the rest). */
function isolationJson(container: ContainerSpec): Record<string, unknown> {
  const { security, pullPolicy } = container;
  const seccomp = security?.seccomp ?? "";
  const profile =
    seccomp === "unconfined" || seccomp === ""
      ? { Mode: seccomp }
      : { Mode: "custom", Profile: Buffer.from(seccomp).toString("base64") };
  return {
    Privileged: container.privileged,
    Privileges:
      security &&
      filled({
        Seccomp: filled(profile),
        AppArmor: security.apparmor,
        SystemPathsUnconfined: security.systemPathsUnconfined,
        ...(security.noNewPrivileges === undefined ? {} : { NoNewPrivileges: security.noNewPrivileges }),
      }),
    Devices: container.devices.map(({ hostPath, containerPath, permissions }) => ({
      PathOnHost: hostPath,
      PathInContainer: containerPath || hostPath,
      CgroupPermissions: permissions || "rwm",
    })),
    DeviceCgroupRules: container.deviceCgroupRules,
    ShmSize: Number(container.shmSizeBytes),
    PidMode: container.pidMode,
    IpcMode: container.ipcMode,
    UTSMode: container.utsMode,
    PullPolicy: pullPolicy === PullPolicy.MISSING ? "" : enumWord(PullPolicy, pullPolicy),
  };
}

function mountJson(mount: Mount): Record<string, unknown> {
  return filled({
    Type: enumWord(Mount_Type, mount.type),
    Source: mount.source,
    Target: mount.target,
    ReadOnly: mount.readOnly,
    BindOptions: filled({
      Propagation: mount.propagation,
      NonRecursive: mount.bindNonRecursive,
      CreateMountpoint: mount.createSource,
    }),
    VolumeOptions: filled({
      NoCopy: mount.volumeNoCopy,
      Labels: labelsJson(mount.volumeLabels),
      Subpath: mount.volumeSubpath,
      ...(mount.volumeSticky === undefined ? {} : { Sticky: String(mount.volumeSticky) }),
      DriverConfig: filled({ Name: mount.volumeDriver, Options: labelsJson(mount.volumeOptions) }),
    }),
    TmpfsOptions: filled({ SizeBytes: Number(mount.tmpfsSizeBytes), Mode: mount.tmpfsMode }),
  });
}

function healthJson(health: HealthConfig): Record<string, unknown> {
  return filled({
    Test: health.test,
    Interval: nanosJson(health.interval),
    Timeout: nanosJson(health.timeout),
    Retries: health.retries,
    StartPeriod: nanosJson(health.startPeriod),
    StartInterval: nanosJson(health.startInterval),
  });
}

function resourcesJson(resources: ResourceRequirements | undefined): Record<string, unknown> {
  const { limits, reservations } = resources ?? {};
  return {
    Limits: filled({
      NanoCPUs: Number(limits?.nanoCpus ?? 0n),
      MemoryBytes: Number(limits?.memoryBytes ?? 0n),
      Pids: Number(limits?.pids ?? 0n),
      MemorySwapBytes: Number(limits?.memorySwapBytes ?? 0n),
      ...(limits?.memorySwappiness === undefined ? {} : { MemorySwappiness: limits.memorySwappiness }),
      CpusetCpus: limits?.cpusetCpus,
      CpusetMems: limits?.cpusetMems,
      CPUShares: Number(limits?.cpuShares ?? 0n),
    }),
    Reservations: filled({
      NanoCPUs: Number(reservations?.nanoCpus ?? 0n),
      MemoryBytes: Number(reservations?.memoryBytes ?? 0n),
    }),
  };
}

function updateJson(update: UpdateConfig): Record<string, unknown> {
  return filled(
    {
      Parallelism: Number(update.parallelism),
      Delay: nanosJson(update.delay),
      Monitor: nanosJson(update.monitor),
      FailureAction: enumWord(UpdateConfig_FailureAction, update.failureAction),
      MaxFailureRatio: update.maxFailureRatio,
      Order: enumWord(UpdateConfig_Order, update.order),
    },
    ["Parallelism", "FailureAction", "MaxFailureRatio", "Order"],
  );
}

function endpointJson({ endpoint }: ServiceSpec): Record<string, unknown> {
  const mode = enumWord(EndpointSpec_Mode, endpoint?.mode ?? EndpointSpec_Mode.VIP);
  const { affinity = EndpointSpec_Affinity.NONE, ports = [] } = endpoint ?? {};
  const isSticky = affinity !== EndpointSpec_Affinity.NONE;
  return filled({
    Mode: mode,
    Ports: ports.map(portJson),
    ...(isSticky && { SessionAffinity: enumWord(EndpointSpec_Affinity, affinity) }),
  });
}

function portJson(port: PortConfig): Record<string, unknown> {
  return filled({
    Name: port.name,
    Protocol: protocolName(port.protocol),
    TargetPort: port.targetPort,
    PublishedPort: port.publishedPort,
    PublishMode: enumWord(PortConfig_PublishMode, port.publishMode),
    HostIP: port.hostIp,
  });
}
