/**
 * Keeps a session with one of the cluster's managers: opens it, beats, learns the managers' list, and moves on to another
 * manager when it breaks. What travels over the session is the affair of `serve`.
 */
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { abortReason, type Clock, withTimeout } from "../common/base/clock.ts";
import { type ErrorCode, SwarmError } from "../common/base/error.ts";
import { type NodeId, newId, type SessionId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { pick, type Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { HEARTBEAT_PERIOD_MS_DEFAULT } from "../common/model/defaults.ts";
import { type Client, createClient, type Transport } from "../common/rpc/service.ts";
import { Dispatcher, LogBroker, type SessionMessage, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { NodeDescription } from "../proto/gen/swarm/v1/types_pb.js";
import type { NetworkSettings } from "./executor.ts";

/** SwarmKit's bounds: a lower first delay would stampede a manager that restarts, a higher cap slow the recovery. */
const RECONNECT: BackoffOptions = { delayMsMin: 100, delayMsMax: 8_000 };
/**
 * How long a manager may take to register the node before another one is tried; where no other is known there is nothing to gain by
 * giving up. Twice as long after each time that was too short, up to the most: a manager to which a thousand nodes come back at once
 * would have them all give up and stand at the end of its queue again.
 */
const REGISTER_MS_MIN = 5_000;
const REGISTER_MS_MAX = 20_000;
/** Missed beats that end a session at the manager; so do as many that are not answered here. */
const BEATS_MISSED_MAX = 3;

/** What only somebody can change, while the node's containers run on. */
const REFUSALS: Partial<Readonly<Record<ErrorCode, string>>> = {
  already_exists: "another agent has this node's identity, and with it the node's tasks: this one stands by",
  permission_denied: "managers refuse this node: it must join again with a token (swarmctl swarm join)",
  unauthenticated:
    "managers do not take this node's certificate: it must join again with a token (swarmctl swarm join)",
};

/** Opens a way to the manager at `address` ("host:port"). It must not wait for the connection. */
export type Connect = (address: string) => Transport;

/** The managers' addresses: those configured, and those that managers told of, which come first. */
export class ManagerList {
  readonly #configured: readonly string[];
  #learned: readonly string[] = [];

  constructor(configured: readonly string[]) {
    this.#configured = configured;
  }

  /** Takes the newest list; an empty one tells nothing. */
  learn(addresses: readonly string[]): void {
    if (addresses.length > 0) this.#learned = addresses;
  }

  get all(): readonly string[] {
    return [...new Set([...this.#learned, ...this.#configured])];
  }
}

/** A registered connection to one manager. */
export interface Session {
  readonly nodeId: NodeId;
  readonly sessionId: SessionId;
  readonly address: string;
  readonly transport: Transport;
  readonly dispatcher: Client<typeof Dispatcher>;
  readonly logBroker: Client<typeof LogBroker>;
  readonly streamBroker: Client<typeof StreamBroker>;
}

/** What a session keeper needs. */
export interface SessionKeeperOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly nodeId: NodeId;
  readonly managers: ManagerList;
  readonly connect: Connect;
  readonly describe: () => Promise<NodeDescription>;
  /** Told by each session, before `serve`. */
  readonly configure: (settings: NetworkSettings, signal: AbortSignal) => Promise<void>;
  /** Hears what managers say of the cluster and of this node. */
  readonly heard?: (message: SessionMessage) => void;
  /** Hears that managers do not want this node as it is. */
  readonly refused?: (failure: SwarmError) => void;
  /** What lives as long as one session; its failure ends the session. */
  readonly serve: (session: Session, signal: AbortSignal) => Promise<void>;
}

export class SessionKeeper {
  readonly #options: SessionKeeperOptions;
  readonly #backoff: Backoff;
  readonly #instanceId: string;
  #failedAddress: string | undefined;
  #sessionId = "";
  #registerMs = REGISTER_MS_MIN;
  #lost = false;
  #refusal: string | undefined;

  constructor(options: SessionKeeperOptions) {
    this.#options = options;
    this.#backoff = new Backoff(RECONNECT, options.random);
    this.#instanceId = newId(options.random);
  }

  /** Keeps sessions, one after the other, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<never> {
    const { clock } = this.#options;
    while (true) {
      const address = this.#nextAddress();
      try {
        await this.#hold(address, signal);
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        this.#failedAddress = address;
        this.#tellEnd(address, SwarmError.from(reason));
      }
      await clock.sleep(this.#backoff.nextDelayMs(), signal);
    }
  }

  /** Tells the first failure of a row, and that it is refused; the tries that follow are told only to who looks for them. */
  #tellEnd(manager: string, failure: SwarmError): void {
    const { logger, refused } = this.#options;
    const { code, message } = failure;
    const refusal = REFUSALS[code];
    if (refusal !== undefined && refusal !== this.#refusal) logger.error({ manager, code, reason: message }, refusal);
    else if (!this.#lost) logger.warn({ manager, code, reason: message }, "no session with a manager, trying again");
    else logger.debug({ manager, code, reason: message }, "no session with a manager, trying again");
    this.#lost = true;
    this.#refusal = refusal;
    if (refusal !== undefined) refused?.(failure);
  }

  /** Any known manager, but not the one that just failed while there is another. */
  #nextAddress(): string {
    const known = this.#options.managers.all;
    const others = known.filter((address) => address !== this.#failedAddress);
    const address = pick(this.#options.random, others.length > 0 ? others : known);
    if (address === undefined) throw new SwarmError("failed_precondition", "no manager is known: name one");
    return address;
  }

  async #hold(address: string, signal: AbortSignal): Promise<void> {
    await using transport = this.#options.connect(address);
    const failure = await this.#holdOver(transport, address, signal);
    // The transport is closed only after everything that uses it has stopped.
    if (failure) throw failure;
  }

  async #holdOver(transport: Transport, address: string, signal: AbortSignal): Promise<SwarmError | undefined> {
    const { nodeId, managers, describe, configure, serve, logger, clock } = this.#options;
    const dispatcher = createClient(Dispatcher, transport);
    const logBroker = createClient(LogBroker, transport);
    const streamBroker = createClient(StreamBroker, transport);
    const description = await describe();
    await using scope = new Scope(signal);
    const messages = dispatcher
      .openSession(
        { nodeId, description, previousSessionId: this.#sessionId, instanceId: this.#instanceId },
        { signal: scope.signal },
      )
      [Symbol.asyncIterator]();
    const timeoutMs = managers.all.length > 1 ? this.#registerMs : REGISTER_MS_MAX;
    const register = { clock, timeoutMs, operation: `register at manager ${address}` };
    const first = await withTimeout(register, scope.signal, () => messages.next()).catch((reason: SwarmError) => {
      const isLate = reason.code === "deadline_exceeded";
      if (isLate) this.#registerMs = Math.min(2 * this.#registerMs, REGISTER_MS_MAX);
      throw reason;
    });
    this.#registerMs = REGISTER_MS_MIN;
    if (first.done) return new SwarmError("unavailable", `manager ${address} closed the session`);
    const sessionId = this.#learn(first.value);
    const { addressPool, nodeAddress, dataPathPort } = first.value;
    await configure({ addressPool, nodeAddress, dataPathPort }, scope.signal);
    const session: Session = { nodeId, sessionId, address, transport, dispatcher, logBroker, streamBroker };
    this.#lost = false;
    this.#refusal = undefined;
    logger.info({ manager: address, sessionId }, "session opened");
    scope.spawn("session", () => this.#listen(messages, address));
    scope.spawn("heartbeat", (inner) => this.#beat(session, periodMs(first.value), inner));
    scope.spawn("serve", (inner) => serve(session, inner));
    try {
      await scope.join();
      return undefined;
    } catch (reason) {
      return SwarmError.from(reason);
    }
  }

  #learn(message: SessionMessage): SessionId {
    this.#sessionId = message.sessionId;
    this.#options.managers.learn(message.managers.map(({ address }) => address));
    this.#options.heard?.(message);
    return message.sessionId as SessionId;
  }

  async #listen(messages: AsyncIterator<SessionMessage>, address: string): Promise<void> {
    while (true) {
      const next = await messages.next();
      if (next.done) throw new SwarmError("unavailable", `manager ${address} closed the session`);
      this.#learn(next.value);
    }
  }

  /** Beats a little more often than asked for, so that nodes do not beat in step and a late timer is not a missed beat. */
  async #beat(session: Session, initialPeriodMs: number, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const { nodeId, sessionId, address, dispatcher } = session;
    let period = initialPeriodMs;
    const beats = async function* () {
      while (true) {
        await clock.sleep(period * (0.8 + 0.2 * random.next()), signal);
        yield { nodeId, sessionId };
      }
    };
    const answers = dispatcher.heartbeat(beats(), { signal })[Symbol.asyncIterator]();
    while (true) {
      const wait = { clock, timeoutMs: period * (1 + BEATS_MISSED_MAX), operation: `heartbeat at manager ${address}` };
      const answer = await withTimeout(wait, signal, () => answers.next());
      if (answer.done) throw new SwarmError("unavailable", `manager ${address} takes no more heartbeats`);
      period = periodMs({ heartbeatPeriod: answer.value.period });
      this.#backoff.reset();
      this.#failedAddress = undefined;
    }
  }
}

function periodMs(message: { readonly heartbeatPeriod?: SessionMessage["heartbeatPeriod"] }): number {
  const period = message.heartbeatPeriod ? durationMs(message.heartbeatPeriod) : 0;
  return period > 0 ? period : HEARTBEAT_PERIOD_MS_DEFAULT;
}
