/** The members of the managers' own etcd, by etcd's cluster API. */
import type { ClusterClient } from "etcd3";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { peerUrl } from "./embedded-etcd.ts";
import { readError } from "./etcd-errors.ts";

/** One of them. */
export interface EtcdMember {
  readonly id: string;
  /** Empty until it has started for the first time. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  /** It has no vote yet. */
  readonly isLearner: boolean;
}

const CALL_TIMEOUT_MS = 5_000;
/** How often a learner is offered its vote: it is refused until it has caught up. */
const PROMOTE_EVERY_MS = 250;

/** etcd's healthInterval, and a little more. */
const SETTLED_MS_MAX = 8_000;
const UNHEALTHY = "too few managers are healthy to take one in or out";

export class EtcdMembers {
  readonly #client: ClusterClient;
  readonly #clock: Clock;

  constructor(client: ClusterClient, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
  }

  async list(): Promise<readonly EtcdMember[]> {
    const { members } = await this.#call("list the store's members", (options) => this.#client.memberList({}, options));
    return members.map(({ ID: id, name, peerURLs: peerUrls, isLearner }) => ({ id, name, peerUrls, isLearner }));
  }

  /**
   * Adds a member that has not started yet, without a vote.
   * @throws failed_precondition: another one is being taken in, or too few members are healthy.
   */
  async addLearner(address: string, signal: AbortSignal): Promise<EtcdMember> {
    const request = { peerURLs: [peerUrl(address)], isLearner: true };
    const { member } = await this.#settled(signal, () =>
      this.#call("add a member to the store", (options) => this.#client.memberAdd(request, options)),
    );
    return { id: member.ID, name: "", peerUrls: member.peerURLs, isLearner: true };
  }

  /** Gives a learner its vote as soon as it has caught up. Throws `deadline_exceeded` when it does not in the time. */
  async promote(id: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
    const untilMs = this.#clock.monotonicMs() + timeoutMs;
    for (let refusal: unknown; ; ) {
      try {
        await this.#call("give the new member its vote", (options) => this.#client.memberPromote({ ID: id }, options));
        return;
      } catch (reason) {
        refusal = reason;
      }
      if (this.#clock.monotonicMs() >= untilMs) {
        throw SwarmError.wrap(`the new member of the store has not caught up in ${timeoutMs} ms`, refusal);
      }
      await this.#clock.sleep(PROMOTE_EVERY_MS, signal);
    }
  }

  /** Takes a member out, running or not. One that is not there is fine. */
  async remove(id: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#settled(signal, () =>
        this.#call("remove a member of the store", (options) => this.#client.memberRemove({ ID: id }, options)),
      );
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
    }
  }

  /** Again, as long as etcd has not seen all its members for the 5 s that it wants before it changes them. */
  async #settled<T>(signal: AbortSignal, change: () => Promise<T>): Promise<T> {
    const untilMs = this.#clock.monotonicMs() + SETTLED_MS_MAX;
    while (true) {
      try {
        return await change();
      } catch (reason) {
        const waits = reason instanceof SwarmError && reason.message === UNHEALTHY;
        if (!waits || this.#clock.monotonicMs() >= untilMs) throw reason;
      }
      await this.#clock.sleep(PROMOTE_EVERY_MS, signal);
    }
  }

  async #call<T>(operation: string, call: (options: { readonly deadline: number }) => Promise<T>): Promise<T> {
    try {
      return await call({ deadline: this.#clock.nowMs() + CALL_TIMEOUT_MS });
    } catch (reason) {
      throw explained(readError(operation, reason));
    }
  }
}

/** etcd's own words are for people who run etcd. */
function explained(error: SwarmError): SwarmError {
  const { message } = error;
  const refused = (problem: string) => new SwarmError("failed_precondition", problem, { cause: error });
  if (message.includes("too many learner"))
    return refused("another manager is just being taken in: try again in a moment");
  if (message.includes("unhealthy cluster")) return refused(UNHEALTHY);
  if (message.includes("not enough started members")) return refused("too few managers would be left to agree");
  if (message.includes("member not found")) return new SwarmError("not_found", message, { cause: error });
  return error;
}
