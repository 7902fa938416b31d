/** `service create` flags → ServiceSpec. Pure: files and the environment are handed in. */
import { create } from "@bufbuild/protobuf";
import { parsePublish } from "../../common/model/ports.ts";
import {
  DnsConfigSchema,
  EndpointSpecSchema,
  PlacementSchema,
  type ServiceMode,
  ServiceModeSchema,
  type ServiceSpec,
  ServiceSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { UsageError } from "../usage-error.ts";
import { parseConfig, parseSecret } from "./content-reference.ts";
import { parseDependency } from "./dependency.ts";
import { devicePath, parseDevice } from "./device.ts";
import { parseEnvFile } from "./env-file.ts";
import { applyIsolation } from "./isolation.ts";
import {
  merged,
  nameOf,
  parseHost,
  parseNetwork,
  parsePair,
  parsePreference,
  parseUlimit,
  parseVariable,
} from "./lists.ts";
import { parseMount } from "./mount.ts";
import type { Flags } from "./parse.ts";
import { applyScalars, containerOf, refuseUnsupported, taskOf } from "./scalars.ts";
import { countFlag, parsedOrThrow } from "./values.ts";

/** What the caller's machine contributes. */
export interface CallerContext {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The content of an `--env-file`. */
  readFile(path: string): string;
  /** Networks' names by whatever they were called in `networkReferences`. */
  readonly networkNames?: ReadonlyMap<string, string>;
}

/** The spec that the flags and words (`IMAGE [COMMAND] [ARG...]`) describe. */
export function createSpec(flags: Flags, words: readonly string[], context: CallerContext): ServiceSpec {
  refuseUnsupported(flags);
  const [image = "", ...args] = words;
  const spec = create(ServiceSpecSchema, { name: flags.text("name") ?? "" });
  spec.mode = modeOf(flags);
  containerOf(spec).image = image;
  containerOf(spec).args = args;
  applyScalars(spec, flags);
  applyIsolation(taskOf(spec), flags, context.readFile);
  applyContainerLists(spec, flags, context);
  applyTaskLists(spec, flags);
  return spec;
}

function modeOf(flags: Flags): ServiceMode {
  const name = flags.text("mode") ?? "replicated";
  const replicas = countFlag(flags, "replicas");
  const maxConcurrent = countFlag(flags, "max-concurrent");
  if (name !== "replicated-job" && maxConcurrent !== undefined) {
    throw new UsageError("--max-concurrent can only be used with mode replicated-job");
  }
  switch (name) {
    case "replicated":
      return create(ServiceModeSchema, { mode: { case: "replicated", value: { replicas: replicas ?? 1n } } });
    case "replicated-job": {
      const value = { totalCompletions: replicas ?? 1n, maxConcurrent: maxConcurrent ?? replicas ?? 1n };
      return create(ServiceModeSchema, { mode: { case: "replicatedJob", value } });
    }
    case "global":
    case "global-job":
      if (replicas !== undefined) {
        throw new UsageError("--replicas can only be used with mode replicated or replicated-job");
      }
      if (flags.has("replicas-max-per-node")) {
        throw new UsageError("--replicas-max-per-node can only be used with mode replicated or replicated-job");
      }
      return create(ServiceModeSchema, { mode: { case: name === "global" ? "global" : "globalJob", value: {} } });
    default:
      throw new UsageError(`invalid argument ${JSON.stringify(name)} for --mode: replicated or global`);
  }
}

/** Every value of a list flag, read. */
function each<T>(
  flags: Flags,
  name: string,
  parse: (text: string) => { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string },
): readonly T[] {
  return flags.list(name).map((text) => parsedOrThrow(name, text, parse));
}

function applyContainerLists(spec: ServiceSpec, flags: Flags, context: CallerContext): void {
  const container = containerOf(spec);
  const fromFiles = flags.list("env-file").flatMap((path) => {
    const parsed = parseEnvFile(context.readFile(path), context.environment);
    if (!parsed.ok) throw new UsageError(`--env-file ${path}: ${parsed.problem}`);
    return parsed.value;
  });
  const variables = each(flags, "env", (text) => parseVariable(text, context.environment));
  container.env = merged(fromFiles, variables, nameOf);
  spec.dependsOn = [...each(flags, "depends-on", parseDependency)];
  container.groups = [...flags.list("group")];
  container.labels = Object.fromEntries(each(flags, "container-label", parsePair));
  container.mounts = [...each(flags, "mount", parseMount)];
  container.secrets = [...each(flags, "secret", parseSecret)];
  container.configs = [...each(flags, "config", parseConfig)];
  container.hosts = [...each(flags, "host", parseHost)];
  container.capAdd = [...flags.list("cap-add")];
  container.capDrop = [...flags.list("cap-drop")];
  container.devices = merged([], each(flags, "device", parseDevice), devicePath);
  container.deviceCgroupRules = [...flags.list("device-cgroup-rule")];
  container.sysctls = Object.fromEntries(each(flags, "sysctl", parsePair));
  container.ulimits = merged([], each(flags, "ulimit", parseUlimit), (ulimit) => ulimit.name);
  const dns = { nameservers: flags.list("dns"), search: flags.list("dns-search"), options: flags.list("dns-option") };
  if (Object.values(dns).some((values) => values.length > 0)) {
    container.dns = create(DnsConfigSchema, {
      nameservers: [...dns.nameservers],
      search: [...dns.search],
      options: [...dns.options],
    });
  }
}

function applyTaskLists(spec: ServiceSpec, flags: Flags): void {
  const task = taskOf(spec);
  spec.labels = Object.fromEntries(each(flags, "label", parsePair));
  if (flags.has("constraint") || flags.has("placement-pref")) {
    task.placement ??= create(PlacementSchema, {});
    task.placement.constraints = [...flags.list("constraint")];
    task.placement.preferences = [...each(flags, "placement-pref", parsePreference)];
  }
  task.networks = [...each(flags, "network", parseNetwork)];
  const ports = each(flags, "publish", parsePublish).flat();
  if (ports.length > 0) {
    spec.endpoint ??= create(EndpointSpecSchema, {});
    spec.endpoint.ports = [...ports];
  }
}
