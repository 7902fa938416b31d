/**
 * Addresses of the cluster's pool. An address is taken from where the last one was left (next fit), so that a freed one
 * comes back as late as possible: nobody who still remembers it reaches the wrong task.
 */
import { SwarmError } from "../../common/base/error.ts";

/** An IPv4 network in CIDR form, as numbers. */
interface Network {
  readonly first: number;
  readonly size: number;
  readonly prefix: number;
}

function parseNetwork(cidr: string): Network {
  const [, address = "", prefixText = ""] = /^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/.exec(cidr) ?? [];
  const prefix = Number(prefixText);
  const octets = address.split(".").map(Number);
  if (octets.length !== 4 || octets.some((octet) => octet > 255) || prefix < 8 || prefix > 29) {
    throw new SwarmError("invalid_argument", `address pool "${cidr}": expected an IPv4 network from /8 to /29`);
  }
  const number = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const size = 2 ** (32 - prefix);
  return { first: number - (number % size), size, prefix };
}

function formatAddress(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");
}

function parseAddress(text: string): number {
  return text
    .replace(/\/\d+$/, "")
    .split(".")
    .reduce((sum, octet) => sum * 256 + Number(octet), 0);
}

export class AddressPool {
  readonly #network: Network;
  readonly #used = new Set<number>();
  #cursor = 1;

  /** `cidr`: the pool; its first address belongs to the bridge of every host. Throws `invalid_argument`. */
  constructor(cidr: string) {
    this.#network = parseNetwork(cidr);
  }

  /** Takes a free address with the pool's prefix length ("10.224.0.7/12"); undefined when none is left. */
  allocate(): string | undefined {
    const { first, size, prefix } = this.#network;
    // Offsets 0 (the network), 1 (the bridges) and the last (broadcast) are never given.
    if (this.#used.size >= size - 3) return undefined;
    do {
      this.#cursor = this.#cursor + 1 >= size - 1 ? 2 : this.#cursor + 1;
    } while (this.#used.has(first + this.#cursor));
    this.#used.add(first + this.#cursor);
    return `${formatAddress(first + this.#cursor)}/${prefix}`;
  }

  /** Marks an address found in the store as taken, and goes on after it. */
  reserve(address: string): void {
    const number = parseAddress(address);
    this.#used.add(number);
    const offset = number - this.#network.first;
    if (offset > this.#cursor && offset < this.#network.size - 1) this.#cursor = offset;
  }

  /** Gives an address back. */
  release(address: string): void {
    this.#used.delete(parseAddress(address));
  }
}
