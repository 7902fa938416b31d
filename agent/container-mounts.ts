/**
 * What a task mounts: bind mounts, named volumes as plain directories of the node, anonymous volumes that go with the
 * task, and tmpfs. An image's own VOLUMEs are part of the task's writable layer, which goes with the task as well. A new volume is empty: the image's files at its target are not copied into it.
 */
import { mkdir, stat } from "node:fs/promises";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { type Mount, Mount_Type } from "../proto/gen/swarm/v1/types_pb.js";
import type { ContainerMount } from "./runtime/default-mounts.ts";
import type { HostPath } from "./runtime/op.ts";

/** Docker's grammar of volume names; nothing else becomes part of a path. */
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

/** Where volumes live. */
export interface MountDirectories {
  /** Named volumes of the node: they outlive tasks. */
  readonly volumes: string;
  /** The task's own: its anonymous volumes go with it. */
  readonly container: string;
}

/** One mount of a container, and whether its source is to be made (a bind mount's must be there). */
export interface PlannedMount {
  readonly mount: ContainerMount;
  readonly make: boolean;
}

/** Plans the mounts of a container. Pure; throws `invalid_argument` for what is not supported. */
export function planMounts(mounts: readonly Mount[], directories: MountDirectories): readonly PlannedMount[] {
  return mounts.map((mount, index) => planMount(mount, index, directories));
}

function planMount(mount: Mount, index: number, directories: MountDirectories): PlannedMount {
  switch (mount.type) {
    case Mount_Type.BIND:
      return planBind(mount);
    case Mount_Type.VOLUME:
      return planVolume(mount, index, directories);
    case Mount_Type.TMPFS:
      return planTmpfs(mount);
  }
}

function planBind(mount: Mount): PlannedMount {
  if (!mount.source.startsWith("/")) throw refused(mount, `bind source ${mount.source} is not an absolute path`);
  return { mount: { kind: "bind", ...bound(mount, mount.source) }, make: mount.createSource };
}

function planVolume(mount: Mount, index: number, directories: MountDirectories): PlannedMount {
  if (mount.volumeDriver !== "" && mount.volumeDriver !== "local") {
    throw refused(mount, `volume driver ${JSON.stringify(mount.volumeDriver)} is not supported`);
  }
  if (mount.volumeSubpath !== "") throw refused(mount, "a volume's subpath is not supported");
  if (mount.source !== "" && !VOLUME_NAME.test(mount.source)) {
    throw refused(mount, `${JSON.stringify(mount.source)} is not a valid volume name`);
  }
  const { volumes, container } = directories;
  const path = mount.source === "" ? `${container}/volumes/${index}` : `${volumes}/${mount.source}`;
  return { mount: { kind: "volume", ...bound(mount, path) }, make: true };
}

function bound(mount: Mount, source: string) {
  return {
    source: source as HostPath,
    target: mount.target,
    readOnly: mount.readOnly,
    recursive: !mount.bindNonRecursive,
    ...(mount.propagation !== "" && { propagation: mount.propagation }),
  };
}

function planTmpfs(mount: Mount): PlannedMount {
  const size = mount.tmpfsSizeBytes > 0n ? { sizeBytes: Number(mount.tmpfsSizeBytes) } : {};
  const mode = mount.tmpfsMode > 0 ? { mode: mount.tmpfsMode } : {};
  return { mount: { kind: "tmpfs", target: mount.target, readOnly: mount.readOnly, ...size, ...mode }, make: false };
}

/** Makes the directories of volumes and checks the sources of bind mounts. Throws `failed_precondition` in Docker's words. */
export async function ensureMountSources(mounts: readonly PlannedMount[]): Promise<void> {
  for (const { mount, make } of mounts) {
    if (mount.kind === "tmpfs") continue;
    if (make) await makeDirectory(mount.source);
    else await checkSource(mount.source);
  }
}

async function checkSource(path: string): Promise<void> {
  try {
    await stat(path);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw SwarmError.wrap(`bind source path ${path}`, reason);
    const problem = `invalid mount config for type "bind": bind source path does not exist: ${path}`;
    throw new SwarmError("failed_precondition", problem);
  }
}

/** A source that exists as a file is left as it is. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o755 });
  } catch (reason) {
    if (errnoOf(reason) !== "EEXIST") throw SwarmError.wrap(`make directory ${path}`, reason, "resource_exhausted");
  }
}

function refused(mount: Mount, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `mount ${mount.target}: ${problem}`);
}
