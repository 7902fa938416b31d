/** What kind of network an address belongs to: a public registry must not send us to a private one. */
import { BlockList, isIP } from "node:net";

/** `link-local` holds the clouds' metadata services and is never a place to log in. */
export type AddressKind = "public" | "private" | "loopback" | "link-local";

const KINDS: readonly (readonly [AddressKind, readonly (readonly [string, number])[]])[] = [
  [
    "loopback",
    [
      ["127.0.0.0", 8],
      ["::1", 128],
    ],
  ],
  [
    "link-local",
    [
      ["169.254.0.0", 16],
      ["fe80::", 10],
    ],
  ],
  [
    "private",
    [
      ["0.0.0.0", 8],
      ["10.0.0.0", 8],
      ["100.64.0.0", 10],
      ["172.16.0.0", 12],
      ["192.168.0.0", 16],
      ["fc00::", 7],
      ["::", 128],
    ],
  ],
];

const LISTS = KINDS.map(([kind, networks]) => {
  const list = new BlockList();
  for (const [network, prefix] of networks) list.addSubnet(network, prefix, network.includes(":") ? "ipv6" : "ipv4");
  return { kind, list };
});

/** The kind of an IP address; IPv4 within IPv6 counts as what it is. Whatever is no address counts as private. */
export function addressKind(address: string): AddressKind {
  const plain = address.replace(/^::ffff:(?=[0-9.]+$)/i, "");
  const family = isIP(plain);
  if (family === 0) return "private";
  return LISTS.find(({ list }) => list.check(plain, family === 6 ? "ipv6" : "ipv4"))?.kind ?? "public";
}
