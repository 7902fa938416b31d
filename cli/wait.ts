/**
 * Waits until a service has converged, over one stream of changes, and shows how far it is. The verdicts are
 * `convergence.ts`'s, the pictures `output/progress.ts`'s; this file joins stream, clock and terminal.
 */
import { SwarmError } from "../common/base/error.ts";
import { updateMonitorMs } from "../common/model/defaults.ts";
import { taskSpecChanged } from "../common/model/task-diff.ts";
import { isTerminal } from "../common/model/task-state.ts";
import { escapeControls } from "../common/model/text.ts";
import type { ServiceView, TaskView, WatchServicesResponse } from "../proto/gen/swarm/v1/control_pb.js";
import type { ServiceSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient, Invocation } from "./command.ts";
import { assess, type Verdict } from "./convergence.ts";
import { durationFlagMs } from "./flags/values.ts";
import { type ProgressPicture, progressLines, progressNews } from "./output/progress.ts";

/** What to wait for. */
export interface WaitTarget {
  readonly serviceId: string;
  readonly name: string;
  /** The spec version that the change made: the picture is not judged before the manager shows it. */
  readonly specVersion: bigint;
  readonly rollback: boolean;
}

/** Tasks that had ended before a change: remembered before it is made. */
export async function endedTasks(client: ControlClient, serviceId: string): Promise<ReadonlySet<string>> {
  const { tasks } = await client.listTasks({ serviceIds: [serviceId] });
  const ended = tasks.filter(({ task }) => task?.status !== undefined && isTerminal(task.status.state));
  return new Set(ended.map(({ task }) => task?.id ?? ""));
}

/** Waits as the flags say; answers the exit code. `--detach` does not wait at all. */
export async function waitAsAsked(
  invocation: Invocation,
  targets: readonly WaitTarget[],
  before: ReadonlySet<string> = new Set(),
): Promise<number> {
  if (invocation.flags.on("detach")) return 0;
  let code = 0;
  for (const target of targets) code = Math.max(code, await new Wait(invocation, target, before).run());
  return code;
}

/** How long a slot must stay without a successor before it counts as given up. */
const PROVISIONAL_MS = 1000;

class Wait {
  readonly #invocation: Invocation;
  readonly #target: WaitTarget;
  readonly #before: ReadonlySet<string>;
  readonly #tasks = new Map<string, TaskView>();
  readonly #shown = new Map<string, string>();
  /** Content of spec versions: a rollback's new version may want what older tasks already are. */
  readonly #specs = new Map<bigint, ServiceSpec>();
  #service: ServiceView | undefined;
  #drawn = 0;
  #convergedMs: number | undefined;
  #failedMs: number | undefined;
  #verdict: Verdict | undefined;

  constructor(invocation: Invocation, target: WaitTarget, before: ReadonlySet<string>) {
    this.#invocation = invocation;
    this.#target = target;
    this.#before = before;
  }

