/**
 * Waits until a service has converged and shows how far it is. The verdicts are `convergence.ts`'s, the pictures
 * `output/progress.ts`'s, the stream is `follow.ts`'s; this file joins them with the terminal.
 */
import { isGlobal } from "../common/model/service-mode.ts";
import { isTerminal } from "../common/model/task-state.ts";
import { escapeControls } from "../common/model/text.ts";
import { formatDurationMs } from "../common/model/units.ts";
import type { ControlClient, Invocation } from "./command.ts";
import { durationFlagMs } from "./flags/values.ts";
import { type FollowEnd, type FollowedOutcome, follow } from "./follow.ts";
import type { Outcome, WaitTarget } from "./followed.ts";
import { type ProgressPicture, progressLines, progressNews } from "./output/progress.ts";

export type { WaitTarget } from "./followed.ts";

/** Tasks that had ended before a change: remembered before it is made. */
export async function endedTasks(client: ControlClient, ...serviceIds: string[]): Promise<ReadonlySet<string>> {
  if (serviceIds.length === 0) return new Set();
  const { tasks } = await client.listTasks({ serviceIds });
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

class Wait {
  readonly #invocation: Invocation;
  readonly #target: WaitTarget;
  readonly #before: ReadonlySet<string>;
  readonly #shown = new Map<string, string>();
  #drawn = 0;

  constructor(invocation: Invocation, target: WaitTarget, before: ReadonlySet<string>) {
    this.#invocation = invocation;
    this.#target = target;
    this.#before = before;
  }

  async run(): Promise<number> {
    const end = await follow(this.#invocation, {
      targets: [this.#target],
      before: this.#before,
      timeoutMs: durationFlagMs(this.#invocation.flags, "timeout"),
      draw: ([first]) => {
        if (first) this.#draw(first);
      },
    });
    return this.#ended(end);
  }

  #ended({ kind, outcomes: [last] }: FollowEnd): number {
    switch (kind) {
      case "converged":
        return 0;
      case "failed":
        if (last?.followed.removed) return this.#fail("service was removed");
        return this.#fail(last?.outcome.kind === "failed" ? last.outcome.reason : "failed");
      case "timed out":
        return this.#fail(this.#timeoutReason(last ?? {}));
      case "interrupted":
        return this.#interrupted();
    }
  }

  #draw({ followed, outcome }: FollowedOutcome): void {
    const { io, flags } = this.#invocation;
    if (flags.on("quiet") || outcome.kind === "unknown") return;
    const verify = this.#verifyText(outcome);
    const picture: ProgressPicture = {
      slots: outcome.verdict.slots,
      desired: followed.desired,
      byNode: isGlobal(followed.service?.spec),
      waitingFor: followed.service?.waitingFor ?? "",
      ...(verify === undefined ? {} : { verify }),
    };
    if (!io.terminal) {
      // A countdown in a log is noise.
      const { verify: said, ...rest } = picture;
      const plain = said === undefined || outcome.kind === "verifying" ? rest : picture;
      for (const line of progressNews(plain, this.#shown)) io.out(`${line}\n`);
      return;
    }
    const lines = progressLines(picture, io.columns);
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A\r` : "";
    io.out(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}\u001b[J`);
    this.#drawn = lines.length;
  }

  #verifyText(outcome: Outcome): string | undefined {
    if (outcome.kind === "converged") return `Service ${this.#target.name} converged`;
    if (outcome.kind !== "verifying") return undefined;
    const seconds = Math.ceil(outcome.leftMs / 1000);
    const unit = seconds === 1 ? "second" : "seconds";
    return `Waiting ${seconds} ${unit} to verify that tasks are stable...`;
  }

  #fail(reason: string): number {
    this.#invocation.io.err(`swarmctl: service ${escapeControls(this.#target.name)}: ${escapeControls(reason)}\n`);
    return 1;
  }

  #timeoutReason({ outcome, followed }: Partial<FollowedOutcome>): string {
    const slots = outcome === undefined || outcome.kind === "unknown" ? [] : outcome.verdict.slots;
    const stuck = slots.find(({ reason }) => reason !== "");
    const task = stuck === undefined ? "" : `: task ${this.#target.name}.${stuck.name}: ${stuck.reason}`;
    const held = followed?.service?.waitingFor;
    const why = held ? `: it waits for ${held}` : task;
    const within = formatDurationMs(durationFlagMs(this.#invocation.flags, "timeout") ?? 0);
    return `not converged within ${within}; the change stays and goes on in the background${why}`;
  }

  #interrupted(): number {
    const { name, serviceId } = this.#target;
    this.#invocation.io.err(
      `Operation continuing in background: the change to ${escapeControls(name)} stays. See 'swarmctl service ps ${serviceId}'.\n`,
    );
    return 130;
  }
}
