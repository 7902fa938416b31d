/**
 * Waits until services are in a certain condition, over one stream of changes: `swarmctl wait`, `service stop`. Unlike `wait.ts`
 * it follows no change and draws nothing: scripts want an exit code and one line of why.
 */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { taskSpecChanged } from "../common/model/task-diff.ts";
import { isTerminal } from "../common/model/task-state.ts";
import { escapeControls } from "../common/model/text.ts";
import type { ServiceView, TaskView, WatchServicesResponse } from "../proto/gen/swarm/v1/control_pb.js";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient, Invocation } from "./command.ts";
import { assess, type Verdict } from "./convergence.ts";
import { anotherManager, isLostManager } from "./failover.ts";
import { durationFlagMs } from "./flags/values.ts";
import type { Io } from "./io.ts";

/** What can be waited for. */
export const SERVICE_CONDITIONS = ["converged", "running", "complete", "stopped", "removed"] as const;
export type ServiceCondition = (typeof SERVICE_CONDITIONS)[number];

/** The exit code when the time is over. */
export const TIMED_OUT = 3;

/** What one service says to a condition: `why` for a person, while it is not met. */
type Answer =
  | { readonly kind: "met" }
  /** `provisional`: it will not be, unless something changes at once. */
  | { readonly kind: "waiting" | "provisional" | "failed"; readonly why: string };

const MET: Answer = { kind: "met" };

/** Answers 0 when every service meets the condition, 1 when one never will, 3 after `--timeout`, 130 after an interrupt. */
export async function waitForServices(
  invocation: Invocation,
  target: { readonly serviceIds: readonly string[]; readonly condition: ServiceCondition },
): Promise<number> {
  if (target.serviceIds.length === 0) return 0;
  let client = await invocation.connect();
  let watched = new Watched(client, target.condition);
  return await beforeDeadline(invocation, {
    why: () => watched.why(),
    run: async (signal) => {
      let serviceIds = target.serviceIds;
      while (true) {
        try {
          return await watch(invocation, { client, watched, serviceIds }, signal);
        } catch (reason) {
          if (signal.aborted || !isLostManager(reason)) throw reason;
          client = await anotherManager(invocation, reason, signal);
        }
        const { services } = await client.listServices({ withoutSpecs: true }, { signal });
        const left = new Set(services.map(({ service }) => service?.id));
        watched = new Watched(client, target.condition);
        watched.remove(serviceIds.filter((id) => !left.has(id)));
        serviceIds = serviceIds.filter((id) => left.has(id));
      }
    },
  });
}

/** One stream of changes, until it tells how the waiting ends. */
async function watch(
  { io, clock }: Invocation,
  { client, watched, serviceIds }: { client: ControlClient; watched: Watched; serviceIds: readonly string[] },
  signal: AbortSignal,
): Promise<number> {
  // No id would mean all services; what is left to wait for is then told by those that are gone.
  if (serviceIds.length === 0) return verdict(watched, io) ?? 1;
  const messages = client.watchServices({ serviceIds: [...serviceIds] }, { signal })[Symbol.asyncIterator]();
  let next = messages.next();
  try {
    while (true) {
      const message = await nextOrTimer(clock, next, watched.provisional ? PROVISIONAL_MS : undefined);
      if (message === undefined) watched.settle();
      else if (message.done) throw new SwarmError("unavailable", "the manager ended the watch");
      else {
        await watched.apply(message.value);
        next = messages.next();
      }
      const code = verdict(watched, io);
      if (code !== undefined) return code;
    }
  } finally {
    next.catch(() => {});
    messages.return?.()?.catch(() => {});
  }
}

/** The exit code when it is certain; a failure is told. */
function verdict(watched: Watched, io: Io): number | undefined {
  const failure = watched.failure();
  if (failure === undefined) return watched.met() ? 0 : undefined;
  io.err(`swarmctl: ${escapeControls(failure)}\n`);
  return 1;
}

/** How long a slot must stay without a successor before it counts as given up. */
const PROVISIONAL_MS = 1_000;

