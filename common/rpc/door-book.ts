/**
 * Who is at a door that is open to the network, and whether one more may come. Pure but for the clock that it is handed.
 *
 *   arrives ─▶ stranger ── shows a certificate ─▶ member ─▶ leaves
 *                 └── leaves, or is sent away for one that came later
 *
 * Strangers cost the most and deserve the least: whoever has no certificate yet is bounded per address, in rate and in number, and
 * in whole. One address cannot fill the door; many together push out the strangers that have been there longest, never a member.
 */
import { isIPv6 } from "node:net";
import type { Clock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";

/** What a door takes. */
export interface DoorLimits {
  /**
   * Connections in whole. Default 20,000: three for each of 5,000 nodes, and people. Each that is open costs about 60 KB; above it
   * everybody is refused.
   */
  readonly connectionsMax: number;
  /**
   * Connections under one certificate. Default 128: an agent has three, a script of many swarmctl at once some dozens. More is a
   * certificate that was stolen, or a client gone mad.
   */
  readonly perCertificateMax: number;
  /** Connections without a certificate yet, in whole. Default 2,000; then the oldest of them goes. */
  readonly strangersMax: number;
  /**
   * The same of one address, which is an IPv4 address or an IPv6 /64. Default 500. Hosts behind one address that all come at once,
   * as when a manager starts again, are not above it for longer than their handshakes take.
   */
  readonly strangersPerAddressMax: number;
  /**
   * Strangers a second of one address, in the long run; `strangersPerAddressMax` may come at once. Default 50: each costs about
   * 2 ms of the manager's only thread, so one address gets a tenth of it. Who then shows a certificate does not count.
   */
  readonly strangersPerAddressPerSecond: number;
}

/** The defaults. */
export const DOOR_LIMITS: DoorLimits = {
  connectionsMax: 20_000,
  perCertificateMax: 128,
  strangersMax: 2_000,
  strangersPerAddressMax: 500,
  strangersPerAddressPerSecond: 50,
};

/** Addresses that are remembered though nobody of theirs is there: for as long as it takes to forgive them, and no more of them. */
const QUIET_ADDRESSES_MAX = 10_000;

/** One connection. */
export interface Guest {
  readonly address: string;
  /** Of its certificate, once it has shown one. */
  fingerprint?: string;
  /** Closes it. */
  readonly leave: () => void;
}

/** What an address has left to spend on strangers. */
interface Purse {
  strangers: number;
  credit: number;
  sinceMs: number;
}

/** The book of one door. */
export class DoorBook {
  readonly #clock: Clock;
  readonly #limits: DoorLimits;
  /** In the order in which they came. */
  readonly #strangers = new Set<Guest>();
  readonly #purses = new Map<string, Purse>();
  readonly #members = new Map<string, number>();
  #memberCount = 0;

  constructor(clock: Clock, limits: DoorLimits = DOOR_LIMITS) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Connections that are open. */
  get size(): number {
    return this.#strangers.size + this.#memberCount;
  }

  /** Lets a stranger in, perhaps in another's place. Throws `resource_exhausted` that says which limit it is over. */
  arrive(guest: Guest): void {
    const { connectionsMax, strangersMax, strangersPerAddressMax } = this.#limits;
    if (this.size >= connectionsMax) throw full(`${connectionsMax} connections`);
    const purse = this.#purseOf(guest.address);
    if (purse.strangers >= strangersPerAddressMax) {
      throw full(`${strangersPerAddressMax} connections without a certificate from one address`);
    }
    if (purse.credit < 1) {
      throw full(`${this.#limits.strangersPerAddressPerSecond} connections without a certificate a second`);
    }
    purse.credit -= 1;
    purse.strangers += 1;
    const [oldest] = this.#strangers;
    if (oldest && this.#strangers.size >= strangersMax) {
      this.left(oldest);
      oldest.leave();
    }
    this.#strangers.add(guest);
  }

  /** It has shown a certificate. Throws `resource_exhausted`, and it stays a stranger. */
  identified(guest: Guest, fingerprint: string): void {
    if (!this.#strangers.has(guest)) return;
    const count = this.#members.get(fingerprint) ?? 0;
    const { perCertificateMax, strangersPerAddressMax } = this.#limits;
    if (count >= perCertificateMax) throw full(`${perCertificateMax} connections under one certificate`);
    this.#goes(guest);
    const purse = this.#purseOf(guest.address);
    purse.credit = Math.min(strangersPerAddressMax, purse.credit + 1);
    guest.fingerprint = fingerprint;
    this.#members.set(fingerprint, count + 1);
    this.#memberCount += 1;
  }

  /** It is no longer there; said once or more often. */
  left(guest: Guest): void {
    if (this.#goes(guest) || guest.fingerprint === undefined) return;
    const count = this.#members.get(guest.fingerprint) ?? 0;
    if (count > 1) this.#members.set(guest.fingerprint, count - 1);
    else this.#members.delete(guest.fingerprint);
    delete guest.fingerprint;
    this.#memberCount -= 1;
  }

  /** Whether it was a stranger, which it is no more. */
  #goes(guest: Guest): boolean {
    if (!this.#strangers.delete(guest)) return false;
    const purse = this.#purses.get(guest.address);
    if (purse) purse.strangers -= 1;
    return true;
  }

  #purseOf(address: string): Purse {
    const nowMs = this.#clock.monotonicMs();
    const { strangersPerAddressMax, strangersPerAddressPerSecond } = this.#limits;
    const known = this.#purses.get(address);
    if (known) {
      const earned = ((nowMs - known.sinceMs) / 1_000) * strangersPerAddressPerSecond;
      known.credit = Math.min(strangersPerAddressMax, known.credit + earned);
      known.sinceMs = nowMs;
      return known;
    }
    this.#forgetOne();
    const purse = { strangers: 0, credit: strangersPerAddressMax, sinceMs: nowMs };
    this.#purses.set(address, purse);
    return purse;
  }

  /** Of addresses beyond those that have somebody here, the one that has been known longest. */
  #forgetOne(): void {
    if (this.#purses.size < QUIET_ADDRESSES_MAX + this.#limits.strangersMax) return;
    for (const [address, { strangers }] of this.#purses) {
      if (strangers > 0) continue;
      this.#purses.delete(address);
      return;
    }
  }
}

function full(what: string): SwarmError {
  return new SwarmError("resource_exhausted", `no more than ${what}`);
}

/**
 * What counts as one address: an IPv4 address, however it is written, or the /64 of an IPv6 one, which is what a provider gives to
 * one customer.
 */
export function sourceOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(address)) return address;
  const [head = "", tail] = (address.split("%")[0] ?? "").split("::");
  const front = head === "" ? [] : head.split(":");
  const back = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, ...Array<string>(Math.max(0, zeros)).fill("0"), ...back].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}
