/** IP addresses and prefixes of both families as numbers. Pure. */

/** An address; bigint, since IPv6 does not fit into a number. */
export interface IpAddress {
  readonly family: 4 | 6;
  readonly value: bigint;
}

/** The addresses that share their first `length` bits. `value` is as written: host bits may be set ("10.0.1.7/24"). */
export interface IpPrefix extends IpAddress {
  readonly length: number;
}

/** Bits of an address. */
export const ADDRESS_BITS = { 4: 32, 6: 128 } as const;

/** Undefined for a text that is no address: leading zeros, zones and IPv4 within IPv6 are refused. */
export function parseIpAddress(text: string): IpAddress | undefined {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

/** Reads "10.0.1.0/24" and "fd00::/64"; undefined for anything else. */
export function parseIpPrefix(text: string): IpPrefix | undefined {
  const [addressText = "", lengthText = "", ...rest] = text.split("/");
  const address = parseIpAddress(addressText);
  if (address === undefined || rest.length > 0 || !/^(?:0|[1-9][0-9]{0,2})$/.test(lengthText)) return undefined;
  const length = Number(lengthText);
  return length <= ADDRESS_BITS[address.family] ? { ...address, length } : undefined;
}

/** "10.0.1.7"; IPv6 as RFC 5952 has it. */
export function formatIpAddress({ family, value }: IpAddress): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => ((value >> BigInt(112 - index * 16)) & 0xffffn).toString(16));
  const zeros = longestZeros(groups);
  if (zeros.length < 2) return groups.join(":");
  return `${groups.slice(0, zeros.start).join(":")}::${groups.slice(zeros.start + zeros.length).join(":")}`;
}

/** "10.0.1.7/24", host bits as they are. */
export function formatIpPrefix(prefix: IpPrefix): string {
  return `${formatIpAddress(prefix)}/${prefix.length}`;
}

/** How many addresses it has. */
export function sizeOf({ family, length }: Pick<IpPrefix, "family" | "length">): bigint {
  return 1n << BigInt(ADDRESS_BITS[family] - length);
}

/** The prefix without host bits: 10.0.1.7/24 → 10.0.1.0/24. */
export function networkOf(prefix: IpPrefix): IpPrefix {
  return { ...prefix, value: prefix.value - (prefix.value % sizeOf(prefix)) };
}

/** The one at `offset` from the first. */
export function addressAt(prefix: IpPrefix, offset: bigint): IpAddress {
  return { family: prefix.family, value: networkOf(prefix).value + offset };
}

export function contains(prefix: IpPrefix, { family, value }: IpAddress): boolean {
  return prefix.family === family && networkOf({ ...prefix, value }).value === networkOf(prefix).value;
}

/** Whether the two share an address, that is, whether one contains the other. */
export function overlaps(one: IpPrefix, other: IpPrefix): boolean {
  return one.length <= other.length ? contains(one, other) : contains(other, one);
}

function parseIpv4(text: string): IpAddress | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)) {
    return undefined;
  }
  return { family: 4, value: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
}

function parseIpv6(text: string): IpAddress | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...Array<string>(missing).fill("0"), ...tail];
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  return { family: 6, value: groups.reduce((sum, group) => (sum << 16n) + BigInt(`0x${group}`), 0n) };
}

/** The first of the longest runs of zeros. */
function longestZeros(groups: readonly string[]): { readonly start: number; readonly length: number } {
  let [best, run] = [
    { start: 0, length: 0 },
    { start: 0, length: 0 },
  ];
  groups.forEach((group, index) => {
    if (group !== "0") run = { start: index + 1, length: 0 };
    else run = { ...run, length: run.length + 1 };
    if (run.length > best.length) best = run;
  });
  return best;
}
