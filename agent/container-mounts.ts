/**
 * What a task mounts: bind mounts, named volumes as plain directories of the node, anonymous volumes that go with the
 * task, and tmpfs. A new volume is empty: the image's files at its target are not copied into it.
 */
import { mkdir, stat } from "node:fs/promises";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { type Mount, Mount_Type } from "../proto/gen/swarm/v1/types_pb.js";
import type { OciMount } from "./runtime/oci.ts";

/** Docker's grammar of volume names; nothing else becomes part of a path. */
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

/** Where volumes live. */
export interface MountDirectories {
  /** Named volumes of the node: they outlive tasks. */
  readonly volumes: string;
  /** The task's own: its anonymous volumes go with it. */
  readonly container: string;
}

/** One mount of a container and the directory that must exist for it. */
export interface PlannedMount {
  readonly mount: OciMount;
  /** A bind mount's source must be there; a volume's is made. */
  readonly source?: { readonly path: string; readonly make: boolean };
}

/** Plans the mounts of a container. Pure; throws `invalid_argument` for what is not supported. */
export function planMounts(mounts: readonly Mount[], directories: MountDirectories): readonly PlannedMount[] {
  return mounts.map((mount, index) => {
    switch (mount.type) {
      case Mount_Type.BIND:
        return planBind(mount);
      case Mount_Type.VOLUME:
        return planVolume(mount, index, directories);
      case Mount_Type.TMPFS:
        return { mount: tmpfs(mount) };
    }
  });
}

function planBind(mount: Mount): PlannedMount {
  if (!mount.source.startsWith("/")) throw refused(mount, `bind source ${mount.source} is not an absolute path`);
  return { mount: bound(mount, mount.source), source: { path: mount.source, make: mount.createSource } };
}

function planVolume(mount: Mount, index: number, directories: MountDirectories): PlannedMount {
  if (mount.volumeDriver !== "" && mount.volumeDriver !== "local") {
    throw refused(mount, `volume driver ${JSON.stringify(mount.volumeDriver)} is not supported`);
  }
  if (mount.volumeSubpath !== "") throw refused(mount, "a volume's subpath is not supported");
  if (mount.source !== "" && !VOLUME_NAME.test(mount.source)) {
    throw refused(mount, `${JSON.stringify(mount.source)} is not a valid volume name`);
  }
  const path =
    mount.source === "" ? `${directories.container}/volumes/${index}` : `${directories.volumes}/${mount.source}`;
  return { mount: bound(mount, path), source: { path, make: true } };
}

function bound(mount: Mount, source: string): OciMount {
  const options = [
    mount.bindNonRecursive ? "bind" : "rbind",
    mount.propagation || "rprivate",
    ...(mount.readOnly ? ["ro"] : []),
  ];
  return { destination: mount.target, type: "bind", source, options };
}

function tmpfs(mount: Mount): OciMount {
  const options = ["nosuid", "nodev", "noexec", `mode=${(mount.tmpfsMode || 0o1777).toString(8)}`];
  if (mount.tmpfsSizeBytes > 0n) options.push(`size=${mount.tmpfsSizeBytes}`);
  if (mount.readOnly) options.push("ro");
  return { destination: mount.target, type: "tmpfs", source: "tmpfs", options };
}

/** Makes the directories of volumes and checks the sources of bind mounts. Throws `failed_precondition` in Docker's words. */
export async function ensureMountSources(mounts: readonly PlannedMount[]): Promise<void> {
  for (const { source } of mounts) {
    if (!source) continue;
    if (source.make) {
      await makeDirectory(source.path);
      continue;
    }
    try {
      await stat(source.path);
    } catch (reason) {
      if (errnoOf(reason) !== "ENOENT") throw SwarmError.wrap(`bind source path ${source.path}`, reason);
      throw new SwarmError(
        "failed_precondition",
        `invalid mount config for type "bind": bind source path does not exist: ${source.path}`,
      );
    }
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
