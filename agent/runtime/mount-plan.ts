/** The file systems, devices and hidden paths of an OCI spec as operations. Pure. */
import type { FieldProblem } from "../../common/base/error.ts";
import type { OciDevice, OciMount, OciSpec } from "./oci.ts";
import type { ContainerOp, ContainerPath, HostPath, MakeDeviceOp, MountAttribute, Propagation } from "./op.ts";

/** How the host's cgroups look, for mounts of type `cgroup`. */
export interface CgroupView {
  readonly cgroupVersion: 1 | 2 | undefined;
  readonly controllers: readonly string[];
  /** Whether a container may write to its own, whatever the spec's options say: a way out (CVE-2022-0492, CVE-2023-25809). */
  readonly writable: boolean;
}

/** Devices that every container has (OCI config-linux.md, "Default Devices"). */
const DEFAULT_DEVICES: readonly (readonly [name: string, major: number, minor: number])[] = [
  ["null", 1, 3],
  ["zero", 1, 5],
  ["full", 1, 7],
  ["random", 1, 8],
  ["urandom", 1, 9],
  ["tty", 5, 0],
];

const DEFAULT_LINKS: readonly (readonly [path: string, target: string])[] = [
  ["/dev/fd", "/proc/self/fd"],
  ["/dev/stdin", "/proc/self/fd/0"],
  ["/dev/stdout", "/proc/self/fd/1"],
  ["/dev/stderr", "/proc/self/fd/2"],
  ["/dev/ptmx", "pts/ptmx"],
];

/** Mount options that set an attribute, and those that take it back. */
const ATTRIBUTE_OPTIONS: Readonly<Record<string, MountAttribute>> = {
  ro: "ro",
  nosuid: "nosuid",
  nodev: "nodev",
  noexec: "noexec",
  noatime: "noatime",
  strictatime: "strictatime",
  nodiratime: "nodiratime",
  nosymfollow: "nosymfollow",
};
const CLEARING_OPTIONS: Readonly<Record<string, MountAttribute | undefined>> = {
  rw: "ro",
  suid: "nosuid",
  dev: "nodev",
  exec: "noexec",
  atime: "noatime",
  diratime: "nodiratime",
  symfollow: "nosymfollow",
  relatime: undefined,
  defaults: undefined,
};
const PROPAGATION_OPTIONS: Readonly<Record<string, Propagation>> = {
  private: "private",
  rprivate: "private",
  slave: "slave",
  rslave: "slave",
  shared: "shared",
  rshared: "shared",
  unbindable: "unbindable",
  runbindable: "unbindable",
};

/** A link in the container's root that takes the place of what the image has there. */
export interface RootLink {
  readonly path: string;
  readonly target: string;
}

/** Mounts in the spec's order, then links and devices, then what is hidden or made read-only; all before pivot_root. */
export function planMounts(
  spec: OciSpec,
  { cgroup, links }: { readonly cgroup: CgroupView; readonly links: readonly RootLink[] },
  problems: FieldProblem[],
): readonly ContainerOp[] {
  const ops: ContainerOp[] = (spec.mounts ?? []).flatMap((mount, index) =>
    mountOps(mount, `mounts[${index}]`, cgroup, problems),
  );
  const inside = (path: string) => path as ContainerPath;
  for (const [name, major, minor] of DEFAULT_DEVICES) {
    const path = inside(`/dev/${name}`);
    ops.push({ op: "make-device", path, type: "character", major, minor, mode: 0o666, uid: 0, gid: 0 });
  }
  for (const [path, target] of DEFAULT_LINKS) ops.push({ op: "make-symlink", path: inside(path), target });
  for (const [index, { path, target }] of links.entries()) {
    ops.push({ op: "make-symlink", path: containerPath(path, `links[${index}]`, problems), target, replace: true });
  }
  for (const [index, device] of (spec.linux.devices ?? []).entries()) {
    ops.push(deviceOp(device, `linux.devices[${index}]`, problems));
  }
  const paths = (list: readonly string[] | undefined, field: string) =>
    (list ?? []).map((path, index) => containerPath(path, `${field}[${index}]`, problems));
  const readonlyPaths = paths(spec.linux.readonlyPaths, "linux.readonlyPaths");
  if (readonlyPaths.length > 0) ops.push({ op: "readonly-paths", paths: readonlyPaths });
  const maskedPaths = paths(spec.linux.maskedPaths, "linux.maskedPaths");
  if (maskedPaths.length > 0) ops.push({ op: "mask-paths", paths: maskedPaths });
  if (spec.root.readonly) ops.push({ op: "readonly-root" });
  return ops;
}

