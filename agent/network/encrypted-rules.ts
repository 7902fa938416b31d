/** The rules that keep encrypted networks out of the clear, whatever routes and hosts do. Pure. */

/** The way of what must not pass in clear: a fabric's device of its own, whose packets leave by a tunnel only. */
export interface EncryptedWay {
  readonly device: string;
  /** The WireGuard device below it. */
  readonly tunnel: string;
  /** The number of its VXLAN network. */
  readonly id: number;
}

/** Where packets come in: by the tunnel what it was made for and nothing else; and that by no other link. */
export function tunnelRules({ tunnel, id }: EncryptedWay, port: number): readonly string[] {
  return [
    `iifname "${tunnel}" udp dport ${port} @th,96,24 ${id} accept`,
    `iifname "${tunnel}" drop`,
    `udp dport ${port} @th,96,24 ${id} fib daddr type local drop`,
  ];
}

/** Where packets go out, of this host and of its tasks: what is secret by its own device, and that by the tunnel. */
export function secrecyChain(
  { device, tunnel, id }: EncryptedWay,
  { port, group, ip }: { readonly port: number; readonly group: number; readonly ip: "ip" | "ip6" },
): readonly string[] {
  return [
    "chain secrecy {",
    "type filter hook postrouting priority filter; policy accept;",
    `${ip} daddr @secret oifname != "${device}" oifgroup != ${group} drop`,
    `udp dport ${port} @th,96,24 ${id} oifname != "${tunnel}" drop`,
    "}",
  ];
}
