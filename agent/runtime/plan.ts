/**
 * A plan: all that the shim does to make one container, as a value. Pure; the bytes are read by `agent/shim/`,
 * whose table of operations (ops.c) has the same order.
 */
import { unreachable } from "../../common/base/error.ts";
import type { Writer } from "./encode.ts";
import {
  type CgroupMembership,
  type ContainerOp,
  type HostOp,
  type HostPath,
  MOUNT_ATTRIBUTES,
  type MountAttribute,
  type MountOverlayOp,
  NAMESPACES,
  type Namespace,
  type Op,
  PROPAGATIONS,
} from "./op.ts";

/** Where a container's output goes. */
export type LogTarget =
  | { readonly kind: "none" }
  | {
      readonly kind: "file";
      /** Lines in CRI form; rotated to `path.1`, `path.2`, … */
      readonly path: HostPath;
      /** Size at which a file is rotated; 0 = never. */
      readonly maxBytes: number;
      /** Files kept, the current one included; at least 1. */
      readonly maxFiles: number;
    };

/** One container, from nothing to its program. */
export interface Plan {
  /** An existing directory (0700) for the supervisor's `control.sock` and the exit record. */
  readonly stateDirectory: HostPath;
  readonly log: LogTarget;
  /** Namespaces that the first process is cloned into; the pid namespace must be among them. */
  readonly namespaces: readonly Namespace[];
  readonly cgroup?: CgroupMembership;
  /** Whether standard input stays open with nothing to read, on a pipe or the terminal; else it is the container's /dev/null. */
  readonly openStdin: boolean;
  readonly host: readonly HostOp[];
  readonly container: readonly ContainerOp[];
}

/** The places in the table of operations of ops.c. */
const OPCODES = {
  "make-directory": 1,
  "write-file": 2,
  "attach-device-program": 3,
  netlink: 4,
  unshare: 5,
  "join-namespace": 6,
  "join-container": 7,
  "set-propagation": 8,
  "mount-overlay": 9,
  "bind-root": 10,
  "mount-filesystem": 11,
  "bind-mount": 12,
  "make-device": 13,
  "make-symlink": 14,
  "mask-paths": 15,
  "readonly-paths": 16,
  "readonly-root": 17,
  "pivot-root": 18,
  "set-sysctl": 19,
  "set-hostname": 20,
  "set-domainname": 21,
  "set-rlimit": 22,
  "set-oom-score": 23,
  "set-working-directory": 24,
  "new-keyring": 25,
  "set-credentials": 26,
  "no-new-privileges": 27,
  "load-seccomp": 28,
  "await-start": 29,
  exec: 30,
  "open-terminal": 31,
  "copy-out": 32,
  "copy-in": 33,
} as const satisfies Record<Op["op"], number>;

/** File type bits of mknod(2). */
const DEVICE_TYPES = { character: 0o020000, block: 0o060000, fifo: 0o010000 } as const;

/** The plan as the payload of a CREATE request. */
export function encodePlan(plan: Plan, writer: Writer): void {
  writer.string(plan.stateDirectory);
  const file = plan.log.kind === "file" ? plan.log : { path: "", maxBytes: 0, maxFiles: 1 };
  writer.string(file.path).u64(BigInt(file.maxBytes)).u32(file.maxFiles);
  writer.u32(namespaceFlags(plan.namespaces));
  encodeCgroup(plan.cgroup, writer);
  writer.boolean(plan.openStdin);
  encodeOps(plan.host, writer);
  encodeOps(plan.container, writer);
}

/** A list of operations as a length-prefixed part. */
export function encodeOps(ops: readonly Op[], writer: Writer): void {
  writer.part(() => {
    writer.list(ops, (op) => writer.u32(OPCODES[op.op]).part(() => encodeOp(op, writer)));
  });
}

/** What an overlay op says; also how a file is read from an image of several layers. */
export function encodeOverlay(op: MountOverlayOp, writer: Writer): Writer {
  writer
    .string(op.target)
    .string(op.options.join(","))
    .boolean(op.writable !== undefined)
    .u32(op.lowers.length);
  for (const path of op.lowers) writer.string(path);
  if (op.writable) writer.string(op.writable.upper).string(op.writable.work);
  return writer;
}

function namespaceFlags(namespaces: readonly Namespace[]): number {
  return namespaces.reduce((flags, namespace) => flags | NAMESPACES[namespace], 0);
}

/** The bits of mount_setattr(2). */
export function attributeFlags(attributes: readonly MountAttribute[]): number {
  return attributes.reduce((flags, attribute) => flags | MOUNT_ATTRIBUTES[attribute], 0);
}

/** cgroup.procs files to join (v1), directory to be born into (v2), cgroup.kill, freezer.state, cgroup.procs, OOM count. */
export function encodeCgroup(cgroup: CgroupMembership | undefined, writer: Writer): void {
  const first = cgroup?.version === 1 ? (cgroup.freezer ?? cgroup.directories[0]) : cgroup?.directory;
  const under = (directory: string | undefined, file: string) => (directory ? `${directory}/${file}` : "");
  writer.part(() => {
    for (const path of cgroup?.version === 1 ? cgroup.directories : []) writer.string(`${path}/cgroup.procs`);
  });
  const unified = cgroup?.version === 2 ? cgroup.directory : undefined;
  const legacy = cgroup?.version === 1 ? cgroup : undefined;
  writer.string(unified ?? "").string(under(unified, "cgroup.kill"));
  writer.string(under(legacy?.freezer, "freezer.state")).string(under(first, "cgroup.procs"));
  writer.string(unified ? under(unified, "memory.events") : under(legacy?.memory, "memory.oom_control"));
}

