/** Makes one container, as far as its first process waiting to be let go: image, directory, files, spec, plan, runner. */
import { mkdirSync, writeFileSync } from "node:fs";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { parseImageReference } from "../common/model/image-reference.ts";
import { decodeRegistryAuth } from "../common/registry/credentials.ts";
import { firstSource } from "../common/registry/source.ts";
import { PullPolicy } from "../proto/gen/swarm/v1/types_pb.js";
import { recordContents, writeContents } from "./container-contents.ts";
import { containerDevices } from "./container-devices.ts";
import { checkEncryption } from "./container-network.ts";
import { type ContainerRecord, writeContainerRecord } from "./container-record.ts";
import { compiledSeccomp } from "./container-seccomp.ts";
import { type ContainerSettings, containerSettings, type LifeSettings, lifeSettings } from "./container-settings.ts";
import type { AssignedTask } from "./executor.ts";
import type { ImageInfo } from "./image/store.ts";
import type { NetworkPlan } from "./network/network-manager.ts";
import { containerDirectory, contentsOf, logPath, type NodeRuntime } from "./node-runtime.ts";
import { containerSpec } from "./runtime/default-spec.ts";
import type { OciSpec } from "./runtime/oci.ts";
import type { ContainerOp, HostPath } from "./runtime/op.ts";
import type { LogTarget, Plan } from "./runtime/plan.ts";
import type { ContainerDevice } from "./runtime/privileges.ts";
import { planContainer } from "./runtime/spec-plan.ts";
import { volumeUse } from "./volumes.ts";

/** A container that stands ready. */
export interface CreatedContainer {
  readonly record: ContainerRecord;
  /** Of its first process, as the host numbers it. */
  readonly pid: number;
  /** What its first process does, to name the operation that fails at its start. */
  readonly ops: readonly ContainerOp[];
}

/**
 * Makes the container of a task whose directory does not exist. A failure leaves nothing but what `releaseContainer` and
 * the removal of the directory free. Throws SwarmErrors with messages for `service ps`.
 */
export async function createContainer(
  assigned: AssignedTask,
  node: NodeRuntime,
  signal: AbortSignal,
): Promise<CreatedContainer> {
  const directory = containerDirectory(node.directories, assigned.task.id as TaskId);
  const settings = containerSettings(assigned, node.names, { ...node.directories, container: directory });
  const image = await ensureImage(settings, node, signal);
  const life = lifeSettings(settings, image.config);
  await provideContents(assigned, settings, node, signal);
  const layers = { layers: layersOf(image) };
  // Not in line with others: a file system of another host may take its time.
  await node.volumes.provide(assigned.task.id as TaskId, settings.mounts, layers, signal);
  return node.starting.run(async () => {
    try {
      const network = await attach(assigned, settings, node, signal);
      const devices = await containerDevices(settings.spec);
      const spec = specOf(assigned, { settings, image, directory, devices }, node);
      const record = recordOf(settings, image, life, spec);
      makeDirectory(directory, settings, network);
      writeContainerRecord(directory, record);
      await node.volumes.provideAnonymous(settings.mounts, layers, signal);
      const plan = planOf(assigned.task.id, { settings, image, directory, spec, network }, node);
      const { pid } = await node.runner.create(plan, signal);
      return { record, pid, ops: plan.container };
    } catch (reason) {
      throw storageError(reason);
    }
  }, signal);
}

/** Writes the task's secrets and configs, before there is a container that could read them. */
async function provideContents(
  { task, contents }: AssignedTask,
  settings: ContainerSettings,
  node: NodeRuntime,
  signal: AbortSignal,
): Promise<void> {
  if (settings.contents.files.length === 0) return;
  const directory = contentsOf(node.directories, task.id as TaskId);
  const { context, spec } = settings;
  await writeContents(directory, settings.contents, { clock: node.clock, contents, context, env: spec.env }, signal);
  recordContents(directory, settings.contents);
}

/** By the task's pull policy: what this node has, unless it is to ask again; nobody is asked where that is forbidden. */
async function ensureImage(settings: ContainerSettings, node: NodeRuntime, signal: AbortSignal): Promise<ImageInfo> {
  const { image, pullOptions, pullPolicy } = settings.spec;
  const parsed = parseImageReference(image);
  if (!parsed.ok) throw new SwarmError("invalid_argument", parsed.problem);
  const present = pullPolicy === PullPolicy.ALWAYS ? undefined : await node.images.present(parsed.reference);
  if (present) return present;
  if (pullPolicy === PullPolicy.NEVER) {
    throw new SwarmError("not_found", `image ${image}: not present on this node, and its pull policy is never`);
  }
  const registry = node.registries.source(decodeRegistryAuth(pullOptions?.registryAuth ?? ""));
  return node.images.ensureImage(parsed.reference, firstSource([node.clusterImages, registry]), signal);
}

async function attach(
  assigned: AssignedTask,
  settings: ContainerSettings,
  node: NodeRuntime,
  signal: AbortSignal,
): Promise<NetworkPlan> {
  const network = await node.network(signal);
  checkEncryption(assigned, network.encryptionProblem);
  const { task } = assigned;
  const { hostname, spec } = settings;
  const dns = spec.dns && { dns: spec.dns };
  const names = { hostname, extraHosts: spec.hosts, resolver: task.networks.length > 0, ...dns };
  return network.attach(task.id as TaskId, settings.attachment, names);
}

