/**
 * The agent's client of `swarm-shim runner`: one small long-lived process that forks for each request, so that Node,
 * whose fork copies a large page table, forks once in its life. Containers survive its end.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { abortable, abortReason } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type Answer, Channel, errnoError, type Failure } from "./channel.ts";
import type { Writer } from "./encode.ts";
import type { ContainerPath, HostPath } from "./op.ts";
import { describeOp, encodeOverlay, encodePlan, type Plan } from "./plan.ts";
import { Supervisor } from "./supervisor.ts";

/** Request kinds: enum runner_request of runner.c. */
const REQUEST = { create: 1, netlink: 2, readFile: 3, removeTree: 4 } as const;

/** A container that stands ready: its first process waits for `Supervisor.start`. Both pids are the host's. */
export interface Created {
  readonly pid: number;
  readonly supervisorPid: number;
}

export class Runner implements AsyncDisposable {
  readonly #shimPath: string;
  #process: ChildProcess | undefined;
  #channel: Channel | undefined;
  #disposed = false;

  /** `shimPath` is the built `swarm-shim`; the process starts with the first request and again whenever it is gone. */
  constructor(shimPath: string) {
    this.#shimPath = shimPath;
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
    const [first, ...others] = options.layers;
    if (!first) return Promise.reject(new SwarmError("not_found", `read ${options.path}: no layers`));
    const write = (writer: Writer) => {
      writer.string(first).string(options.path).u32(options.maxBytes);
      writer.part(() => {
        if (others.length === 0) return;
        encodeOverlay({ op: "mount-overlay", lowers: options.layers, target: first, options: [] }, writer);
      });
    };
    return this.#request(REQUEST.readFile, write, `read ${options.path}`, signal);
  }

  /** Deletes a directory and all below it, never through a link nor onto another file system. A missing one is fine. */
  async removeTree(path: HostPath, signal: AbortSignal): Promise<void> {
    await this.#request(REQUEST.removeTree, (writer) => writer.string(path), `remove ${path}`, signal);
  }

  /** Ends the runner; containers go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    this.#process?.stdin?.end();
    await this.#channel?.closed;
  }

  async #request(kind: number, write: (writer: Writer) => void, label: string, signal: AbortSignal): Promise<Buffer> {
    if (signal.aborted) throw abortReason(signal);
    const answer = await abortable(this.#connect().request(kind, write), signal);
    if (answer.kind === "error") throw errnoError(label, answer.failure.errno);
    return answer.payload;
  }

  #connect(): Channel {
    if (this.#disposed) throw new SwarmError("canceled", "runner is closed");
    if (this.#channel?.open) return this.#channel;
    const child = spawn(this.#shimPath, ["runner"], { stdio: ["pipe", "pipe", "inherit"], env: {}, cwd: "/" });
    const channel = new Channel({ name: "runner", readable: child.stdout, writable: child.stdin });
    child.on("error", (reason) => channel.fail(SwarmError.wrap("start the shim", reason, "failed_precondition")));
    this.#process = child;
    this.#channel = channel;
    return channel;
  }
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
