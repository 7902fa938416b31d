import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rootTest } from "../../test/privileges.ts";
import { parseIp, parseIpPrefix, parseIpv4, parsePrefix } from "./address.ts";
import { type PublishedPort, type RulesetState, ruleset, rulesetChange, rulesetRemoval, settled } from "./ruleset.ts";

/** util-linux's: runs a command in a namespace that ends with it. */
const UNSHARE = "unshare";

function address(text: string): number {
  return parseIpv4(text) ?? 0;
}

function state(...published: readonly PublishedPort[]): RulesetState {
  return {
    ...{ table: "swarm", device: "swarm0", group: 7, pool: parsePrefix("10.224.0.0/12"), linkLocal: false, published },
    ...{ vxlan: { port: 4789, id: 99 }, virtual: [], leaving: [], networks: [], hosts: [], local: [], served: [] },
    ...{ secret: [], ipv6: "none" },
  };
}

function web(port: number, ...hosts: readonly number[]): PublishedPort {
  const targets = hosts.map((host) => ({ address: address("10.224.0.0") + host, port: 80 }));
  return { protocol: "tcp", port, targets };
}

describe("the nftables table", () => {
  test("is one transaction", () => {
    const dns = { ...web(53, 9), protocol: "udp" as const, hostIp: address("192.0.2.1") };
    expect(ruleset(state(web(8080, 7, 8), dns, web(9090)))).toMatchInlineSnapshot(`
      "table ip swarm
      delete table ip swarm
      table ip swarm {
      map tcp-8080 {
      typeof numgen inc mod 2 : ip daddr . tcp dport
      elements = { 0 : 10.224.0.7 . 80, 1 : 10.224.0.8 . 80 }
      }
      chain tcp-8080 {
      meta l4proto tcp dnat ip to numgen inc mod 2 map @tcp-8080
      meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8080
      }
      map udp-53-192_0_2_1 {
      typeof numgen inc mod 2 : ip daddr . udp dport
      elements = { 0 : 10.224.0.9 . 80 }
      }
      chain udp-53-192_0_2_1 {
      meta l4proto udp dnat ip to numgen inc mod 1 map @udp-53-192_0_2_1
      meta l4proto udp dnat ip to numgen inc mod 1 map @udp-53-192_0_2_1
      }
      map published {
      type inet_proto . inet_service : verdict
      elements = { tcp . 8080 : jump tcp-8080 }
      }
      map published_at {
      type ipv4_addr . inet_proto . inet_service : verdict
      elements = { 192.0.2.1 . udp . 53 : jump udp-53-192_0_2_1 }
      }
      set ports {
      type inet_proto . inet_service
      elements = { tcp . 8080, udp . 53 }
      }
      map virtual {
      type ipv4_addr : verdict
      }
      map leaving {
      type ipv4_addr : verdict
      }
      set idle {
      type ipv4_addr
      }
      set same {
      type ipv4_addr . ipv4_addr
      flags interval
      elements = { 10.224.0.0/12 . 10.224.0.0/12 }
      }
      set subnets {
      type ipv4_addr
      flags interval
      elements = { 10.224.0.0/12 }
      }
      set internal {
      type ipv4_addr
      flags interval
      }
      map hosts {
      type ether_addr : mark
      }
      set peers {
      type ipv4_addr
      }
      set returning {
      type ipv4_addr . ipv4_addr
      }
      map selves {
      type ipv4_addr . ipv4_addr : ipv4_addr
      }
      set served {
      type ipv4_addr . inet_proto . inet_service
      }
      chain publish {
      ip daddr . meta l4proto . th dport vmap @published_at
      meta l4proto . th dport vmap @published
      }
      chain prerouting {
      type nat hook prerouting priority dstnat; policy accept;
      iifgroup 7 ip daddr 127.0.0.11 meta l4proto { tcp, udp } th dport 53 dnat to 10.224.0.1:10053
      iifgroup 7 ip daddr vmap @virtual
      iifname "swarm0" ip daddr vmap @leaving
      fib daddr type local jump publish
      }
      chain output {
      type nat hook output priority -100; policy accept;
      ip daddr != 127.0.0.0/8 fib daddr type local jump publish
      }
      chain postrouting {
      type nat hook postrouting priority srcnat; policy accept;
      snat to ip saddr . ip daddr map @selves
      ip saddr @subnets ip daddr != @subnets ip daddr != 224.0.0.0/4 oifgroup != 7 oifname != "swarm0" masquerade
      }
      chain entrance {
      type filter hook prerouting priority raw; policy accept;
      iifname "swarm0" ct original zone set @ll,80,16
      }
      chain guard {
      type filter hook prerouting priority mangle; policy accept;
      iifgroup 7 goto from_task
      iifname "swarm0" goto from_host
      udp dport 4789 @th,96,24 99 ip saddr != @peers fib daddr type local drop
      ct state invalid meta l4proto . th dport @ports fib daddr type local drop
      }
      chain from_task {
      ct mark 0 ct state established,related accept
      ct direction reply ct mark & 0xffff0000 == 0x53570000 meta mark set ct mark
      ct state established,related accept
      ct state invalid drop
      ip daddr 127.0.0.11 meta l4proto { tcp, udp } th dport 53 accept
      ip daddr 127.0.0.0/8 drop
      ip daddr @idle meta l4proto tcp reject with tcp reset
      ip daddr @idle reject
      ip saddr . ip daddr @same accept
      ip saddr @internal reject with icmp type admin-prohibited
      ip daddr 10.224.0.1 accept
      ip daddr @subnets reject with icmp type admin-prohibited
      ip daddr 169.254.0.0/16 drop
      }
      chain from_host {
      ct mark 0 ct state established,related accept
      ct direction reply ct mark & 0xffff0000 == 0x53570000 meta mark set ct mark
      ct state established,related accept
      ct state invalid drop
      ct mark set ether saddr map @hosts
      }
      chain forward {
      type filter hook forward priority filter; policy accept;
      oifname "swarm0" meta mark & 0xffff0000 == 0x53570000 meta mark set 0
      ct state established,related accept
      iifgroup 7 accept
      oifgroup 7 goto to_task
      oifname "swarm0" ct status dnat accept
      oifname "swarm0" drop
      }
      chain to_task {
      ct status dnat accept
      iifname "swarm0" ip saddr . ip daddr @same accept
      iifname "swarm0" ip daddr . meta l4proto . th dport @served accept
      drop
      }
      }
      "
    `);
  });

  rootTest("what is secret has a way of its own, and the kernel takes it so", () => {
    const encrypted = { device: "swarm0e", tunnel: "swarm0w", id: 77 };
    const secret = ["10.0.5.0/24", "10.0.6.9/32", "fd05::/64"].map(parseIpPrefix);
    const text = ruleset({ ...state(web(8080, 7)), encrypted, secret, ipv6: "on" });
    expect(list([text])[0]?.split("\n").length).toBeGreaterThan(50);
    const own = text.split("\n").filter((line) => /secret|swarm0w|secrecy|fd05/.test(line));
    expect(own).toMatchInlineSnapshot(`
      [
        "set secret {",
        "iifname "swarm0w" udp dport 4789 @th,96,24 77 accept",
        "iifname "swarm0w" drop",
        "iifname "swarm0" ip saddr @secret drop",
        "iifname "swarm0" ip daddr @secret drop",
        "chain secrecy {",
        "ip daddr @secret oifname != "swarm0e" oifgroup != 7 drop",
        "udp dport 4789 @th,96,24 77 oifname != "swarm0w" drop",
        "set secret {",
        "elements = { fd05::/64 }",
        "iifname "swarm0" ip6 saddr @secret drop",
        "iifname "swarm0" ip6 daddr @secret drop",
        "chain secrecy {",
        "ip6 daddr @secret oifname != "swarm0e" oifgroup != 7 drop",
        "udp dport 4789 @th,96,24 77 oifname != "swarm0w" drop",
      ]
    `);
    const clear = ruleset(state(web(8080, 7)));
    expect(clear).not.toMatch(/secret|swarm0[ew]/);
  });

  test("changes only what differs", () => {
    const before = state(web(8080, 7), web(8081, 7), web(8082, 7));
    const after = state(web(8080, 7, 8), web(8081, 7), web(8083, 9));
    expect(rulesetChange(before, after)).toMatchInlineSnapshot(`
      "delete element ip swarm published { tcp . 8082 }
      delete element ip swarm ports { tcp . 8082 }
      add element ip swarm tcp-8080 { 1 : 10.224.0.8 . 80 }
      flush chain ip swarm tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 2 map @tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8080
      add map ip swarm tcp-8083 { typeof numgen inc mod 2 : ip daddr . tcp dport; }
      add element ip swarm tcp-8083 { 0 : 10.224.0.9 . 80 }
      add chain ip swarm tcp-8083
      add rule ip swarm tcp-8083 meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8083
      add rule ip swarm tcp-8083 meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8083
      add element ip swarm published { tcp . 8083 : jump tcp-8083 }
      add element ip swarm ports { tcp . 8083 }
      flush chain ip swarm tcp-8082
      delete chain ip swarm tcp-8082
      delete map ip swarm tcp-8082
      "
    `);
    expect(rulesetChange(after, after)).toBe("");
  });

  test("keeps targets where they are, and so changes one of many by one element", () => {
    const before = state(web(8080, 1, 2, 3, 4, 5));
    const after = settled(before, state(web(8080, 1, 3, 4, 5)));
    expect(rulesetChange(before, after)).toMatchInlineSnapshot(`
      "delete element ip swarm tcp-8080 { 1, 4 }
      add element ip swarm tcp-8080 { 1 : 10.224.0.5 . 80 }
      flush chain ip swarm tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 4 map @tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8080
      "
    `);
    expect(rulesetChange(after, settled(after, state(web(8080, 1, 3, 4, 5, 6))))).toMatchInlineSnapshot(`
      "add element ip swarm tcp-8080 { 4 : 10.224.0.6 . 80 }
      flush chain ip swarm tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 5 map @tcp-8080
      add rule ip swarm tcp-8080 meta l4proto tcp dnat ip to numgen inc mod 1 map @tcp-8080
      "
    `);
    expect(rulesetChange(after, settled(after, state(web(8080, 1, 4, 5, 6))))).toMatchInlineSnapshot(`
      "delete element ip swarm tcp-8080 { 2 }
      add element ip swarm tcp-8080 { 2 : 10.224.0.6 . 80 }
      "
    `);
  });

  test("keeps them so in each family's table, whatever leaves the other", () => {
    const [one, other] = ["fd00::1", "fd00::2"].map((text) => ({ address: parseIp(text) ?? 0, port: 80 }));
    const ports = (...targets: PublishedPort["targets"]) => ({
      ...state({ protocol: "tcp", port: 8080, targets }),
      ipv6: "on" as const,
    });
    const [a, b, c] = web(8080, 1, 2, 3).targets;
    if (!one || !other || !a || !b || !c) throw new Error("not read");
    const before = settled(ports(), ports(a, b, c, one, other));
    expect(rulesetChange(before, settled(before, ports(a, b, c, other)))).toMatchInlineSnapshot(`
      "delete element ip6 swarm tcp-8080 { 0, 1 }
      add element ip6 swarm tcp-8080 { 0 : fd00::2 . 80 }
      flush chain ip6 swarm tcp-8080
      add rule ip6 swarm tcp-8080 meta l4proto tcp dnat ip6 to numgen inc mod 1 map @tcp-8080
      add rule ip6 swarm tcp-8080 meta l4proto tcp dnat ip6 to numgen inc mod 1 map @tcp-8080
      "
    `);
  });

  rootTest("comes to the same by a change as by loading it whole", () => {
    // Method: random pairs of states in one throw-away namespace; the kernel's own listing is the judge.
    const targets = fc.uniqueArray(fc.integer({ min: 2, max: 6 }), { maxLength: 4 });
    const port = fc.record({
      protocol: fc.constantFrom("tcp" as const, "udp" as const, "sctp" as const),
      port: fc.integer({ min: 80, max: 84 }),
      hostIp: fc.constantFrom(undefined, address("192.0.2.1")),
      hosts: targets,
      affinity: fc.constantFrom("none" as const, "client-ip" as const),
    });
    const published = fc
      .uniqueArray(port, { maxLength: 6, selector: (p) => `${p.protocol}${p.port}${p.hostIp}` })
      .map((ports) =>
        ports.map(({ hosts, hostIp, ...rest }) => {
          const base = { ...rest, targets: web(1, ...hosts).targets };
          return hostIp === undefined ? base : { ...base, hostIp };
        }),
      );
    const virtual = fc.uniqueArray(fc.record({ address: fc.integer({ min: 9, max: 11 }), targets }), {
      selector: (each) => each.address,
    });
    const states = fc
      .record({ published, virtual, leaving: virtual })
      .map(({ published: ports, ...addresses }) => ({ ...state(...ports), ...addresses }));
    fc.assert(
      fc.property(states, states, (before, after) => {
        const next = settled(before, after);
        const [changed = "", whole = ""] = list([ruleset(before), rulesetChange(before, next)], [ruleset(next)]);
        expect(changed).toBe(whole);
        expect(changed).toContain("chain publish");
      }),
      { numRuns: 15 },
    );
  });
});

/** Loads scripts one after another in a namespace of their own, and returns the sorted lines of what the kernel then has. */
function list(...runs: readonly (readonly string[])[]): readonly string[] {
  return runs.map((scripts) => {
    const loads = scripts.map((script) => `nft -f - <<'END' || exit 1\n${script}END\n`).join("");
    const command = `${loads}nft -s list table ip swarm`;
    const listing = execFileSync(UNSHARE, ["--net", "sh", "-c", command], { encoding: "utf8" });
    // A map's elements are listed in the order of their hash.
    const elements = listing.replace(/elements = \{([^}]*)\}/g, (_, inner: string) => {
      return inner
        .split(",")
        .map((element) => element.trim())
        .sort()
        .join(" ");
    });
    return elements.split("\n").sort().join("\n");
  });
}

test("removal of a table that is not there is no error", () => {
  expect(rulesetRemoval({ table: "swarm", ipv6: "none" })).toBe("table ip swarm\ndelete table ip swarm\n");
  expect(rulesetRemoval({ table: "swarm", ipv6: "off" })).toContain("\ndelete table ip6 swarm\n");
});