/** A path of the spec that lies inside the container: absolute, and without NUL. */
export function containerPath(path: string, field: string, problems: FieldProblem[]): ContainerPath {
  if (!path.startsWith("/")) problems.push({ field, problem: `${JSON.stringify(path)} is not an absolute path` });
  if (path.includes("\0")) problems.push({ field, problem: "holds a NUL byte" });
  return path as ContainerPath;
}

interface ParsedOptions {
  readonly attributes: readonly MountAttribute[];
  readonly data: readonly string[];
  readonly bind: "bind" | "rbind" | undefined;
  readonly propagation: Propagation | undefined;
}

function parseOptions(options: readonly string[]): ParsedOptions {
  const attributes = new Set<MountAttribute>();
  const data: string[] = [];
  let bind: ParsedOptions["bind"];
  let propagation: Propagation | undefined;
  for (const option of options) {
    const attribute = ATTRIBUTE_OPTIONS[option];
    if (attribute) attributes.add(attribute);
    else if (option in CLEARING_OPTIONS) {
      const cleared = CLEARING_OPTIONS[option];
      if (cleared) attributes.delete(cleared);
    } else if (option === "bind" || option === "rbind") bind = option;
    else if (option in PROPAGATION_OPTIONS) propagation = PROPAGATION_OPTIONS[option];
    else data.push(option);
  }
  return { attributes: [...attributes], data, bind, propagation };
}

function mountOps(
  mount: OciMount,
  field: string,
  cgroup: CgroupView,
  problems: FieldProblem[],
): readonly ContainerOp[] {
  const target = containerPath(mount.destination, `${field}.destination`, problems);
  const { attributes, data, bind, propagation } = parseOptions(mount.options ?? []);
  if (bind || mount.type === "bind") {
    if (!mount.source?.startsWith("/")) problems.push({ field: `${field}.source`, problem: "is not an absolute path" });
    if (data.length > 0) problems.push({ field: `${field}.options`, problem: `unknown options ${data.join(",")}` });
    const source = (mount.source ?? "") as HostPath;
    const recursive = bind !== "bind";
    return [{ op: "bind-mount", source, target, recursive, attributes, propagation: propagation ?? "private" }];
  }
  const type = mount.type ?? "";
  if (!/^[a-z0-9._-]+$/.test(type))
    problems.push({ field: `${field}.type`, problem: `unknown type ${JSON.stringify(type)}` });
  // A container's /proc is a fresh procfs and nothing else, nor does anything but procfs lie below it (CVE-2019-16884).
  const below = target === "/proc" || target.startsWith("/proc/");
  if (below && !(type === "proc" && target === "/proc"))
    problems.push({ field, problem: "only proc may be mounted at /proc" });
  if (type === "cgroup") return cgroupOps(target, attributes, cgroup);
  const source = mount.source ?? type;
  return [{ op: "mount-filesystem", type, source, target, options: data, attributes }];
}

/** One mount on v2; on v1 a read-only tmpfs with one mount for each hierarchy, as the host has them. */
function cgroupOps(
  target: ContainerPath,
  given: readonly MountAttribute[],
  cgroup: CgroupView,
): readonly ContainerOp[] {
  if (cgroup.cgroupVersion === undefined) return [];
  const open = given.filter((attribute) => attribute !== "ro");
  const attributes: readonly MountAttribute[] = cgroup.writable ? open : [...open, "ro"];
  if (cgroup.cgroupVersion === 2) {
    return [{ op: "mount-filesystem", type: "cgroup2", source: "cgroup", target, options: [], attributes }];
  }
  const mounts = cgroup.controllers.map(
    (name): ContainerOp => ({
      op: "mount-filesystem",
      type: "cgroup",
      source: "cgroup",
      target: `${target}/${name}` as ContainerPath,
      options: name.split(","),
      attributes,
    }),
  );
  return [
    { op: "mount-filesystem", type: "tmpfs", source: "tmpfs", target, options: ["mode=755"], attributes: open },
    ...mounts,
    ...(cgroup.writable ? [] : [{ op: "readonly-paths", paths: [target] } as const]),
  ];
}

const DEVICE_TYPES = { c: "character", u: "character", b: "block", p: "fifo" } as const;

function deviceOp(device: OciDevice, field: string, problems: FieldProblem[]): MakeDeviceOp {
  const path = containerPath(device.path, `${field}.path`, problems);
  return {
    op: "make-device",
    path,
    type: DEVICE_TYPES[device.type],
    major: device.major ?? 0,
    minor: device.minor ?? 0,
    mode: (device.fileMode ?? 0o666) & 0o7777,
    uid: device.uid ?? 0,
    gid: device.gid ?? 0,
  };
}