/** The next message, or undefined after `delayMs`. */
async function nextOrTimer<T>(clock: Clock, next: Promise<T>, delayMs: number | undefined): Promise<T | undefined> {
  if (delayMs === undefined) return await next;
  const timer = new AbortController();
  const ring = clock.sleep(delayMs, timer.signal).then(() => undefined);
  ring.catch(() => {});
  try {
    return await Promise.race([next, ring]);
  } finally {
    timer.abort();
  }
}

/** Runs `run` until `--timeout`, whose end is told with what is still waited for. */
export async function beforeDeadline(
  { flags, clock, signal, io }: Invocation,
  wait: { run(signal: AbortSignal): Promise<number>; why(): string },
): Promise<number> {
  const timeoutMs = durationFlagMs(flags, "timeout");
  const over = new AbortController();
  const done = new AbortController();
  if (timeoutMs !== undefined && timeoutMs > 0) {
    const timer = clock.sleep(timeoutMs, AbortSignal.any([signal, done.signal]));
    timer.then(
      () => over.abort(new SwarmError("deadline_exceeded", "timed out")),
      () => {},
    );
  }
  try {
    return await wait.run(AbortSignal.any([signal, over.signal]));
  } catch (reason) {
    if (signal.aborted) return 130;
    if (!over.signal.aborted) throw reason;
    io.err(`swarmctl: timed out after ${flags.text("timeout")}: ${escapeControls(wait.why())}\n`);
    return TIMED_OUT;
  } finally {
    done.abort();
  }
}

/** The services as the stream shows them. */
class Watched {
  readonly #client: ControlClient;
  readonly #condition: ServiceCondition;
  readonly #services = new Map<string, ServiceView>();
  readonly #tasks = new Map<string, TaskView>();
  /** For each service, which spec versions make the same tasks as its newest. */
  readonly #current = new Map<string, ReadonlySet<bigint>>();
  readonly #removed: string[] = [];
  /** Nothing has changed for a while: a failure that a successor might have mended is one. */
  #settled = false;

  constructor(client: ControlClient, condition: ServiceCondition) {
    this.#client = client;
    this.#condition = condition;
  }

  settle(): void {
    this.#settled = true;
  }

  /** Whether a service has failed unless its slot's next task is on its way. */
  get provisional(): boolean {
    return !this.#settled && this.#answers().some(({ answer }) => answer.kind === "provisional");
  }

  async apply(message: WatchServicesResponse): Promise<void> {
    this.#settled = false;
    for (const view of message.tasks) if (view.task) this.#tasks.set(view.task.id, view);
    for (const id of message.removedTaskIds) this.#tasks.delete(id);
    for (const view of message.services) {
      if (!view.service) continue;
      const known = this.#services.get(view.service.id)?.service?.taskVersion === view.service.taskVersion;
      this.#services.set(view.service.id, view);
      if (!known) this.#current.set(view.service.id, await this.#versionsLike(view));
    }
    this.remove(message.removedServiceIds);
  }

  /** Services that are no more. */
  remove(serviceIds: readonly string[]): void {
    for (const id of serviceIds) {
      this.#removed.push(this.#services.get(id)?.service?.name ?? id);
      this.#services.delete(id);
    }
  }

