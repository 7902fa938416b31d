/** The sessions that agents hold with this manager: who is here, whose heart beats, and who asks too often. */
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { newId, type SessionId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";
import type { Scope } from "../../common/base/scope.ts";
import { Wakeup } from "../../common/base/wakeup.ts";

/** SwarmKit's: a node may register three times in eight seconds. A loop of registrations writes to the store each time. */
const REGISTRATIONS_MAX = 3;
const REGISTRATION_WINDOW_MS = 8_000;
/** Beats that may be missed before the session ends. Fewer would end it for one lost packet. */
export const BEATS_MISSED_MAX = 3;
/** After this process stood still timers come before the beats that have arrived meanwhile: those are let in first. */
const SECOND_LOOK_MS = 100;

/** One agent's session with this manager. */
export interface AgentSession {
  readonly nodeId: string;
  readonly id: SessionId;
  /** Aborts when the session is over; everything that belongs to it ends with its reason. */
  readonly signal: AbortSignal;
  /** Wakes when the managers or the cluster's settings changed. */
  readonly news: Wakeup;
  end(reason: SwarmError): void;
}

interface Entry extends AgentSession {
  lastBeatMs: number;
}

export interface SessionsOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** How often agents are to beat, in ms. Read anew for each beat. */
  readonly heartbeatPeriodMs: () => number;
  /** Called once when a session's heart stopped. */
  readonly expired: (session: AgentSession) => Promise<void>;
}

/** The error that tells an agent to open a new session. */
export function sessionInvalid(why: string): SwarmError {
  return new SwarmError("failed_precondition", `session invalid: ${why}`);
}

/** All sessions, one per node. */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #scope: Scope;
  readonly #byNode = new Map<string, Entry>();
  /** When each node registered lately; who did last stands last. */
  readonly #registrations = new Map<string, readonly number[]>();

  /** `scope` owns the timers that watch the beats. */
  constructor(options: SessionsOptions, scope: Scope) {
    this.#options = options;
    this.#scope = scope;
  }

  /** @throws resource_exhausted when the node registers too often. */
  admit(nodeId: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    const isRecent = (atMs: number) => nowMs - atMs < REGISTRATION_WINDOW_MS;
    const recent = (this.#registrations.get(nodeId) ?? []).filter(isRecent);
    if (recent.length >= REGISTRATIONS_MAX) {
      const limit = `${REGISTRATIONS_MAX} times in ${REGISTRATION_WINDOW_MS / 1000} s`;
      throw new SwarmError("resource_exhausted", `node ${nodeId} registers more than ${limit}`);
    }
    // Nodes that are long gone leave the book here, from its older end: a thousand may come back at once.
    for (const [other, times] of this.#registrations) {
      if (times.some(isRecent)) break;
      this.#registrations.delete(other);
    }
    this.#registrations.delete(nodeId);
    this.#registrations.set(nodeId, [...recent, nowMs]);
  }

  /** A fresh session that nobody can use yet. */
  prepare(nodeId: string): AgentSession {
    const controller = new AbortController();
    const entry: Entry = {
      nodeId,
      id: newId<SessionId>(this.#options.random),
      signal: controller.signal,
      news: new Wakeup(),
      lastBeatMs: this.#options.clock.monotonicMs(),
      end: (reason) => {
        if (this.#byNode.get(nodeId) === entry) this.#byNode.delete(nodeId);
        controller.abort(reason);
      },
    };
    return entry;
  }

  /** Puts a prepared session in force; the node's former one here ends. */
  open(session: AgentSession): void {
    const entry = session as Entry;
    this.#byNode.get(entry.nodeId)?.end(sessionInvalid("the node opened a newer session"));
    this.#byNode.set(entry.nodeId, entry);
    entry.lastBeatMs = this.#options.clock.monotonicMs();
    this.#scope.spawn("watch heartbeats", (signal) => this.#watch(entry, signal));
  }

  get(nodeId: string): AgentSession | undefined {
    return this.#byNode.get(nodeId);
  }

  /** The session that a call names. @throws failed_precondition "session invalid" unless it is the node's current one. */
  require(nodeId: string, sessionId: string): AgentSession {
    const entry = this.#byNode.get(nodeId);
    if (entry?.id !== sessionId) throw sessionInvalid("unknown here, open a new one");
    return entry;
  }

  /** Notes a heartbeat. @throws failed_precondition as `require`. */
  beat(nodeId: string, sessionId: string): void {
    const entry = this.require(nodeId, sessionId) as Entry;
    entry.lastBeatMs = this.#options.clock.monotonicMs();
  }

  values(): Iterable<AgentSession> {
    return this.#byNode.values();
  }

  async #watch(entry: Entry, signal: AbortSignal): Promise<void> {
    const { clock, heartbeatPeriodMs, expired } = this.#options;
    const either = AbortSignal.any([signal, entry.signal]);
    for (let seenBeatMs: number | undefined; seenBeatMs !== entry.lastBeatMs; ) {
      const leftMs = entry.lastBeatMs + BEATS_MISSED_MAX * heartbeatPeriodMs() - clock.monotonicMs();
      if (leftMs <= 0) seenBeatMs = entry.lastBeatMs;
      try {
        await clock.sleep(leftMs > 0 ? leftMs : SECOND_LOOK_MS, either);
      } catch {
        return;
      }
    }
    entry.end(sessionInvalid(`no heartbeat in ${BEATS_MISSED_MAX * heartbeatPeriodMs()} ms`));
    await expired(entry);
  }
}
