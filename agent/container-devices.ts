/** The host's device nodes that a task gets, as they are when its container is made. */
import type { Stats } from "node:fs";
import { lstat, readdir, realpath, stat } from "node:fs/promises";
import { errnoOf, type FieldProblem, invalidFields } from "../common/base/error.ts";
import type { ContainerSpec, Device } from "../proto/gen/swarm/v1/types_pb.js";
import type { ContainerDevice } from "./runtime/privileges.ts";

/** Folders of /dev that every container has of its own, or that are no devices' (moby: devices.GetDevices). */
const OWN_NAMES = new Set(["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"]);
/** Deeper or larger trees than any /dev are not walked to their end. */
const DEPTH_MAX = 8;
const DEVICES_MAX = 4096;

/**
 * Those that the spec names, and all of /dev for a privileged one. A folder stands for the devices in it. Throws
 * `invalid_argument` that names each path which is no device.
 */
export async function containerDevices(
  { privileged, devices }: Pick<ContainerSpec, "privileged" | "devices">,
  hostDirectory = "/dev",
): Promise<readonly ContainerDevice[]> {
  if (!privileged && devices.length === 0) return [];
  const found = new Map<string, ContainerDevice>();
  const add = (list: readonly ContainerDevice[]) => {
    for (const device of list) found.set(device.path, device);
  };
  if (privileged) add(await devicesBelow(hostDirectory, { path: hostDirectory, access: "rwm" }));
  const problems: FieldProblem[] = [];
  for (const [index, device] of devices.entries()) {
    const named = await namedDevices(device);
    if (typeof named === "string") {
      const what = `error gathering device information while adding custom device ${JSON.stringify(device.hostPath)}`;
      problems.push({ field: `devices[${index}]`, problem: `${what}: ${named}` });
    } else add(named);
  }
  if (problems.length > 0) throw invalidFields(problems);
  return [...found.values()];
}

/** What one entry stands for, or why it stands for nothing. */
async function namedDevices({ hostPath, containerPath, permissions }: Device): Promise<ContainerDevice[] | string> {
  const wanted = { path: containerPath || hostPath, access: permissions || "rwm" };
  try {
    const resolved = await realpath(hostPath);
    const status = await stat(resolved);
    if (!status.isDirectory()) return isDevice(status) ? [deviceOf(status, wanted)] : "not a device node";
    const below = await devicesBelow(resolved, wanted);
    return below.length > 0 ? below : "no device node in this directory";
  } catch (reason) {
    const errno = errnoOf(reason);
    if (errno === undefined) throw reason;
    return errno === "ENOENT" ? "no such file or directory" : errno;
  }
}

interface Wanted {
  /** Where the container finds it. */
  readonly path: string;
  readonly access: string;
}

/** All devices in a folder and below; links are not followed. What vanishes meanwhile is passed over. */
async function devicesBelow(directory: string, wanted: Wanted, depth = 0): Promise<ContainerDevice[]> {
  const found: ContainerDevice[] = [];
  if (depth > DEPTH_MAX) return found;
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = `${directory}/${entry.name}`;
    const inside = { ...wanted, path: `${wanted.path}/${entry.name}` };
    if (OWN_NAMES.has(entry.name) || found.length >= DEVICES_MAX) continue;
    if (entry.isDirectory()) found.push(...(await devicesBelow(path, inside, depth + 1)));
    else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
      const status = await lstat(path).catch(() => undefined);
      if (status && isDevice(status)) found.push(deviceOf(status, inside));
    }
  }
  return found;
}

function isDevice(status: Stats): boolean {
  return status.isCharacterDevice() || status.isBlockDevice();
}

function deviceOf(status: Stats, { path, access }: Wanted): ContainerDevice {
  const { major, minor } = numbersOf(status.rdev);
  const type = status.isBlockDevice() ? "b" : "c";
  return { type, path, major, minor, access, fileMode: status.mode & 0o7777, uid: status.uid, gid: status.gid };
}

/** A dev_t's halves as glibc's makedev(3) joins them. */
function numbersOf(rdev: number): { readonly major: number; readonly minor: number } {
  const device = BigInt(rdev);
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xffff_f000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffff_ff00n);
  return { major: Number(major), minor: Number(minor) };
}