  /** Why the condition will not be met. */
  failure(): string | undefined {
    if (this.#condition !== "removed" && this.#removed.length > 0) return `service ${this.#removed[0]}: was removed`;
    const fatal = this.#settled ? ["failed", "provisional"] : ["failed"];
    return this.#answers().find(({ answer }) => fatal.includes(answer.kind))?.text;
  }

  met(): boolean {
    return this.#answers().every(({ answer }) => answer.kind === "met");
  }

  why(): string {
    const waiting = this.#answers().flatMap(({ answer, text }) => (answer.kind === "met" ? [] : [text]));
    return waiting.length > 0 ? waiting.join("; ") : "no answer from the manager";
  }

  #answers(): { readonly answer: Answer; readonly text: string }[] {
    return [...this.#services.values()].map((view) => {
      const answer = this.#answer(view);
      return { answer, text: `service ${view.service?.name}: ${answer.kind === "met" ? "" : answer.why}` };
    });
  }

  #answer(view: ServiceView): Answer {
    const tasks = this.#tasks
      .values()
      .filter(({ task }) => task?.serviceId === view.service?.id)
      .toArray();
    switch (this.#condition) {
      case "removed":
        return { kind: "waiting", why: "still exists" };
      case "stopped":
        return stopped(view, tasks);
      case "running":
        return running(view);
      case "converged":
        return converged(view, this.#assess(view, tasks));
      case "complete":
        return complete(view, this.#assess(view, tasks));
    }
  }

  #assess(view: ServiceView, tasks: readonly TaskView[]): Verdict {
    const current = this.#current.get(view.service?.id ?? "");
    return assess({
      service: view,
      tasks,
      before: new Set(),
      rollback: true,
      isCurrent: (version) => version >= (view.service?.taskVersion ?? 0n) || current?.has(version) === true,
    });
  }

  async #versionsLike({ service, spec }: ServiceView): Promise<ReadonlySet<bigint>> {
    if (service === undefined || spec === undefined || this.#condition === "stopped") return new Set();
    try {
      const { versions } = await this.#client.listSpecVersions({ serviceId: service.id });
      const alike = versions.filter((version) => version.spec && !taskSpecChanged(version.spec, spec));
      return new Set(alike.map(({ version }) => version));
    } catch (reason) {
      // It was removed just now: the stream says so next.
      if (reason instanceof SwarmError && reason.code === "not_found") return new Set();
      throw reason;
    }
  }
}

function stopped({ service }: ServiceView, tasks: readonly TaskView[]): Answer {
  if (service?.stopped === false) return { kind: "failed", why: "is not being stopped; see service stop" };
  const left = tasks.filter(({ task }) => {
    const state = task?.status?.state ?? TaskState.NEW;
    return !isTerminal(state) && (state >= TaskState.ASSIGNED || (task?.desiredState ?? 0) <= TaskState.RUNNING);
  });
  return left.length === 0 ? MET : { kind: "waiting", why: `${left.length} tasks have not ended` };
}

function running({ service, runningTasks, desiredTasks }: ServiceView): Answer {
  if (service?.stopped) return { kind: "failed", why: "is stopped; see service start" };
  if (runningTasks >= desiredTasks && desiredTasks > 0n) return MET;
  if (desiredTasks === 0n) return { kind: "waiting", why: "no task is wanted" };
  return { kind: "waiting", why: `${runningTasks} of ${desiredTasks} tasks run` };
}

function converged({ desiredTasks }: ServiceView, verdict: Verdict): Answer {
  if (verdict.kind === "converged") return MET;
  if (verdict.kind === "failed") return failed(verdict);
  return { kind: "waiting", why: progress(verdict, Number(desiredTasks), "as wanted") };
}

/** Every slot has done its work: a task ended with 0 and gets no successor. */
function complete({ desiredTasks, completedTasks, spec }: ServiceView, verdict: Verdict): Answer {
  const mode = spec?.mode?.mode;
  if (mode?.case === "replicatedJob") {
    const total = mode.value.totalCompletions || 1n;
    if (completedTasks >= total) return MET;
  } else if (verdict.slots.length > 0 && verdict.slots.length >= Number(desiredTasks)) {
    if (verdict.slots.every(({ state, done }) => done && state === TaskState.COMPLETE)) return MET;
  }
  if (verdict.kind === "failed") return failed(verdict);
  const ended = verdict.slots.filter(({ state }) => state === TaskState.COMPLETE).length;
  return { kind: "waiting", why: `${ended} of ${verdict.slots.length} tasks have completed` };
}

function failed({ provisional, reason }: Extract<Verdict, { kind: "failed" }>): Answer {
  return { kind: provisional ? "provisional" : "failed", why: reason };
}

function progress({ slots }: Verdict, desired: number, words: string): string {
  const stuck = slots.find(({ reason }) => reason !== "");
  const why = stuck === undefined ? "" : ` (${stuck.name}: ${stuck.reason})`;
  return `${slots.filter(({ done }) => done).length} of ${desired} tasks run ${words}${why}`;
}
