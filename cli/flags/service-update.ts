/** `service update` flags and the present spec → the new spec. Pure; the present spec is not touched. */
import { clone, create } from "@bufbuild/protobuf";
import { good, type Parsed } from "../../common/model/parsed.ts";
import { parsePublish } from "../../common/model/ports.ts";
import {
  DnsConfigSchema,
  EndpointSpecSchema,
  PlacementSchema,
  type ServiceSpec,
  ServiceSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { UsageError } from "../usage-error.ts";
import { parseConfig, parseSecret } from "./content-reference.ts";
import { parseDependency } from "./dependency.ts";
import { devicePath, parseDevice } from "./device.ts";
import { applyIsolation } from "./isolation.ts";
import {
  merged,
  nameOf,
  parseHost,
  parseNetwork,
  parsePair,
  parsePortRemoval,
  parsePreference,
  parseUlimit,
  parseVariable,
  portKey,
} from "./lists.ts";
import { parseMount } from "./mount.ts";
import type { Flags } from "./parse.ts";
import { applyScalars, containerOf, refuseUnsupported, taskOf } from "./scalars.ts";
import type { CallerContext } from "./service-create.ts";
import { commandFlag, countFlag, parsedOrThrow } from "./values.ts";

/** The spec after the flags were applied. */
export function updatedSpec(present: ServiceSpec, flags: Flags, context: CallerContext): ServiceSpec {
  refuseUnsupported(flags);
  const spec = clone(ServiceSpecSchema, present);
  const container = containerOf(spec);
  container.image = flags.text("image") ?? container.image;
  container.args = [...(commandFlag(flags, "args") ?? container.args)];
  applyReplicas(spec, flags);
  applyScalars(spec, flags);
  applyIsolation(taskOf(spec), flags, context.readFile);
  editContainer(spec, flags, context);
  editCapabilities(spec, flags);
  editTask(spec, flags, (reference) => context.networkNames?.get(reference) ?? reference);
  if (flags.on("force")) taskOf(spec).forceUpdate += 1n;
  return spec;
}

function applyReplicas(spec: ServiceSpec, flags: Flags): void {
  const replicas = countFlag(flags, "replicas");
  const maxConcurrent = countFlag(flags, "max-concurrent");
  const mode = spec.mode?.mode;
  if (maxConcurrent !== undefined) {
    if (mode?.case !== "replicatedJob") {
      throw new UsageError("--max-concurrent can only be used with mode replicated-job");
    }
    mode.value.maxConcurrent = maxConcurrent;
  }
  if (replicas === undefined) return;
  if (mode?.case === "replicated") mode.value.replicas = replicas;
  else if (mode?.case === "replicatedJob") mode.value.totalCompletions = replicas;
  else throw new UsageError("--replicas can only be used with mode replicated or replicated-job");
}

/** Edits one list by its `-rm` and `-add` flags: removals first, so that a removed key can be added anew. */
function edited<T>(
  flags: Flags,
  name: string,
  edit: {
    readonly present: readonly T[];
    parse(text: string): Parsed<T>;
    keyOf(item: T): string;
    /** The key that a `-rm` value names; default: the value itself. */
    removedKey?(text: string): string;
  },
): T[] {
  const removed = new Set(flags.list(`${name}-rm`).map(edit.removedKey ?? ((text) => text)));
  const kept = edit.present.filter((item) => !removed.has(edit.keyOf(item)));
  const added = flags.list(`${name}-add`).map((text) => parsedOrThrow(`${name}-add`, text, edit.parse));
  return merged(kept, added, edit.keyOf);
}

/** A list of plain words. */
function editedWords(flags: Flags, name: string, present: readonly string[]): string[] {
  return edited(flags, name, { present, parse: (value) => ({ ok: true, value }), keyOf: (word) => word });
}

/** A map of `key=value`. */
function editedMap(flags: Flags, name: string, present: Readonly<Record<string, string>>): Record<string, string> {
  const pairs = edited<readonly [string, string]>(flags, name, {
    present: Object.entries(present),
    parse: parsePair,
    keyOf: ([key]) => key,
  });
  return Object.fromEntries(pairs);
}

function editContainer(spec: ServiceSpec, flags: Flags, context: CallerContext): void {
  const container = containerOf(spec);
  container.env = edited(flags, "env", {
    present: container.env,
    parse: (text) => parseVariable(text, context.environment),
    keyOf: nameOf,
    removedKey: nameOf,
  });
  container.groups = editedWords(flags, "group", container.groups);
  container.labels = editedMap(flags, "container-label", container.labels);
  container.sysctls = editedMap(flags, "sysctl", container.sysctls);
  container.mounts = edited(flags, "mount", {
    present: container.mounts,
    parse: parseMount,
    keyOf: (mount) => mount.target,
  });
  // As Docker: `-rm` names the object; one object may be there as several files, and all of them go.
  container.secrets = edited(flags, "secret", {
    present: container.secrets,
    parse: parseSecret,
    keyOf: ({ secretName }) => secretName,
  });
  container.configs = edited(flags, "config", {
    present: container.configs,
    parse: parseConfig,
    keyOf: ({ configName }) => configName,
  });
  spec.dependsOn = edited(flags, "depends-on", {
    present: spec.dependsOn,
    parse: parseDependency,
    keyOf: ({ service }) => service,
    removedKey: (text) => text.split(":")[0] ?? text,
  });
  container.hosts = edited(flags, "host", {
    present: container.hosts,
    parse: parseHost,
    keyOf: (line) => line,
    removedKey: (text) => {
      const parsed = parseHost(text);
      return parsed.ok ? parsed.value : (container.hosts.find((line) => line.split(" ").includes(text)) ?? text);
    },
  });
  container.ulimits = edited(flags, "ulimit", {
    present: container.ulimits,
    parse: parseUlimit,
    keyOf: (ulimit) => ulimit.name,
  });
  container.devices = edited(flags, "device", {
    present: container.devices,
    parse: parseDevice,
    keyOf: devicePath,
  });
  container.deviceCgroupRules = editedWords(flags, "device-cgroup-rule", container.deviceCgroupRules);
  const dns = container.dns ?? create(DnsConfigSchema, {});
  dns.nameservers = editedWords(flags, "dns", dns.nameservers);
  dns.search = editedWords(flags, "dns-search", dns.search);
  dns.options = editedWords(flags, "dns-option", dns.options);
  if (dns.nameservers.length + dns.search.length + dns.options.length > 0) container.dns = dns;
  else delete container.dns;
}

/** `--cap-add` takes a name out of the dropped ones and the other way round; RESET forgets what was there. */
function editCapabilities(spec: ServiceSpec, flags: Flags): void {
  const container = containerOf(spec);
  const [add, drop] = [flags.list("cap-add"), flags.list("cap-drop")];
  const plain = (name: string) => name.toUpperCase().replace(/^CAP_/, "");
  const reset = (names: readonly string[]) => names.some((name) => plain(name) === "RESET");
  const without = (names: readonly string[], other: readonly string[]) =>
    names.filter((name) => plain(name) !== "RESET" && !other.some((word) => plain(word) === plain(name)));
  const added = reset(add) ? [] : container.capAdd;
  const dropped = reset(drop) ? [] : container.capDrop;
  container.capAdd = merged(without(added, drop), without(add, []), plain);
  container.capDrop = merged(without(dropped, add), without(drop, []), plain);
}

/** Networks stand in specs by name, and may be given by id. */
export function networkReferences(flags: Flags): readonly string[] {
  const added = flags.list("network-add").map((text) => parsedOrThrow("network-add", text, parseNetwork).target);
  return [...added, ...flags.list("network-rm")];
}

function editTask(spec: ServiceSpec, flags: Flags, nameOfNetwork: (reference: string) => string): void {
  const task = taskOf(spec);
  spec.labels = editedMap(flags, "label", spec.labels);
  const touched = (name: string) => flags.has(`${name}-add`) || flags.has(`${name}-rm`);
  if (touched("constraint") || touched("placement-pref")) {
    task.placement ??= create(PlacementSchema, {});
    task.placement.constraints = editedWords(flags, "constraint", task.placement.constraints);
    task.placement.preferences = edited(flags, "placement-pref", {
      present: task.placement.preferences,
      parse: parsePreference,
      keyOf: ({ spread }) => spread,
      removedKey: (text) => text.replace(/^spread=/, ""),
    });
  }
  task.networks = edited(flags, "network", {
    present: task.networks,
    parse: (text) => {
      const parsed = parseNetwork(text);
      return parsed.ok ? good({ ...parsed.value, target: nameOfNetwork(parsed.value.target) }) : parsed;
    },
    keyOf: ({ target }) => target,
    removedKey: nameOfNetwork,
  });
  if (touched("publish")) editPorts(spec, flags);
}

function editPorts(spec: ServiceSpec, flags: Flags): void {
  spec.endpoint ??= create(EndpointSpecSchema, {});
  const removals = flags.list("publish-rm").map((text) => parsedOrThrow("publish-rm", text, parsePortRemoval));
  const kept = spec.endpoint.ports.filter((port) => !removals.some((removes) => removes(port)));
  const added = flags.list("publish-add").flatMap((text) => parsedOrThrow("publish-add", text, parsePublish));
  spec.endpoint.ports = merged(kept, added, portKey);
}
