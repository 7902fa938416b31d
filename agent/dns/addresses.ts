/** Addresses as records have them, and as reverse names spell them (RFC 1035 §3.5, RFC 3596 §2.5). Pure. */
import { isIPv4, isIPv6 } from "node:net";

/** The bytes of an A or AAAA record; undefined for what is no address. */
export function addressBytes(address: string): Uint8Array | undefined {
  if (isIPv4(address)) return Uint8Array.from(address.split("."), Number);
  if (!isIPv6(address)) return undefined;
  const groups = hexGroups(address);
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255]));
}

/** The address that "7.1.0.10.in-addr.arpa" or a name below ip6.arpa asks for; undefined for other names. */
export function addressOfReverse(name: string): string | undefined {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (v4) {
    const address = v4.slice(1).reverse().join(".");
    return isIPv4(address) ? address : undefined;
  }
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name);
  if (!v6) return undefined;
  const digits = (v6[1] ?? "").split(".").reverse().join("");
  return canonical(digits.match(/.{4}/g)?.join(":") ?? "");
}

/** The one spelling of an IPv6 address by which names are kept (RFC 5952); an IPv4 one has but one. */
export function canonical(address: string): string {
  if (!isIPv6(address)) return address;
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

function hexGroups(address: string): readonly number[] {
  const [head = "", tail] = canonical(address).split("::");
  const parse = (part: string | undefined) => (part ? part.split(":").map((group) => Number.parseInt(group, 16)) : []);
  const [front, back] = [parse(head), parse(tail)];
  return [...front, ...Array.from({ length: 8 - front.length - back.length }, () => 0), ...back];
}
