/**
 * The door between deciding about tasks and running containers. The agent's task manager drives one controller per task
 * through these steps; the container executor does them for real, the simulator's in virtual time.
 */
import type { TaskId } from "../common/base/id.ts";
import type {
  CopyRequest,
  CopyResponse,
  ExecRequest,
  ExecResponse,
  ExecStart,
  LogMessage,
  ProbeResult,
  TaskUsage,
} from "../proto/gen/swarm/v1/control_pb.js";
import type {
  NetworkAssignment,
  Peer,
  ServiceEndpoint,
  TaskEndpoint,
  TaskTemplate,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { LogOptions, NodeVolume, Task } from "../proto/gen/swarm/v1/objects_pb.js";
import type {
  EndpointSpec_Affinity,
  NodeDescription,
  PortConfig,
  PortConfig_Protocol,
  TaskStatus,
} from "../proto/gen/swarm/v1/types_pb.js";
import type { ContentSource } from "./content-cache.ts";

/** A task as its node needs it: the task and the spec version that it names. */
export interface AssignedTask {
  readonly task: Task;
  readonly template: TaskTemplate;
  /** Where the secrets and configs that the template pins come from. */
  readonly contents: ContentSource;
  readonly networks: NetworkSource;
}

/** How a container ended. `exitCode` is the code, or 128 + signal as shells have it. */
export interface ExitStatus {
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** Why it ended when it was not of its own accord: "unhealthy: …", "shim lost". */
  readonly reason?: string;
}

/**
 * Runs one task. Each step is idempotent, may be repeated after a restart of the agent, and throws a SwarmError that
 * says what failed; the task manager turns that into REJECTED (before start) or FAILED (after), except that it repeats
 * a step that failed with `unavailable`, `deadline_exceeded` or `aborted` a few times.
 *
 * `prepare`, `start`, `shutdown` and `remove` never overlap: a step ends (soon) after its signal aborts, and only then
 * does the next begin. `healthy`, `exited` and `logs` may run beside them.
 */
export interface TaskController {
  /** Image, root, cgroup, namespaces and address: afterwards the process only waits to be let go. */
  prepare(signal: AbortSignal): Promise<void>;
  /** Lets the process run; resolves with its pid as the host numbers it. */
  start(signal: AbortSignal): Promise<{ readonly pid: number }>;
  /** Resolves once the health check passes, at once where there is none; rejects when it gives up. */
  healthy(signal: AbortSignal): Promise<void>;
  /** Resolves when the process has ended, however long ago, also while the agent was away. */
  exited(signal: AbortSignal): Promise<ExitStatus>;
  /** Stop signal, grace time, SIGKILL to the whole cgroup; resolves when it has ended, at once if it never began. */
  shutdown(signal: AbortSignal): Promise<void>;
  /** Frees all that the task held, its logs too. */
  remove(signal: AbortSignal): Promise<void>;
  /**
   * The template pins other content now: the task's files are replaced and its process gets the signals that the pins name.
   * May run beside any step; before `prepare` it only means that `prepare` takes the new content.
   */
  refresh(template: TaskTemplate, signal: AbortSignal): Promise<void>;
  /**
   * Runs a command inside the running container, driven by `requests` after its start. The last response is `ended`; when
   * `signal` aborts or the iteration is left, the command is killed with all that it started and did not detach itself.
   * Throws `failed_precondition` while the container does not run.
   */
  exec(start: ExecStart, requests: AsyncIterable<ExecRequest>, signal: AbortSignal): AsyncIterable<ExecResponse>;
  /**
   * Copies files out of the running container or into it, as `first` says. The last response is `done`; when `signal` aborts
   * or the iteration is left, nothing more is copied and no process stays. Throws `failed_precondition` while the container
   * does not run.
   */
  copy(first: CopyRequest, requests: AsyncIterable<CopyRequest>, signal: AbortSignal): AsyncIterable<CopyResponse>;
  /** Log lines of the task, oldest first; with `follow` it goes on until the signal aborts. */
  logs(options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage>;
}

/** A published port and the tasks that serve it now. */
export interface PublishedEndpoint {
  readonly port: PortConfig;
  readonly affinity: EndpointSpec_Affinity;
  /** `own`: of this very node. */
  readonly targets: readonly { readonly taskId: string; readonly address: string; readonly own: boolean }[];
}

/** A task of this node as the network sees it. */
export interface OwnTask {
  readonly task: Task;
  /** As last reported. */
  readonly status: TaskStatus;
  /** Running, healthy, and not about to stop. */
  readonly serving: boolean;
  /** Where its service's published ports lead, an address of each family at most. */
  readonly ingressAddresses: readonly string[];
  /** Whom its service wants asked for names beyond its networks; empty: the host's. */
  readonly nameservers: readonly string[];
}

/** All that the node's network is made from. */
export interface NodeNetwork {
  readonly networks: readonly NetworkAssignment[];
  readonly peers: readonly Peer[];
  readonly services: readonly ServiceEndpoint[];
  /** Tasks of other nodes. */
  readonly tasks: readonly TaskEndpoint[];
  readonly own: readonly OwnTask[];
  /** What follows from all this for published ports. */
  readonly endpoints: readonly PublishedEndpoint[];
}

/** Knows the networks that tasks of this node are on. */
export interface NetworkSource {
  network(networkId: string): NetworkAssignment | undefined;
}

/** What a session tells of the node's place in the cluster's network. */
export interface NetworkSettings {
  /** The nodes' own network, in CIDR form. */
  readonly addressPool: string;
  /** This node's address for other nodes; empty: not known yet. */
  readonly nodeAddress: string;
  /** UDP port of the traffic between nodes. */
  readonly dataPathPort: number;
}

/** A published port that cannot be had: somebody else on the host holds it, or its address is not the host's. */
export interface PortProblem {
  /** The one address it was to be published on; empty for all. */
  readonly hostAddress: string;
  readonly port: number;
  readonly protocol: PortConfig_Protocol;
  /** In words for the user: "published port 80/tcp: already in use on this node". */
  readonly message: string;
}

/** A node's way of running tasks. */
export interface Executor {
  /** What this node is and has; asked again from time to time. */
  describe(): Promise<NodeDescription>;
  /**
   * Told by each session. Controllers of tasks from before the agent's restart are made and driven earlier, with what an
   * earlier session told; before the very first one `prepare` waits for this.
   */
  configure(settings: NetworkSettings, signal: AbortSignal): Promise<void>;
  /** The controller of a task, new or known from before the agent's restart. */
  controller(assigned: AssignedTask): TaskController;
  /**
   * Replaces the node's key for encrypted networks from time to time, for as long as a session lasts. `tell` returns when
   * managers have the new one. Absent: there is none.
   */
  replaceKeys?(tell: (key: Uint8Array, signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void>;
  /**
   * What of the host's settings is in the way of tasks' traffic, in words for the user; empty when nothing is: each time
   * that changed, until the signal aborts. One reader. Absent: it is never looked for.
   */
  networkFacts?(signal: AbortSignal): AsyncIterable<string>;
  /** The network as it should be now, in full. Never overlaps itself; not called before the first complete set. */
  publish(network: NodeNetwork, signal: AbortSignal): Promise<void>;
  /** The ports that cannot be published now: the whole set each time it changed, until the signal aborts. One reader. */
  portProblems(signal: AbortSignal): AsyncIterable<readonly PortProblem[]>;
  /** The node's named volumes in full: now, and each time they may have changed, until the signal aborts. One reader. */
  volumes(signal: AbortSignal): AsyncIterable<readonly NodeVolume[]>;
  /**
   * Deletes the data of a volume that was made at `createdMs`; another one of that name, or none, is left alone.
   * Throws `failed_precondition` while a task uses it.
   */
  purgeVolume(name: string, createdMs: number, signal: AbortSignal): Promise<void>;
  /** What the containers of these tasks use now; nothing of a task that has none. */
  usage(taskIds: readonly TaskId[], signal: AbortSignal): Promise<readonly TaskUsage[]>;
  /** Tries what the node's tasks can reach on a network, or on all of theirs: from one task on each. */
  probe(network: NodeNetwork, networkId: string, signal: AbortSignal): Promise<readonly ProbeResult[]>;
  /** Called once, before any step: frees what belongs to tasks other than `live`, and takes up what serves those. */
  collect(live: ReadonlySet<TaskId>, signal: AbortSignal): Promise<void>;
}