function contentMounts({ task }: AssignedTask, { contents }: ContainerSettings, { directories }: NodeRuntime) {
  return contents.mounts.map(({ folder, target }) => {
    const source = `${contentsOf(directories, task.id as TaskId)}/${folder}` as HostPath;
    return { kind: "bind", source, target, readOnly: true } as const;
  });
}

/** Uppermost first. */
function layersOf({ layerDirs }: ImageInfo): readonly HostPath[] {
  return layerDirs.toReversed() as readonly string[] as readonly HostPath[];
}

/** The profile is kept where it cannot be told from the process: commands run in the container are held by it too. */
function recordOf(
  { spec: { privileged, security }, mounts }: ContainerSettings,
  image: ImageInfo,
  life: LifeSettings,
  { process, linux }: OciSpec,
): ContainerRecord {
  const isDefault = !privileged && (security?.seccomp ?? "") === "";
  const seccomp = isDefault ? {} : { seccomp: linux.seccomp ?? ("unconfined" as const) };
  const volumes = volumeUse(mounts);
  const holds = volumes.roots.length > 0 || volumes.parts.length > 0;
  return { image: image.manifestDigest, life, process, ...seccomp, ...(holds && { volumes }) };
}

function specOf(
  assigned: AssignedTask,
  parts: {
    readonly settings: ContainerSettings;
    readonly image: ImageInfo;
    readonly directory: HostPath;
    readonly devices: readonly ContainerDevice[];
  },
  node: NodeRuntime,
): OciSpec {
  const { settings, image, directory, devices } = parts;
  const { limits, reservations } = assigned.template.spec?.resources ?? {};
  return containerSpec({
    rootPath: node.directories.root,
    hostname: settings.hostname,
    image: image.config,
    overrides: settings.spec,
    userFiles: { passwd: image.passwd ?? "", group: image.group ?? "" },
    mounts: [...settings.mounts.map(({ mount }) => mount), ...contentMounts(assigned, settings, node)],
    devices,
    files: {
      hosts: `${directory}/hosts` as HostPath,
      hostname: `${directory}/hostname` as HostPath,
      resolvConf: `${directory}/resolv.conf` as HostPath,
    },
    ...(limits && { limits }),
    ...(reservations && { reservations }),
    network: settings.attachment.kind,
    host: node.facts,
  });
}

/**
 * The files are world-readable for the container's users; nobody else gets past the directory. Made in one go, without
 * the thread pool: these few system calls take 0.2 ms, its queue takes ten times that when many tasks start.
 */
function makeDirectory(directory: HostPath, settings: ContainerSettings, network: NetworkPlan): void {
  mkdirSync(directory, { mode: 0o700 });
  mkdirSync(`${directory}/upper`, { mode: 0o755 });
  mkdirSync(`${directory}/work`, { mode: 0o700 });
  writeFileSync(`${directory}/hosts`, network.hosts, { mode: 0o644 });
  writeFileSync(`${directory}/resolv.conf`, network.resolvConf, { mode: 0o644 });
  writeFileSync(`${directory}/hostname`, `${settings.hostname}\n`, { mode: 0o644 });
}

function planOf(
  taskId: string,
  parts: {
    readonly settings: ContainerSettings;
    readonly image: ImageInfo;
    readonly directory: HostPath;
    readonly spec: OciSpec;
    readonly network: NetworkPlan;
  },
  node: NodeRuntime,
): Plan {
  const { settings, image, directory, spec, network } = parts;
  const { resources = {} } = spec.linux;
  const seccomp = compiledSeccomp(spec.linux.seccomp, node.facts.architecture);
  return planContainer({
    spec,
    stateDirectory: directory,
    rootDirectory: node.directories.root,
    root: {
      kind: "overlay",
      lowers: layersOf(image),
      writable: { upper: `${directory}/upper` as HostPath, work: `${directory}/work` as HostPath },
    },
    log: logTarget(settings, directory),
    cgroup: node.cgroups.plan(taskId, resources),
    cgroupControllers: node.cgroups.hierarchies,
    cgroupWritable: settings.spec.privileged,
    ...(seccomp && { seccomp }),
    network: network.ops,
    links: settings.contents.links,
    openStdin: settings.spec.openStdin,
    init: settings.spec.init ?? false,
  });
}

function logTarget({ log }: ContainerSettings, directory: HostPath): LogTarget {
  if (log.kind === "none") return { kind: "none" };
  return { kind: "file", path: logPath(directory), maxBytes: log.maxBytes, maxFiles: log.maxFiles };
}

/** A full disk in words: "no space left on …" is what people search for. */
function storageError(reason: unknown): unknown {
  const errno = errnoOf(reason);
  if (errno === undefined) return reason;
  const full = errno === "ENOSPC" || errno === "EDQUOT";
  const code = full || errno === "EMFILE" ? "resource_exhausted" : "failed_precondition";
  return SwarmError.wrap(
    full ? "no space left on the node's disk" : "make container",
    new SwarmError(code, String(reason)),
  );
}
