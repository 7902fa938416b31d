import { SwarmError } from "../../common/base/error.ts";

/** An IPv4 address as a number in [0, 2^32). */
export type Ipv4 = number;

/** A run of addresses that share their first `length` bits: a pool, a route, an interface's subnet. */
export interface Ipv4Prefix {
  /** The address as written; host bits may be set ("10.224.0.7/12"). */
  readonly address: Ipv4;
  /** 0 to 32. */
  readonly length: number;
}

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

/** "10.224.0.7". */
export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** "10.224.0.7/12", host bits as they are. */
export function formatPrefix(prefix: Ipv4Prefix): string {
  return `${formatIpv4(prefix.address)}/${prefix.length}`;
}

/** The prefix without host bits: 10.224.0.7/12 → 10.224.0.0/12. */
export function networkOf(prefix: Ipv4Prefix): Ipv4Prefix {
  const size = 2 ** (32 - prefix.length);
  return { address: Math.floor(prefix.address / size) * size, length: prefix.length };
}

/** Whether `address` lies in `prefix`. */
export function contains(prefix: Ipv4Prefix, address: Ipv4): boolean {
  return networkOf({ address, length: prefix.length }).address === networkOf(prefix).address;
}

/** Whether the two share an address, that is, whether one contains the other. */
export function overlaps(one: Ipv4Prefix, other: Ipv4Prefix): boolean {
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
  return Uint8Array.of(0x02, 0x42, address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255);
}

/** The four bytes of an address in network order. */
export function ipv4Bytes(address: Ipv4): Uint8Array {
  return macOf(address).subarray(2);
}

/** The address of four bytes in network order; undefined when there are not four. */
export function ipv4FromBytes(bytes: Uint8Array): Ipv4 | undefined {
  if (bytes.length !== 4) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
}
