/** What the tasks of one spec version ask of a node, worked out once however many tasks there are. */
import { architecture, type Constraint, parseConstraints } from "../../common/model/constraints.ts";
import { replicasMaxPerNode } from "../../common/model/defaults.ts";
import { reservedBy } from "../../common/model/resources.ts";
import {
  type Platform,
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type ServiceSpec,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { stickySources } from "./sticky.ts";

export interface Requirements {
  readonly serviceId: string;
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  readonly constraints: readonly Constraint[];
  /** "tcp/80" for each host-mode port. */
  readonly hostPorts: readonly string[];
  /** Infinity when unbounded. */
  readonly maxPerNode: number;
  /** Platforms that the image is made for; empty when unknown. */
  readonly platforms: readonly { readonly os: string; readonly architecture: string }[];
  /** Whether one of its networks is encrypted. */
  readonly encrypted: boolean;
  /** Labels to spread over, outermost first: "node.labels.zone". */
  readonly spreadOver: readonly string[];
  /** Names of volumes, or templates of names, whose data a task follows. */
  readonly stickyVolumes: readonly string[];
  /** What those templates may name. */
  readonly serviceName: string;
  readonly serviceLabels: Readonly<Record<string, string>>;
}

const PROTOCOLS = {
  [PortConfig_Protocol.TCP]: "tcp",
  [PortConfig_Protocol.UDP]: "udp",
  [PortConfig_Protocol.SCTP]: "sctp",
} as const;

/** What requirements are read from. */
export interface RequirementsSource {
  readonly serviceId: string;
  readonly spec: ServiceSpec;
  /** The service's ports as allocated. */
  readonly ports: readonly PortConfig[];
  readonly platforms: readonly Platform[];
  /** Whether one of its networks is encrypted. */
  readonly encrypted: boolean;
}

/** Whether a service's tasks are on an encrypted network. */
export function isEncrypted(view: Pick<View, "byName">, { task }: ServiceSpec): boolean {
  return task?.networks.some(({ target }) => view.byName("network", target)?.spec?.encrypted) ?? false;
}

/** Reads the requirements out of a spec. Its constraints were validated when it was stored. */
export function requirementsOf({ serviceId, spec, ports, platforms, encrypted }: RequirementsSource): Requirements {
  const { task } = spec;
  const reserved = reservedBy(task);
  const constraints = parseConstraints(task?.placement?.constraints ?? []);
  return {
    serviceId,
    encrypted,
    nanoCpus: reserved.nanoCpus,
    memoryBytes: reserved.memoryBytes,
    constraints: constraints.ok ? constraints.value : [],
    hostPorts: ports
      .filter((port) => port.publishMode === PortConfig_PublishMode.HOST)
      .map((port) => `${PROTOCOLS[port.protocol]}/${port.publishedPort}`),
    maxPerNode: replicasMaxPerNode(task),
    platforms: platforms.map(({ os, architecture: name }) => ({ os, architecture: architecture(name) })),
    spreadOver: task?.placement?.preferences.map((preference) => preference.spread) ?? [],
    stickyVolumes: stickySources(spec),
    serviceName: spec.name,
    serviceLabels: spec.labels,
  };
}
