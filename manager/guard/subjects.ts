/** What the Control API's requests are about: the objects that they name in any way, and what those would be given. Pure. */
import { SwarmError } from "../../common/base/error.ts";
import { parseHostPort } from "../../common/base/host-port.ts";
import { isId } from "../../common/base/id.ts";
import { isPredefinedNetwork, overlayNetworks } from "../../common/model/networks.ts";
import type { StackRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Config, Network, Secret, Service, StackContent, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { NetworkSpec, ServiceSpec, VolumeSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { PEER_PORT_OFFSET } from "../advertised.ts";
import { networkLookup, serviceLookup, taskLookup } from "../control/lookups.ts";
import { heldPorts } from "../control/port-conflicts.ts";
import { type Lookup, resolveReference } from "../control/references.ts";
import { FILE_KINDS, filesOfStack } from "../stacks/files.ts";
import { networksOfStack } from "../stacks/networks.ts";
import { NAMESPACE_LABEL, servicesOfStack, stackNameOf } from "../stacks/stack-view.ts";
import type { View } from "../store/view.ts";
import { isOfNetworkPools } from "../subnets.ts";
import { volumeSources } from "../volume-names.ts";
import { hostPorts, leadsElsewhere, privilegesOf } from "./privileges.ts";
import type { ObjectKind, Subject } from "./reach.ts";

/** What is of the whole cluster: "nodes". */
export function cluster(what: string): readonly Subject[] {
  return [{ kind: "cluster", what }];
}

/** A service that is there. */
export function serviceSubject(view: View, { id, name, specVersion }: Service): Subject {
  return { kind: "service", name, stack: stackNameOf(view.specVersion(id, specVersion)?.spec) };
}

/** A secret or config that is there. */
export function fileSubject(kind: "secret" | "config", { name, spec }: Secret | Config): Subject {
  return { kind, name, stack: spec?.labels[NAMESPACE_LABEL] };
}

/** Networks by any name; those that are always there are everybody's. */
export function networksReferred(view: View, references: readonly string[]): readonly Subject[] {
  return references
    .filter((text) => !isPredefinedNetwork(text))
    .flatMap((text) => referred(networkLookup(view), text, networkSubject, "network"));
}

/** A network that is there. */
export function networkSubject({ name, spec }: Network): Subject {
  return { kind: "network", name, stack: spec?.labels[NAMESPACE_LABEL] };
}

/** A network that is to be. Hosts route its subnet: what is not of the networks' pools could be somebody else's place. */
export function networkSpecSubjects(view: View, spec: NetworkSpec | undefined): readonly Subject[] {
  const { name = "", labels = {}, ipam = [] } = spec ?? {};
  const network: Subject = { kind: "network", name, stack: labels[NAMESPACE_LABEL] };
  const isOurs = (subnet: string) => subnet === "" || isOfNetworkPools(view, subnet);
  return ipam.every(({ subnet }) => isOurs(subnet))
    ? [network]
    : [network, ...cluster("subnets beyond the networks' pools")];
}

/** One that is there by its id; nothing for an id that is nobody's: the method says so. */
export function serviceById(view: View, id: string): readonly Subject[] {
  const service = view.services.get(id);
  return service ? [serviceSubject(view, service)] : [];
}

/** Services by any name. */
export function servicesReferred(view: View, references: readonly string[]): readonly Subject[] {
  return references.flatMap((text) =>
    referred(serviceLookup(view), text, (service) => serviceSubject(view, service), "service"),
  );
}

/** The services of tasks by any name. */
export function tasksReferred(view: View, references: readonly string[]): readonly Subject[] {
  return references.flatMap((text) => referred(taskLookup(view), text, (task) => taskSubject(view, task), "service"));
}

/** A task is its service's. */
export function taskSubject(view: View, { id, serviceId }: Task): Subject {
  const service = view.services.get(serviceId);
  return service ? serviceSubject(view, service) : { kind: "service", name: `of task ${id}` };
}

/**
 * What a text names. One that names nothing, or several, is taken for a name, so that nobody learns what there is; but an id that
 * is nobody's tells nothing, and the method says so.
 */
export function referred<T>(
  lookup: Lookup<T>,
  text: string,
  subject: (object: T) => Subject,
  kind: ObjectKind,
): readonly Subject[] {
  try {
    return [subject(resolveReference(lookup, text))];
  } catch (reason) {
    if (!(reason instanceof SwarmError)) throw reason;
    return isId(text) ? [] : [{ kind, name: text }];
  }
}

/** A service as it is to be: itself, what it refers to, and what its tasks would be given. */
export function specSubjects(view: View, spec: ServiceSpec | undefined): readonly Subject[] {
  if (spec === undefined) return [];
  const container = spec.task?.container;
  const secrets = (container?.secrets ?? []).map(({ secretId, secretName }): Subject => {
    const found = view.secrets.get(secretId) ?? view.byName("secret", secretName || secretId);
    return found ? fileSubject("secret", found) : { kind: "secret", name: secretName || secretId };
  });
  const configs = (container?.configs ?? []).map(({ configId, configName }): Subject => {
    const found = view.configs.get(configId) ?? view.byName("config", configName || configId);
    return found ? fileSubject("config", found) : { kind: "config", name: configName || configId };
  });
  return [
    { kind: "service", name: spec.name, stack: stackNameOf(spec) },
    ...privilegeSubjects(spec),
    ...portSubjects(view, spec),
    ...secrets,
    ...configs,
    ...volumeSources(spec).map((source): Subject => ({ kind: "volume", name: certainPart(source, spec.name) })),
    ...networksReferred(view, overlayNetworks(spec)),
    ...spec.dependsOn.map(({ service }): Subject => ({ kind: "service", name: service })),
  ];
}

/** What a spec's tasks have, or would have, beyond a task's own. */
export function privilegeSubjects(spec: ServiceSpec | undefined): readonly Subject[] {
  if (spec === undefined) return [];
  return privilegesOf(spec).map((what) => ({ kind: "privilege", service: spec.name, what }));
}

/** Ports that somebody who may has given to the service stay its own. */
function portSubjects(view: View, spec: ServiceSpec): readonly Subject[] {
  const held = heldPorts(view, view.serviceByName(spec.name)?.id ?? "");
  const ports = hostPorts(spec, { reserved: clusterPorts(view), held });
  return ports.map((what) => ({ kind: "privilege", service: spec.name, what }));
}

/** A volume that is to be. */
export function volumeSubjects(spec: VolumeSpec | undefined): readonly Subject[] {
  const { name = "", labels = {}, options = {} } = spec ?? {};
  const volume: Subject = { kind: "volume", name, stack: labels[NAMESPACE_LABEL] };
  return leadsElsewhere(options) ? [volume, ...cluster("volumes with options that lead elsewhere")] : [volume];
}

/** A stack with all that its file names, and what bears its label now: a deploy may remove that. */
export function stackSubjects(view: View, { spec }: StackRequest): readonly Subject[] {
  const stack = spec?.name ?? "";
  const named = (kind: ObjectKind, names: readonly string[] = []) => names.map((name): Subject => ({ kind, name }));
  return [
    ...ownedBy(view, stack),
    ...(spec?.services ?? []).flatMap((each) => specSubjects(view, labelled(each, stack))),
    ...(spec?.volumes ?? []).flatMap(volumeSubjects),
    ...(spec?.networks ?? []).flatMap((each) => networkSpecSubjects(view, each)),
    ...networksReferred(view, spec?.externalNetworks ?? []),
    ...named(
      "secret",
      spec?.secrets.map(({ name }) => name),
    ),
    ...named(
      "config",
      spec?.configs.map(({ name }) => name),
    ),
    ...named("secret", spec?.externalSecrets),
    ...named("config", spec?.externalConfigs),
    ...named("volume", spec?.externalVolumes),
  ];
}

/** What a revision of a stack would bring back. */
export function contentSubjects(view: View, content: StackContent): readonly Subject[] {
  return [
    ...content.services.flatMap((spec) => specSubjects(view, spec)),
    ...content.volumes.flatMap(volumeSubjects),
    ...content.networks.flatMap((each) => networkSpecSubjects(view, each)),
    ...content.secrets.map(({ name }): Subject => ({ kind: "secret", name })),
    ...content.configs.map(({ name }): Subject => ({ kind: "config", name })),
  ];
}

/** A stack and what bears its label. */
export function ownedBy(view: View, stack: string): readonly Subject[] {
  return [
    { kind: "stack", name: stack },
    ...servicesOfStack(view, stack).map(({ service }) => serviceSubject(view, service)),
    ...FILE_KINDS.flatMap((kind) => filesOfStack(view, kind, stack).map((object) => fileSubject(kind, object))),
    ...networksOfStack(view, stack).map(networkSubject),
  ];
}

/** As a deploy labels it, whatever the file says. */
function labelled(spec: ServiceSpec, stack: string): ServiceSpec {
  return { ...spec, labels: { ...spec.labels, [NAMESPACE_LABEL]: stack } };
}

/**
 * The part of a volume's name that is sure before its template is expanded. A character that no name has stands for the rest: a
 * prefix that ends there is not known to be a word.
 */
function certainPart(source: string, serviceName: string): string {
  const known = source.replace(/^\{\{-?\s*\.Service\.Name\s*-?\}\}/, serviceName);
  const template = known.indexOf("{{");
  return template < 0 ? known : `${known.slice(0, template)}{`;
}

/** What managers listen on: a node that gave such a port to a task could reach, or be, no manager any more. */
function clusterPorts({ managers }: Pick<View, "managers">): ReadonlySet<number> {
  const ports = [...managers.values()].flatMap(({ address }) => parseHostPort(address)?.port ?? []);
  return new Set(ports.flatMap((port) => [port, port + PEER_PORT_OFFSET]));
}