  async run(): Promise<number> {
    const { clock, signal, flags } = this.#invocation;
    const timeoutMs = durationFlagMs(flags, "timeout");
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const client = await this.#invocation.connect();
    const deadlineMs = timeoutMs ? clock.monotonicMs() + timeoutMs : Number.POSITIVE_INFINITY;
    const messages = client.watchServices({ serviceIds: [this.#target.serviceId] }, { signal: either });
    const iterator = messages[Symbol.asyncIterator]();
    let next = iterator.next();
    try {
      while (true) {
        const wakeMs = Math.min(this.#wakeMs(), deadlineMs) - clock.monotonicMs();
        const message = await this.#nextOrTimer(next, wakeMs);
        if (message !== undefined) {
          if (message.done) throw new SwarmError("unavailable", "the manager ended the watch");
          if (!(await this.#apply(client, message.value))) return this.#fail("service was removed");
          next = iterator.next();
        }
        const code = this.#judge();
        if (code !== undefined) return code;
        if (clock.monotonicMs() >= deadlineMs) return this.#fail(this.#timeoutReason());
      }
    } catch (reason) {
      if (!signal.aborted) throw reason;
      return this.#interrupted();
    } finally {
      next.catch(() => {});
      stop.abort(new SwarmError("canceled", "done waiting"));
    }
  }

  /** The next message, or undefined after `delayMs`. */
  async #nextOrTimer<T>(next: Promise<T>, delayMs: number): Promise<T | undefined> {
    if (delayMs === Number.POSITIVE_INFINITY) return await next;
    const { clock, signal } = this.#invocation;
    const timer = new AbortController();
    const ring = clock.sleep(Math.max(1, delayMs), AbortSignal.any([signal, timer.signal])).then(() => undefined);
    ring.catch(() => {});
    try {
      return await Promise.race([next, ring]);
    } finally {
      timer.abort();
    }
  }

  /** When to look again though nothing changes: each second while stability is verified, for the countdown. */
  #wakeMs(): number {
    if (this.#failedMs !== undefined) return this.#failedMs + PROVISIONAL_MS;
    if (this.#convergedMs === undefined) return Number.POSITIVE_INFINITY;
    const { clock } = this.#invocation;
    return Math.min(this.#convergedMs + this.#monitorMs(), clock.monotonicMs() + 1000);
  }

  #monitorMs(): number {
    return updateMonitorMs(this.#service?.spec?.update);
  }

  /** Takes in a message; false when the service is gone. */
  async #apply(client: ControlClient, message: WatchServicesResponse): Promise<boolean> {
    if (message.removedServiceIds.includes(this.#target.serviceId)) return false;
    for (const view of message.tasks) if (view.task) this.#tasks.set(view.task.id, view);
    for (const id of message.removedTaskIds) this.#tasks.delete(id);
    this.#service = message.services.at(-1) ?? this.#service;
    const versions = new Set([this.#service?.service?.taskVersion, this.#service?.service?.specVersion]);
    for (const { task } of this.#tasks.values()) versions.add(task?.specVersion);
    if ([...versions].some((version) => version !== undefined && !this.#specs.has(version))) {
      const known = await client.listSpecVersions({ serviceId: this.#target.serviceId });
      for (const { version, spec } of known.versions) if (spec) this.#specs.set(version, spec);
    }
    return true;
  }

  /** The exit code when there is one now; draws in any case. */
  #judge(): number | undefined {
    const view = this.#service;
    const service = view?.service;
    if (view === undefined || service === undefined || service.specVersion < this.#target.specVersion) return undefined;
    const wanted = this.#specs.get(service.taskVersion);
    const verdict = assess({
      service: view,
      tasks: [...this.#tasks.values()],
      before: this.#before,
      rollback: this.#target.rollback,
      isCurrent: (version) => {
        if (version >= service.taskVersion) return true;
        const spec = this.#specs.get(version);
        return spec !== undefined && wanted !== undefined && !taskSpecChanged(spec, wanted);
      },
    });
    this.#verdict = verdict;
    const nowMs = this.#invocation.clock.monotonicMs();
    this.#failedMs = verdict.kind === "failed" && verdict.provisional ? (this.#failedMs ?? nowMs) : undefined;
    switch (verdict.kind) {
      case "failed":
        this.#convergedMs = undefined;
        this.#draw(verdict, undefined);
        if (this.#failedMs !== undefined && nowMs < this.#failedMs + PROVISIONAL_MS) return undefined;
        return this.#fail(verdict.reason);
      case "waiting":
        this.#convergedMs = undefined;
        this.#draw(verdict, undefined);
        return undefined;
      case "converged":
        return this.#verify(verdict, service.updateStatus?.completedAt !== undefined);
    }
  }

  /** Converged counts once it has held for the monitor time; an update has been watched by the manager already. */
  #verify(verdict: Verdict, watched: boolean): number | undefined {
    const nowMs = this.#invocation.clock.monotonicMs();
    this.#convergedMs ??= nowMs;
    const leftMs = watched ? 0 : this.#convergedMs + this.#monitorMs() - nowMs;
    if (leftMs > 0) {
      const seconds = Math.ceil(leftMs / 1000);
      const unit = seconds === 1 ? "second" : "seconds";
      this.#draw(verdict, `Waiting ${seconds} ${unit} to verify that tasks are stable...`);
      return undefined;
    }
    this.#draw(verdict, `Service ${this.#target.name} converged`);
    return 0;
  }

  #draw(verdict: Verdict, verify: string | undefined): void {
    const { io, flags } = this.#invocation;
    if (flags.on("quiet")) return;
    const picture: ProgressPicture = {
      slots: verdict.slots,
      desired: Number(this.#service?.desiredTasks ?? 0n),
      byNode: this.#service?.spec?.mode?.mode.case === "global",
      ...(verify === undefined ? {} : { verify }),
    };
    if (!io.terminal) {
      // A countdown in a log is noise.
      const { verify: said, ...rest } = picture;
      const plain = said === undefined || said.startsWith("Waiting") ? rest : picture;
      for (const line of progressNews(plain, this.#shown)) io.out(`${line}\n`);
      return;
    }
    const lines = progressLines(picture, io.columns);
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A\r` : "";
    io.out(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}\u001b[J`);
    this.#drawn = lines.length;
  }

  #fail(reason: string): number {
    this.#invocation.io.err(`swarmctl: service ${escapeControls(this.#target.name)}: ${escapeControls(reason)}\n`);
    return 1;
  }

  #timeoutReason(): string {
    const stuck = this.#verdict?.slots.find(({ reason }) => reason !== "");
    const why = stuck === undefined ? "" : `: task ${this.#target.name}.${stuck.name}: ${stuck.reason}`;
    return `not converged within --timeout; the change stays and goes on in the background${why}`;
  }

  #interrupted(): number {
    const { name, serviceId } = this.#target;
    this.#invocation.io.err(
      `Operation continuing in background: the change to ${escapeControls(name)} stays. See 'swarmctl service ps ${serviceId}'.\n`,
    );
    return 130;
  }
}
