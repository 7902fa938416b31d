/**
 * Every address of the cluster that is taken, and by which task or service. Networks overlap nowhere, so an address needs no
 * network beside it, and what a removed network's tasks still have nobody else gets.
 */
import { formatIpAddress, type IpPrefix, networkOf, parseIpAddress, sizeOf } from "../../common/model/ip-prefix.ts";

/** IPv4 addresses as numbers, of which there may be a million; IPv6 ones as text. */
type AddressKey = number | string;

/** Offsets of an IPv6 subnet that are used: more than there can be tasks. */
const IPV6_SIZE_MAX = 2 ** 32;

export class AddressBook {
  readonly #holders = new Map<AddressKey, string>();
  #releases = 0;

  /** How often an address has been given back. */
  get releases(): number {
    return this.#releases;
  }

  get size(): number {
    return this.#holders.size;
  }

  /** The id of the task or service that has an address; it may carry a prefix length. */
  holderOf(address: string): string | undefined {
    return this.holderAt(keyOf(address));
  }

  holderAt(key: AddressKey): string | undefined {
    return this.#holders.get(key);
  }

  /** All that is taken, addresses without lengths. */
  *entries(): Iterable<{ readonly address: string; readonly holder: string }> {
    for (const [key, holder] of this.#holders) {
      yield { address: typeof key === "number" ? formatIpv4(key) : key, holder };
    }
  }

  /** Whoever had it before has it no more. */
  take(address: string, holder: string): void {
    this.#holders.set(keyOf(address), holder);
  }

  /** Gives an address back, if it is the holder's. */
  release(address: string, holder: string): void {
    const key = keyOf(address);
    if (this.#holders.get(key) !== holder) return;
    this.#holders.delete(key);
    this.#releases += 1;
  }
}

/** Where a network's addresses are taken from. */
export interface RangeOptions {
  readonly subnet: IpPrefix;
  /** A part of it; default all. */
  readonly range?: IpPrefix | undefined;
  /** Addresses that nobody gets. */
  readonly reserved: readonly string[];
}

/**
 * Free addresses of one subnet. One is taken from where the last one was left (next fit), so that a freed one comes back as late
 * as possible: nobody who still remembers it reaches the wrong task.
 */
export class AddressRange {
  readonly #book: AddressBook;
  readonly #subnet: IpPrefix;
  readonly #reserved: ReadonlySet<AddressKey>;
  /** The first address of the range, and how many it has. */
  readonly #first: bigint;
  readonly #size: number;
  /** The same for IPv4: BigInts would take most of the time that a task takes. */
  readonly #firstNumber: number;
  /** What addresses begin with that differ from the subnet's in their last 32 bits only; undefined where that depends. */
  readonly #ipv6Base: string | undefined;
  #cursor = -1;
  /** The book's releases when nothing was free. */
  #fullAt: number | undefined;

  constructor(book: AddressBook, { subnet, range, reserved }: RangeOptions) {
    this.#book = book;
    this.#subnet = subnet;
    this.#reserved = new Set(reserved.map(keyOf));
    const within = networkOf(range ?? subnet);
    const whole = networkOf(subnet);
    // Never the first address of the subnet, which means the subnet, nor the last of an IPv4 one, which is for broadcasts.
    const first = within.value === whole.value ? whole.value + 1n : within.value;
    const end = whole.value + sizeOf(whole) - (subnet.family === 4 ? 1n : 0n);
    const last = within.value + sizeOf(within);
    this.#first = first;
    this.#size = Math.min(Number((last < end ? last : end) - first), IPV6_SIZE_MAX);
    this.#firstNumber = subnet.family === 4 ? Number(first) : 0;
    this.#ipv6Base = subnet.family === 6 && within.value === whole.value ? ipv6Base(whole) : undefined;
  }

  /** Takes a free address with the subnet's prefix length ("10.0.1.7/24"); undefined when none is left. */
  allocate(holder: string): string | undefined {
    if (this.#fullAt === this.#book.releases) return undefined;
    for (let tries = 0; tries < this.#size; tries++) {
      this.#cursor = (this.#cursor + 1) % this.#size;
      const key = this.#keyAt(this.#cursor);
      if (this.#reserved.has(key) || this.#book.holderAt(key) !== undefined) continue;
      const address = this.#textAt(this.#cursor);
      this.#book.take(address, holder);
      return `${address}/${this.#subnet.length}`;
    }
    this.#fullAt = this.#book.releases;
    return undefined;
  }

  /** Goes on after an address that the store has. */
  passOver(address: string): void {
    const offset = this.#offsetOf(keyOf(address));
    if (offset !== undefined && offset > this.#cursor && offset < this.#size) this.#cursor = offset;
  }

  #offsetOf(key: AddressKey): number | undefined {
    if (typeof key === "number") return this.#subnet.family === 4 ? key - this.#firstNumber : undefined;
    if (this.#subnet.family === 4) return undefined;
    const low = this.#ipv6Base !== undefined && key.startsWith(this.#ipv6Base) ? key.slice(this.#ipv6Base.length) : "";
    const groups = low.split(":");
    // The subnet's own address is no part of the range.
    if (low !== "" && groups.length <= 2) {
      return groups.reduce((sum, group) => sum * 0x10000 + Number.parseInt(group, 16), 0) - 1;
    }
    const value = parseIpAddress(key)?.value;
    return value === undefined ? undefined : Number(value - this.#first);
  }

  #keyAt(offset: number): AddressKey {
    return this.#subnet.family === 4 ? this.#firstNumber + offset : this.#textAt(offset);
  }

  #textAt(offset: number): string {
    if (this.#subnet.family === 4) return formatIpv4(this.#firstNumber + offset);
    if (this.#ipv6Base !== undefined) return `${this.#ipv6Base}${lowGroups(offset + 1)}`;
    return formatIpAddress({ family: 6, value: this.#first + BigInt(offset) });
  }
}

function formatIpv4(number: number): string {
  return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
}

/** "fd00::" of fd00::/64; undefined where the texts of its addresses do not all begin with the subnet's. */
function ipv6Base(subnet: IpPrefix): string | undefined {
  const base = formatIpAddress(subnet);
  const text = (low: bigint) => formatIpAddress({ family: 6, value: subnet.value + low });
  const samples = [1, 0xffff, 0x10000, IPV6_SIZE_MAX - 1];
  const isPlain = base.endsWith("::") && samples.every((low) => text(BigInt(low)) === base + lowGroups(low));
  return isPlain ? base : undefined;
}

/** "1f", "2:1f". */
function lowGroups(low: number): string {
  const last = (low % 0x10000).toString(16);
  return low < 0x10000 ? last : `${Math.floor(low / 0x10000).toString(16)}:${last}`;
}

function keyOf(address: string): AddressKey {
  const slash = address.indexOf("/");
  const text = slash < 0 ? address : address.slice(0, slash);
  if (text.includes(":")) return text;
  let number = 0;
  let octet = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === 46) {
      number = number * 256 + octet;
      octet = 0;
    } else octet = octet * 10 + code - 48;
  }
  return number * 256 + octet;
}
