/**
 * The agent's client of `swarm-shim runner`: one small long-lived process that forks for each request, so that Node,
 * whose fork copies a large page table, forks once in its life. Containers survive its end.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { abortable, abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type Answer, Channel, errnoError, type Failure } from "./channel.ts";
import type { Writer } from "./encode.ts";
import type { ContainerPath, HostPath, MountAttribute } from "./op.ts";
import { attributeFlags, describeOp, encodeOptions, encodeOverlay, encodePlan, type Plan } from "./plan.ts";
import { Supervisor } from "./supervisor.ts";

/** Request kinds: enum runner_request of runner.c. */
const REQUEST = {
  create: 1,
  netlink: 2,
  readFile: 3,
  removeTree: 4,
  mount: 5,
  bindBelow: 6,
  unmount: 7,
  copyUp: 8,
  cancel: 9,
} as const;

/** A file system to mount on the host. */
export interface HostFilesystem {
  /** `tmpfs`, `nfs`, `ext4`, … */
  readonly type: string;
  readonly source: string;
  /** The file system's own, each `key` or `key=value`. */
  readonly options: readonly string[];
  readonly attributes: readonly MountAttribute[];
}

/** A container that stands ready: its first process waits for `Supervisor.start`. Both pids are the host's. */
export interface Created {
  readonly pid: number;
  readonly supervisorPid: number;
}

export class Runner implements AsyncDisposable {
  readonly #command: readonly [string, ...string[]];
  #process: ChildProcess | undefined;
  #channel: Channel | undefined;
  #disposed = false;

  /**
   * `shimPath` is the built `swarm-shim`; the process starts with the first request and again whenever it is gone. With
   * `networkPath`, the file of a network namespace, it works in that one.
   */
  constructor(shimPath: string, networkPath?: string) {
    const command = [shimPath, "runner"] as const;
    this.#command = networkPath === undefined ? command : ["nsenter", `--net=${networkPath}`, ...command];
  }

  /** The runner's process id while it runs. */
  get pid(): number | undefined {
    return this.#channel?.open ? this.#process?.pid : undefined;
  }

  /**
   * Makes a container as far as its `await-start`. When an operation fails everything is undone and the error names it:
   * `bind /x at /y: ENOENT`. After an abort the container is killed as soon as it is made, and only then does this
   * reject: whoever frees its cgroup and directories next finds nobody who still fills them.
   */
  async create(plan: Plan, signal: AbortSignal): Promise<Created> {
    if (signal.aborted) throw abortReason(signal);
    const pending = this.#connect().request(REQUEST.create, (writer) => encodePlan(plan, writer));
    let answer: Answer;
    try {
      answer = await abortable(pending, signal);
    } catch (reason) {
      const late = await pending.catch(() => undefined);
      if (late?.kind === "ok") await killLate(plan.stateDirectory);
      throw reason;
    }
    if (answer.kind === "error") throw errnoError(describeFailure(plan, answer.failure), answer.failure.errno);
    return { pid: answer.payload.readUInt32LE(0), supervisorPid: answer.payload.readUInt32LE(4) };
  }

  /**
   * Sends one netlink message (with its nlmsghdr; NLM_F_ACK or NLM_F_DUMP set) in the host's network namespace and
   * resolves with every message that answered, up to the acknowledgement, a refusal (it is an answer) or NLMSG_DONE.
   * Throws only when the socket itself fails.
   */
  netlink(protocol: number, message: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    const write = (writer: Writer) => writer.u32(protocol).bytes(message);
    return this.#request(REQUEST.netlink, write, "netlink", signal);
  }

  /**
   * Reads a regular file of an image's root, given its layers (uppermost first), without ever leaving that root.
   * `not_found`; `out_of_range` above `maxBytes`; `failed_precondition` (EINVAL) for what is not a regular file.
   */
  readFile(
    options: { readonly layers: readonly HostPath[]; readonly path: ContainerPath; readonly maxBytes: number },
    signal: AbortSignal,
  ): Promise<Buffer> {
    const { layers, path, maxBytes } = options;
    const [first] = layers;
    if (!first) return Promise.reject(new SwarmError("not_found", `read ${path}: no layers`));
    const write = (writer: Writer) => {
      writer.string(first).string(path).u32(maxBytes);
      encodeLayers(layers, writer);
    };
    return this.#request(REQUEST.readFile, write, `read ${path}`, signal);
  }

  /** Deletes a directory and all below it, never through a link nor onto another mount. A missing one is fine. */
  async removeTree(path: HostPath, signal: AbortSignal): Promise<void> {
    await this.#request(REQUEST.removeTree, (writer) => writer.string(path), `remove ${path}`, signal);
  }