function encodeOp(op: Op, writer: Writer): Writer {
  switch (op.op) {
    case "make-directory":
      return writer.string(op.path).u32(op.mode ?? 0o755);
    case "write-file":
      return writer
        .string(op.path)
        .string(op.data)
        .boolean(op.optional ?? false);
    case "attach-device-program":
      return writer.string(op.cgroup).bytes(op.program);
    case "netlink":
      return writer.boolean(op.side === "container").bytes(op.message);
    case "unshare":
      return writer.u32(namespaceFlags(op.namespaces));
    case "join-namespace":
      return writer.u32(NAMESPACES[op.namespace]).string(op.path);
    case "set-propagation":
      return writer.u32(PROPAGATIONS[op.propagation]);
    case "set-sysctl":
      return writer.string(`/proc/sys/${op.name.replaceAll(".", "/")}`).string(op.value);
    case "set-hostname":
      return writer.string(op.hostname);
    case "set-domainname":
      return writer.string(op.domainname);
    case "set-rlimit":
      return writer.u32(op.resource).u64(op.soft).u64(op.hard);
    case "open-terminal":
      return writer.u32(op.rows).u32(op.columns).boolean(op.console);
    case "set-oom-score":
      return writer.string(String(op.adjust));
    case "set-credentials":
      return encodeCredentials(op, writer);
    case "load-seccomp":
      return writer.u32(op.flags ?? 0).bytes(op.filter);
    case "exec":
      return writer
        .boolean(op.init ?? false)
        .list(op.args, (text) => writer.string(text))
        .list(op.env, (text) => writer.string(text));
    default:
      return encodeFilesystemOp(op, writer);
  }
}

type FilesystemOp = Exclude<
  Op,
  | HostOp
  | {
      op:
        | "unshare"
        | "join-namespace"
        | "set-propagation"
        | "set-sysctl"
        | "set-hostname"
        | "set-domainname"
        | "set-rlimit"
        | "set-oom-score"
        | "set-credentials"
        | "load-seccomp"
        | "exec"
        | "open-terminal";
    }
>;

function encodeFilesystemOp(op: FilesystemOp, writer: Writer): Writer {
  switch (op.op) {
    case "mount-overlay":
      return encodeOverlay(op, writer);
    case "bind-root":
      return writer.string(op.source).string(op.target);
    case "mount-filesystem":
      writer.string(op.type).string(op.source).string(op.target).u32(attributeFlags(op.attributes));
      return encodeOptions(op.options, writer);
    case "bind-mount":
      writer.string(op.source).string(op.target).boolean(op.recursive).u32(attributeFlags(op.attributes));
      return writer.u32(PROPAGATIONS[op.propagation ?? "private"]);
    case "make-device":
      writer.string(op.path).u32(DEVICE_TYPES[op.type] | op.mode);
      return writer.u32(op.major).u32(op.minor).u32(op.uid).u32(op.gid);
    case "make-symlink":
      return writer
        .string(op.path)
        .string(op.target)
        .boolean(op.replace ?? false);
    case "mask-paths":
    case "readonly-paths":
      return writer.list(op.paths, (path) => writer.string(path));
    case "set-working-directory":
      return writer.string(op.path);
    case "copy-out":
      return writer.string(op.path).string(op.name).boolean(op.follow);
    case "join-container":
    case "copy-in":
    case "readonly-root":
    case "pivot-root":
    case "new-keyring":
    case "no-new-privileges":
    case "await-start":
      return writer;
    default:
      return unreachable(op);
  }
}

/** Options of a file system, for fsconfig(2): a value that is empty means a flag. */
export function encodeOptions(options: readonly string[], writer: Writer): Writer {
  return writer.list(options, (option) => {
    const equals = option.indexOf("=");
    writer.string(equals < 0 ? option : option.slice(0, equals));
    writer.string(equals < 0 ? "" : option.slice(equals + 1));
  });
}

function encodeCredentials(op: Extract<Op, { op: "set-credentials" }>, writer: Writer): Writer {
  const { bounding, effective, permitted, inheritable, ambient } = op.capabilities;
  writer.u32(op.uid).u32(op.gid).u32(op.umask);
  writer.u64(bounding).u64(effective).u64(permitted).u64(inheritable).u64(ambient);
  return writer.list(op.groups, (group) => writer.u32(group));
}

/** What an operation is called in an error: `mount overlay /var/lib/…`. */
export function describeOp(op: Op): string {
  const verb = op.op.replaceAll("-", " ");
  switch (op.op) {
    case "netlink":
      return op.label;
    case "exec":
      return `exec ${JSON.stringify(op.args[0] ?? "")}`;
    case "mount-overlay":
      return `mount overlay of ${op.lowers.length} layers`;
    case "mount-filesystem":
      return `mount ${op.type} at ${op.target}`;
    case "bind-mount":
      return `bind ${op.source} at ${op.target}`;
    case "set-sysctl":
      return `${verb} ${op.name}`;
    case "attach-device-program":
      return `${verb} to ${op.cgroup}`;
    case "set-credentials":
      return `become uid ${op.uid} gid ${op.gid}`;
    case "mask-paths":
    case "readonly-paths":
      return `${verb} ${op.paths.join(" ")}`;
    default:
      return "path" in op ? `${verb} ${op.path}` : verb;
  }
}
