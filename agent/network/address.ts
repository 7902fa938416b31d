import { SwarmError } from "../../common/base/error.ts";
import { formatIpAddress, parseIpAddress } from "../../common/model/ip-prefix.ts";

/** An IPv4 address as a number in [0, 2^32). */
export type Ipv4 = number;

/** An IPv6 address as a number in [0, 2^128). */
export type Ipv6 = bigint;

/** An address of either family: its type tells which. */
export type Ip = Ipv4 | Ipv6;

/** 4 or 6. */
export type Family = 4 | 6;

/** A run of addresses that share their first `length` bits: a pool, a route, an interface's subnet. */
export interface Prefix<A extends Ip = Ip> {
  /** The address as written; host bits may be set ("10.224.0.7/12"). */
  readonly address: A;
  /** 0 to 32, of IPv6 to 128. */
  readonly length: number;
}

export type Ipv4Prefix = Prefix<Ipv4>;
export type Ipv6Prefix = Prefix<Ipv6>;

/**
 * The number of a dotted address; undefined when `text` is none (leading zeros are refused, as inet_pton does). By
 * characters, since each change of the cluster reads those of all its tasks.
 */
export function parseIpv4(text: string): Ipv4 | undefined {
  let address = 0;
  let parts = 0;
  /** -1: no digit yet. */
  let part = -1;
  for (let index = 0; index <= text.length; index++) {
    const digit = text.charCodeAt(index) - 48;
    if (index === text.length || text[index] === ".") {
      if (part < 0 || part > 255) return undefined;
      address = address * 256 + part;
      part = -1;
      parts++;
    } else if (digit >= 0 && digit <= 9 && part !== 0) {
      part = Math.max(part, 0) * 10 + digit;
    } else {
      return undefined;
    }
  }
  return parts === 4 ? address : undefined;
}

/** Reads "10.224.0.0/12". Throws `invalid_argument` that names the text. */
export function parsePrefix(text: string): Ipv4Prefix {
  const [addressText = "", lengthText = "", ...rest] = text.split("/");
  const address = parseIpv4(addressText);
  if (address === undefined || rest.length > 0 || !/^[0-9]{1,2}$/.test(lengthText) || Number(lengthText) > 32) {
    throw new SwarmError("invalid_argument", `${JSON.stringify(text)} is not an IPv4 prefix such as 10.224.0.0/12`);
  }
  return { address, length: Number(lengthText) };
}

/** The address of a text of either family; undefined when it is none. */
export function parseIp(text: string): Ip | undefined {
  if (!text.includes(":")) return parseIpv4(text);
  return parseIpAddress(text)?.value;
}

/** Reads a prefix of either family. Throws `invalid_argument` that names the text. */
export function parseIpPrefix(text: string): Prefix {
  if (!text.includes(":")) return parsePrefix(text);
  const [addressText = "", lengthText = "", ...rest] = text.split("/");
  const address = parseIpAddress(addressText)?.value;
  if (address === undefined || rest.length > 0 || !/^[0-9]{1,3}$/.test(lengthText) || Number(lengthText) > 128) {
    throw new SwarmError("invalid_argument", `${JSON.stringify(text)} is not an IPv6 prefix such as fd00::/64`);
  }
  return { address, length: Number(lengthText) };
}

/** For sorting: IPv4 first, then by number. */
export function compareIps(left: Ip, right: Ip): number {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return familyOf(left) - familyOf(right) || (left < right ? -1 : left > right ? 1 : 0);
}

export function familyOf(address: Ip): Family {
  return typeof address === "number" ? 4 : 6;
}

/** How many bits an address of its family has. */
export function bitsOf(address: Ip): number {
  return typeof address === "number" ? 32 : 128;
}

/** "10.224.0.7". */
export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** "10.224.0.7", "fd00::7". */
export function formatIp(address: Ip): string {
  return typeof address === "number" ? formatIpv4(address) : formatIpAddress({ family: 6, value: address });
}

/** "10.224.0.7/12", host bits as they are. */
export function formatPrefix({ address, length }: Prefix): string {
  return `${formatIp(address)}/${length}`;
}

/** The prefix without host bits: 10.224.0.7/12 → 10.224.0.0/12. */
export function networkOf<A extends Ip>({ address, length }: Prefix<A>): Prefix<A> {
  return { address: firstOf(address, length) as A, length };
}

function firstOf(address: Ip, length: number): Ip {
  if (typeof address === "bigint") return (address >> BigInt(128 - length)) << BigInt(128 - length);
  const size = 2 ** (32 - length);
  return Math.floor(address / size) * size;
}

/** Whether `address` lies in `prefix`. */
export function contains(prefix: Prefix, address: Ip): boolean {
  return (
    familyOf(prefix.address) === familyOf(address) && firstOf(address, prefix.length) === networkOf(prefix).address
  );
}

/** Whether the two share an address, that is, whether one contains the other. */
export function overlaps(one: Prefix, other: Prefix): boolean {
  const wider = one.length <= other.length ? one : other;
  return contains(wider, wider === one ? other.address : one.address);
}

/** The pool's first address: every host's bridge holds it, so that a task's gateway is always next door. */
export function gatewayOf(pool: Ipv4Prefix): Ipv4 {
  return networkOf(pool).address + 1;
}

/**
 * 02:42 and the four bytes of the address. Locally administered; unique where addresses are, and it stays with the
 * address, so a neighbour that remembers the last task of an address is not wrong about the next one.
 */
export function macOf(address: Ipv4): Uint8Array {
  return Uint8Array.of(0x02, 0x42, ...ipv4Bytes(address));
}

/** The four bytes of an address in network order. */
export function ipv4Bytes(address: Ipv4): Uint8Array {
  return Uint8Array.of(address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255);
}

/** The 4 or 16 bytes of an address in network order. */
export function ipBytes(address: Ip): Uint8Array {
  if (typeof address === "number") return ipv4Bytes(address);
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, address >> 64n);
  view.setBigUint64(8, address & 0xffff_ffff_ffff_ffffn);
  return bytes;
}

/** The address of four bytes in network order; undefined when there are not four. */
export function ipv4FromBytes(bytes: Uint8Array): Ipv4 | undefined {
  if (bytes.length !== 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
}

/** The address of 4 or 16 bytes in network order; undefined for another number. */
export function ipFromBytes(bytes: Uint8Array): Ip | undefined {
  if (bytes.length !== 16) return ipv4FromBytes(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  return (view.getBigUint64(0) << 64n) | view.getBigUint64(8);
}