  /**
   * Mounts a file system at an existing directory, in the host's mount namespace, if none is mounted there, and sees that
   * it answers. Throws with mount(2)'s errno.
   */
  async mount(filesystem: HostFilesystem, target: HostPath, signal: AbortSignal): Promise<void> {
    const { type, source, options, attributes } = filesystem;
    const write = (writer: Writer) =>
      encodeOptions(options, writer.string(type).string(source).string(target).u32(attributeFlags(attributes)));
    await this.#request(REQUEST.mount, write, `mount ${type} ${source}`, signal);
  }

  /**
   * Binds what `path` names below `directory` at `target`, which is made. No link leads out of the directory, whoever wrote
   * it. Throws `not_found` when there is no such path.
   */
  async bindBelow(directory: HostPath, path: string, target: HostPath, signal: AbortSignal): Promise<void> {
    const write = (writer: Writer) => writer.string(directory).string(path).string(target);
    await this.#request(REQUEST.bindBelow, write, `bind ${path}`, signal);
  }

  /** Takes a mount of `mount` or `bindBelow` away, and its place; containers that have it keep it. None there is fine. */
  async unmount(target: HostPath, signal: AbortSignal): Promise<void> {
    await this.#request(REQUEST.unmount, (writer) => writer.string(target), `unmount ${target}`, signal);
  }

  /**
   * Copies what an image, given its layers (uppermost first), has in directory `path` into the directory `target`, if that
   * is empty: owners, modes, extended attributes and times too, of `target` itself as well. An image without that directory
   * is fine.
   */
  async copyUp(
    image: { readonly layers: readonly HostPath[]; readonly path: ContainerPath },
    target: HostPath,
    signal: AbortSignal,
  ): Promise<void> {
    const [first] = image.layers;
    if (!first) return;
    const write = (writer: Writer) => {
      writer.string(first).string(image.path).string(target);
      encodeLayers(image.layers, writer);
    };
    await this.#request(REQUEST.copyUp, write, `copy ${image.path} of the image`, signal);
  }

  /** Ends the runner; containers go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    this.#process?.stdin?.end();
    await this.#channel?.closed;
  }

  /** After an abort the process that serves the request is killed: it may wait for a file server that is gone. */
  async #request(kind: number, write: (writer: Writer) => void, label: string, signal: AbortSignal): Promise<Buffer> {
    if (signal.aborted) throw abortReason(signal);
    const channel = this.#connect();
    const { id, answer } = channel.send(kind, write);
    const cancel = () => {
      channel.request(REQUEST.cancel, (writer) => writer.u32(id)).catch(() => undefined);
    };
    signal.addEventListener("abort", cancel, { once: true });
    try {
      const ended = await abortable(answer, signal);
      if (ended.kind === "error") throw errnoError(label, ended.failure.errno);
      return ended.payload;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  #connect(): Channel {
    if (this.#disposed) throw new SwarmError("canceled", "runner is closed");
    if (this.#channel?.open) return this.#channel;
    const [program, ...args] = this.#command;
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], env: {}, cwd: "/" });
    const channel = new Channel({ name: "runner", readable: child.stdout, writable: child.stdin });
    child.on("error", (reason) => channel.fail(SwarmError.wrap("start the shim", reason, "failed_precondition")));
    this.#process = child;
    this.#channel = channel;
    return channel;
  }
}

/** More than one layer is an overlay. */
function encodeLayers(layers: readonly HostPath[], writer: Writer): void {
  const [first, second] = layers;
  writer.part(() => {
    if (first && second) encodeOverlay({ op: "mount-overlay", lowers: layers, target: first, options: [] }, writer);
  });
}

async function killLate(stateDirectory: HostPath): Promise<void> {
  const never = new AbortController().signal;
  try {
    await using supervisor = await Supervisor.connect(stateDirectory, never);
    await supervisor.signal({ number: 9, all: false }, never);
    await supervisor.ended;
  } catch (reason) {
    // It ended by itself meanwhile.
    if (!(reason instanceof SwarmError)) throw reason;
  }
}

function describeFailure(plan: Plan, failure: Failure): string {
  if (failure.stage === "supervisor") return `start supervisor in ${plan.stateDirectory}`;
  if (failure.stage === "clone") return "clone the container's first process";
  const op = (failure.stage === "host" ? plan.host : plan.container)[failure.index];
  return op ? describeOp(op) : `${failure.stage} operation ${failure.index}`;
}
