/** What the tests of encrypted networks share: addresses, keys, and a tap on the wire between the hosts. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generatePrivateKey } from "../../../agent/network/wireguard-key.ts";
import type { Lab, LabHost } from "../../network-lab.ts";

export const POOL = "10.224.0.0/12";
/** The tasks of hosts 1 and 2 on the encrypted network. */
export const SECRET = ["10.0.5.11", "10.0.5.12"] as const;
export const SECRET6 = ["fd05::11", "fd05::12"] as const;

/** Kinds of packets on the wire; `other` is TCP and UDP to any port but WireGuard's. */
type Kind = "vxlan" | "sealed" | "secret" | "broken" | "other";

/** A private WireGuard key, hexadecimal. */
export function newKey(): string {
  return Buffer.from(generatePrivateKey()).toString("hex");
}

/** Of a host, on the wire. */
export function address(host: number): string {
  return `192.0.2.${host}`;
}

/** The lab's host of a number, from 1. */
export function hostOf(lab: Lab, number: number): LabHost {
  const found = lab.hosts[number - 1];
  if (found === undefined) throw new Error(`no host ${number}`);
  return found;
}

/** Taps what comes out of each host, from now on. */
export async function tap(lab: Lab): Promise<void> {
  const chains = lab.hosts.map(
    (_, index) => `
      chain port${index + 1} {
        type filter hook ingress device "port${index + 1}" priority 0;
        udp dport 4789 counter comment "vxlan"
        udp dport 4790 counter comment "sealed"
        ip saddr 10.0.5.0/24 counter comment "secret"
        ip daddr 10.0.5.0/24 counter comment "secret"
        ip6 saddr fd05::/64 counter comment "secret"
        ip6 daddr fd05::/64 counter comment "secret"
        ip frag-off & 0x3fff != 0 counter comment "broken"
        meta l4proto { tcp, udp } th dport != 4790 counter comment "other"
      }`,
  );
  const script = join(lab.directory, "tap");
  await writeFile(script, `table netdev tap\ndelete table netdev tap\ntable netdev tap {${chains.join("\n")}\n}\n`);
  await lab.inClient("nft", "-f", script);
}

/** How many packets of each kind came out of the hosts since `tap`. */
export async function tapped(lab: Lab): Promise<Record<Kind, number>> {
  const listing = await lab.inClient("nft", "list", "table", "netdev", "tap");
  const counts = { vxlan: 0, sealed: 0, secret: 0, broken: 0, other: 0 };
  for (const [, packets, kind] of listing.matchAll(/counter packets (\d+) bytes \d+ comment "(\w+)"/g)) {
    counts[kind as Kind] += Number(packets);
  }
  return counts;
}
