/** What of a service's spec would hand its tasks more of their hosts than a task has. Pure. */
import { readVolumeOptions } from "../../common/model/volume-options.ts";
import {
  type ContainerSpec,
  type Mount,
  Mount_Type,
  type PortConfig,
  type ServiceSpec,
  type TaskSpec,
} from "../../proto/gen/swarm/v1/types_pb.js";

/** Beyond the eleven that every task has: those of Docker's fourteen that it has not. */
const CAPABILITIES = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];
/** As for a host's own users who are not root: what listens below is the host's. */
const PORT_MIN = 1024;

/** Each in words; none for a spec whose tasks stay where they are. */
export function privilegesOf(spec: ServiceSpec): readonly string[] {
  const container = spec.task?.container;
  return [
    ...(container
      ? [...isolation(container), ...capabilities(container), ...container.mounts.flatMap(mountPrivilege)]
      : []),
    ...networks(spec.task),
  ];
}

/** Which of its ports a spec would take from the host: `reserved` are the cluster's own, `held` what the service has already. */
export function hostPorts(
  spec: ServiceSpec,
  { reserved, held }: { readonly reserved: ReadonlySet<number>; readonly held: readonly PortConfig[] },
): readonly string[] {
  const ports = (spec.endpoint?.ports ?? []).filter(({ publishedPort, protocol }) => {
    if (publishedPort === 0) return false;
    if (held.some((port) => port.publishedPort === publishedPort && port.protocol === protocol)) return false;
    return publishedPort < PORT_MIN || reserved.has(publishedPort);
  });
  return ports.map(({ publishedPort }) => `published port ${publishedPort}`);
}

/** Whether a volume's options lead to something that is not the volume's own: a directory of the host, a disk, another host. */
export function leadsElsewhere(options: Readonly<Record<string, string>>): boolean {
  const source = readVolumeOptions(options);
  if (!source.ok || source.value.kind === "bind") return true;
  return source.value.kind === "mount" && source.value.type !== "tmpfs";
}

function isolation(container: ContainerSpec): readonly string[] {
  const { security, privileged, devices, deviceCgroupRules, oomScoreAdj } = container;
  const facts: Readonly<Record<string, boolean>> = {
    privileged,
    devices: devices.length + deviceCgroupRules.length > 0,
    "the host's PID namespace": container.pidMode !== "",
    "the host's IPC namespace": container.ipcMode !== "",
    "the host's UTS namespace": container.utsMode !== "",
    // Of a profile nobody can say that it is stricter than the default.
    "another seccomp profile": (security?.seccomp ?? "") !== "",
    "another AppArmor profile": (security?.apparmor ?? "") !== "",
    "open system paths": security?.systemPathsUnconfined === true,
    "a negative oom_score_adj": oomScoreAdj < 0,
  };
  return Object.keys(facts).filter((fact) => facts[fact]);
}

function capabilities({ capAdd }: ContainerSpec): readonly string[] {
  const added = capAdd.map((name) => name.toUpperCase().replace(/^CAP_/, ""));
  return added.filter((name) => !CAPABILITIES.includes(name)).map((name) => `capability ${name}`);
}

function mountPrivilege({ type, source, volumeOptions }: Mount): readonly string[] {
  if (type === Mount_Type.BIND) return [`a bind mount of ${source}`];
  if (type !== Mount_Type.VOLUME || !leadsElsewhere(volumeOptions)) return [];
  return [`options of volume ${source}`];
}

function networks(task: TaskSpec | undefined): readonly string[] {
  return task?.networks.some(({ target }) => target === "host") ? ["the host's network"] : [];
}
