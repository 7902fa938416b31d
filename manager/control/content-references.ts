/** What a spec says of secrets and configs, found in the store: names become ids, and the newest versions are pinned. Pure. */
import { create } from "@bufbuild/protobuf";
import type { FieldProblem } from "../../common/base/error.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import { quoted } from "../../common/model/units.ts";
import type { Config, Secret, Service } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  type ConfigReference,
  type ContentPin,
  ContentPinSchema,
  type SecretReference,
  type ServiceSpec,
  TaskState,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** The part of a view that references are found in. */
export type ContentView = Pick<View, "secrets" | "configs" | "byName">;

export interface ResolvedContents {
  /** The spec with id and name in each reference. */
  readonly spec: ServiceSpec;
  /** One for each secret and config that the spec names. */
  readonly pins: readonly ContentPin[];
  readonly problems: readonly FieldProblem[];
}

/** Finds every secret and config of a spec; each that is not there is a problem of its own. */
export function resolveContents(view: ContentView, spec: ServiceSpec): ResolvedContents {
  const { task } = spec;
  const container = task?.container;
  if (!container || container.secrets.length + container.configs.length === 0) return { spec, pins: [], problems: [] };
  const problems: FieldProblem[] = [];
  const pins = new Map<string, ContentPin>();
  const take = <T extends Secret | Config>(object: T | undefined, field: string, missing: string): T | undefined => {
    if (object === undefined) problems.push({ field, problem: missing });
    else {
      const version = object.contentVersion;
      pins.set(object.id, create(ContentPinSchema, { objectId: object.id, version }));
    }
    return object;
  };
  const secrets = container.secrets.map((reference, index): SecretReference => {
    const { secretId, secretName } = reference;
    const found = view.secrets.get(secretId) ?? view.byName("secret", secretName || secretId);
    const secret = take(found, `secrets[${index}]`, `secret not found: ${quoted(secretName || secretId)}`);
    return secret ? { ...reference, secretId: secret.id, secretName: secret.name } : reference;
  });
  const configs = container.configs.map((reference, index): ConfigReference => {
    const { configId, configName } = reference;
    const found = view.configs.get(configId) ?? view.byName("config", configName || configId);
    const config = take(found, `configs[${index}]`, `config not found: ${quoted(configName || configId)}`);
    return config ? { ...reference, configId: config.id, configName: config.name } : reference;
  });
  const resolved = { ...spec, task: { ...task, container: { ...container, secrets, configs } } };
  return { spec: resolved, pins: [...pins.values()], problems };
}

/** Whether a spec names the secret or config with this id. */
export function refersTo(spec: ServiceSpec | undefined, id: string): boolean {
  const container = spec?.task?.container;
  if (!container) return false;
  return (
    container.secrets.some(({ secretId }) => secretId === id) ||
    container.configs.some(({ configId }) => configId === id)
  );
}

/**
 * The names of services that need the secret or config: by their newest spec, by the one that a rollback would bring back,
 * or for a task that still runs.
 */
export function specsReferringTo(
  view: Pick<View, "services" | "specVersion" | "tasksOfService">,
  id: string,
): string[] {
  const needs = (service: Service): boolean => {
    const versions = new Set([service.specVersion, service.previousSpecVersion]);
    for (const task of view.tasksOfService(service.id)) {
      if (!isTerminal(task.status?.state ?? TaskState.NEW)) versions.add(task.specVersion);
    }
    return [...versions].some((version) => refersTo(view.specVersion(service.id, version)?.spec, id));
  };
  return [...view.services.values()]
    .filter(needs)
    .map(({ name }) => name)
    .sort();
}

/** The services whose newest spec names the secret or config, in order of name. */
export function servicesReferringTo(view: Pick<View, "services" | "specVersion">, id: string): Service[] {
  const services = [...view.services.values()].filter((service) =>
    refersTo(view.specVersion(service.id, service.specVersion)?.spec, id),
  );
  return services.sort((left, right) => (left.name < right.name ? -1 : 1));
}
