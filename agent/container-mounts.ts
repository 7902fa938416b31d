/**
 * What a task mounts: bind mounts, volumes, anonymous volumes that go with the task, and tmpfs. An image's own VOLUMEs are
 * part of the task's writable layer, which goes with the task as well. Pure.
 */
import { createHash } from "node:crypto";
import { SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { isVolumeName } from "../common/model/validate-volume.ts";
import { readVolumeOptions, type VolumeSource } from "../common/model/volume-options.ts";
import { type Mount, Mount_Type, type VolumeSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { ContainerMount } from "./runtime/default-mounts.ts";
import type { ContainerPath, HostPath } from "./runtime/op.ts";
import type { HostFilesystem } from "./runtime/runner.ts";

/** Where volumes live. */
export interface MountDirectories {
  /** Named volumes of the node: they outlive tasks. */
  readonly volumes: string;
  /** Where volumes' file systems and parts are mounted on the host. */
  readonly mounts: string;
  /** The task's own: its anonymous volumes go with it. */
  readonly container: string;
}

/** A volume as a task needs it. */
export interface PlannedVolume {
  /** Undefined for an anonymous one. */
  readonly name: string | undefined;
  /** The directory that is its root. */
  readonly root: HostPath;
  /** How it comes to be: made, found on the host, or mounted. */
  readonly origin:
    | { readonly kind: "directory" }
    | { readonly kind: "host" }
    | { readonly kind: "mount"; readonly filesystem: HostFilesystem };
  readonly labels: Readonly<Record<string, string>>;
  /** The image's directory whose content a new volume begins with; undefined: it begins empty. */
  readonly copyOf: ContainerPath | undefined;
  /** Only this part of it is mounted: bound at `place` first. */
  readonly part: { readonly path: string; readonly place: HostPath } | undefined;
}

/** One mount of a container, and what its source takes. */
export type PlannedMount =
  | { readonly kind: "tmpfs"; readonly mount: ContainerMount }
  | { readonly kind: "bind"; readonly mount: ContainerMount & { readonly kind: "bind" }; readonly make: boolean }
  | { readonly kind: "volume"; readonly mount: ContainerMount; readonly volume: PlannedVolume };

/** What the mounts of a task are planned from, beside the mounts. */
export interface MountPlanOptions {
  readonly taskId: TaskId;
  readonly directories: MountDirectories;
  /** Volumes that were made with options. */
  readonly definitions: readonly VolumeSpec[];
}

/** Plans the mounts of a container, their templates expanded. Throws `invalid_argument` for what is not supported. */
export function planMounts(mounts: readonly Mount[], options: MountPlanOptions): readonly PlannedMount[] {
  return mounts.map((mount, index) => planMount(mount, index, options));
}

function planMount(mount: Mount, index: number, options: MountPlanOptions): PlannedMount {
  switch (mount.type) {
    case Mount_Type.BIND:
      return planBind(mount);
    case Mount_Type.VOLUME:
      return planVolume(mount, index, options);
    case Mount_Type.TMPFS:
      return planTmpfs(mount);
  }
}

function planBind(mount: Mount): PlannedMount {
  if (!mount.source.startsWith("/")) throw refused(mount, `bind source ${mount.source} is not an absolute path`);
  return { kind: "bind", mount: { kind: "bind", ...bound(mount, mount.source as HostPath) }, make: mount.createSource };
}

function planVolume(mount: Mount, index: number, { taskId, directories, definitions }: MountPlanOptions): PlannedMount {
  const { source: name, volumeSubpath: path } = mount;
  if (name !== "" && !isVolumeName(name)) throw refused(mount, `${JSON.stringify(name)} is not a valid volume name`);
  if (mount.volumeDriver !== "" && mount.volumeDriver !== "local") {
    throw refused(mount, `volume driver ${JSON.stringify(mount.volumeDriver)} is not supported`);
  }
  const own = Object.keys(mount.volumeOptions).length > 0 ? mount.volumeOptions : undefined;
  const options = own ?? (name === "" ? undefined : definitions.find((spec) => spec.name === name)?.options) ?? {};
  const source = readVolumeOptions(options);
  if (!source.ok) throw refused(mount, `volume ${name}: ${source.problem}`);
  const { root, origin } = placeOf(name === "" ? undefined : name, index, source.value, directories);
  const part = path === "" ? undefined : { path, place: `${directories.mounts}/${taskId}-${index}` as HostPath };
  const readOnly = mount.readOnly || (source.value.kind === "bind" && source.value.readOnly);
  return {
    kind: "volume",
    mount: { kind: "volume", ...bound(mount, part?.place ?? root), readOnly },
    volume: {
      name: name === "" ? undefined : name,
      root,
      origin,
      labels: mount.volumeLabels,
      copyOf: mount.volumeNoCopy || origin.kind === "host" || part ? undefined : (mount.target as ContainerPath),
      part,
    },
  };
}

function placeOf(
  name: string | undefined,
  index: number,
  source: VolumeSource,
  { volumes, mounts, container }: MountDirectories,
): Pick<PlannedVolume, "root" | "origin"> {
  switch (source.kind) {
    case "directory": {
      const root = name === undefined ? `${container}/volumes/${index}` : `${volumes}/${name}`;
      return { root: root as HostPath, origin: { kind: "directory" } };
    }
    case "bind":
      return { root: source.device as HostPath, origin: { kind: "host" } };
    case "mount": {
      const { type, device, options, attributes } = source;
      // Volumes of one name and other options are other volumes; names can be as long as a file's.
      const key = createHash("sha256").update(JSON.stringify([name ?? `${container}/${index}`, source]));
      const root = `${mounts}/${key.digest("hex").slice(0, 32)}` as HostPath;
      return { root, origin: { kind: "mount", filesystem: { type, source: device, options, attributes } } };
    }
  }
}

function bound(mount: Mount, source: HostPath) {
  return {
    source,
    target: mount.target,
    readOnly: mount.readOnly,
    recursive: !mount.bindNonRecursive,
    ...(mount.propagation !== "" && { propagation: mount.propagation }),
  };
}

function planTmpfs(mount: Mount): PlannedMount {
  const size = mount.tmpfsSizeBytes > 0n ? { sizeBytes: Number(mount.tmpfsSizeBytes) } : {};
  const mode = mount.tmpfsMode > 0 ? { mode: mount.tmpfsMode } : {};
  return { kind: "tmpfs", mount: { kind: "tmpfs", target: mount.target, readOnly: mount.readOnly, ...size, ...mode } };
}

function refused(mount: Mount, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `mount ${mount.target}: ${problem}`);
}
