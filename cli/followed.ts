/**
 * One service on its way to what a change wants: what the stream has told of it, and what that means at a moment. It reads no
 * clock and draws nothing; `wait.ts` does for one service, `stack-wait.ts` for a whole stack.
 */
import { updateMonitorMs } from "../common/model/defaults.ts";
import { completionsOf, isJob } from "../common/model/service-mode.ts";
import { taskSpecChanged } from "../common/model/task-diff.ts";
import type { ServiceView, TaskView, WatchServicesResponse } from "../proto/gen/swarm/v1/control_pb.js";
import { type ServiceSpec, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient } from "./command.ts";
import { assess, type Verdict } from "./convergence.ts";

/** What to wait for. */
export interface WaitTarget {
  readonly serviceId: string;
  readonly name: string;
  /** The spec version that the change made: the picture is not judged before the manager shows it. */
  readonly specVersion: bigint;
  readonly rollback: boolean;
  /** Nothing was changed: as soon as all is as wanted, that is so. */
  readonly unchanged?: boolean;
}

/** What is to be said of the service now. */
export type Outcome =
  | { readonly kind: "unknown" }
  | { readonly kind: "waiting" | "converged"; readonly verdict: Verdict }
  /** As wanted, but not for long enough. */
  | { readonly kind: "verifying"; readonly verdict: Verdict; readonly leftMs: number }
  /** `final` unless a successor may still be on its way. */
  | { readonly kind: "failed"; readonly verdict: Verdict; readonly reason: string; readonly final: boolean };

/** How long a slot must stay without a successor before it counts as given up. */
const PROVISIONAL_MS = 1000;

export class Followed {
  readonly target: WaitTarget;
  readonly #before: ReadonlySet<string>;
  readonly #tasks = new Map<string, TaskView>();
  /** Content of spec versions: a rollback's new version may want what older tasks already are. */
  readonly #specs = new Map<bigint, ServiceSpec>();
  #service: ServiceView | undefined;
  #convergedMs: number | undefined;
  #failedMs: number | undefined;
  /** Whether it was converged for long enough when it was last judged. */
  #verified = false;
  #removed = false;

  /** `before`: tasks that had ended before the change. */
  constructor(target: WaitTarget, before: ReadonlySet<string>) {
    this.target = target;
    this.#before = before;
  }

  get service(): ServiceView | undefined {
    return this.#service;
  }

  get removed(): boolean {
    return this.#removed;
  }

  /** The tasks that failed since the change, the newest last. */
  failedTasks(): TaskView[] {
    const failed = [...this.#tasks.values()].filter(({ task }) => {
      const state = task?.status?.state ?? TaskState.NEW;
      const bad = state === TaskState.FAILED || state === TaskState.REJECTED;
      return bad && !this.#before.has(task?.id ?? "");
    });
    return failed.sort((left, right) => Number((left.task?.attempt ?? 0n) - (right.task?.attempt ?? 0n)));
  }

  /** Takes in what of a message concerns this service. */
  async apply(client: ControlClient, message: WatchServicesResponse): Promise<void> {
    const { serviceId } = this.target;
    if (message.removedServiceIds.includes(serviceId)) this.#removed = true;
    for (const view of message.tasks) if (view.task?.serviceId === serviceId) this.#tasks.set(view.task.id, view);
    for (const id of message.removedTaskIds) this.#tasks.delete(id);
    this.#service = message.services.findLast(({ service }) => service?.id === serviceId) ?? this.#service;
    const { service, spec } = this.#service ?? {};
    if (service && spec) this.#specs.set(service.specVersion, spec);
    if (this.#removed || service === undefined || !this.#lacksSpecs(service.taskVersion)) return;
    const known = await client.listSpecVersions({ serviceId });
    for (const version of known.versions) if (version.spec) this.#specs.set(version.version, version.spec);
  }

  /** Whether a living task is of an older version that nobody has compared with the newest. */
  #lacksSpecs(taskVersion: bigint): boolean {
    return this.#tasks.values().some(({ task }) => {
      return task !== undefined && task.specVersion < taskVersion && !this.#specs.has(task.specVersion);
    });
  }

  judge(nowMs: number): Outcome {
    const view = this.#service;
    const service = view?.service;
    if (view === undefined || service === undefined || service.specVersion < this.target.specVersion)
      return { kind: "unknown" };
    const wanted = this.#specs.get(service.specVersion);
    const verdict = assess({
      service: view,
      tasks: [...this.#tasks.values()],
      before: this.#before,
      rollback: this.target.rollback,
      isCurrent: (version) => {
        if (version >= service.taskVersion) return true;
        const spec = this.#specs.get(version);
        return spec !== undefined && wanted !== undefined && !taskSpecChanged(spec, wanted);
      },
    });
    this.#verified = false;
    this.#failedMs = verdict.kind === "failed" && verdict.provisional ? (this.#failedMs ?? nowMs) : undefined;
    this.#convergedMs = verdict.kind === "converged" ? (this.#convergedMs ?? nowMs) : undefined;
    if (verdict.kind === "failed") {
      const final = this.#failedMs === undefined || nowMs >= this.#failedMs + PROVISIONAL_MS;
      return { kind: "failed", verdict, reason: verdict.reason, final };
    }
    if (verdict.kind === "waiting") return { kind: "waiting", verdict };
    // Converged counts once it has held for the monitor time; an update has been watched by the manager already.
    const watched = this.target.unchanged === true || service.updateStatus?.completedAt !== undefined;
    const leftMs = watched ? 0 : (this.#convergedMs ?? nowMs) + this.#monitorMs() - nowMs;
    if (leftMs > 0) return { kind: "verifying", verdict, leftMs };
    this.#verified = true;
    return { kind: "converged", verdict };
  }

  /** When to look again though nothing changes: each second while stability is verified, for the countdown. */
  wakeMs(nowMs: number): number {
    if (this.#failedMs !== undefined) return this.#failedMs + PROVISIONAL_MS;
    // Between a verdict and this question the time may have come: it is asked again then, too.
    if (this.#convergedMs === undefined || this.#verified) return Number.POSITIVE_INFINITY;
    return Math.min(this.#convergedMs + this.#monitorMs(), nowMs + 1000);
  }

  /** How many slots are to be done in the end. */
  get desired(): number {
    const { spec, desiredTasks = 0n, completedTasks = 0n } = this.#service ?? {};
    return isJob(spec) ? completionsOf(spec) || Number(desiredTasks + completedTasks) : Number(desiredTasks);
  }

  #monitorMs(): number {
    // What has ended well cannot become unstable.
    if (isJob(this.#service?.spec)) return 0;
    return updateMonitorMs(this.#service?.spec?.update);
  }
}
