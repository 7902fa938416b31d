import { describe, expect, test } from "vitest";
import { parseIpv4 } from "./address.ts";
import {
  containerHosts,
  containerResolvConf,
  extendHosts,
  isStubResolver,
  reachableNameservers,
  resolverResolvConf,
} from "./resolver.ts";

describe("a container's resolv.conf", () => {
  const host =
    "# from dhcp\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org\noptions edns0 trust-ad\n";

  test("is the host's, less what a container cannot reach", () => {
    expect(containerResolvConf(host)).toBe("nameserver 192.0.2.53\nsearch example.org\noptions edns0 trust-ad\n");
    expect(containerResolvConf("nameserver 127.0.0.1\nnameserver 192.0.2.1\n")).toBe("nameserver 192.0.2.1\n");
  });

  test("has a server even where the host names none", () => {
    expect(containerResolvConf("")).toBe("nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
  });

  test("takes each part from the service that gives it", () => {
    expect(containerResolvConf(host, { nameservers: ["10.0.0.2"], search: ["."], options: [] })).toBe(
      "nameserver 10.0.0.2\noptions edns0 trust-ad\n",
    );
  });

  test("follows resolv.conf(5): the last of domain and search wins, comments do not count", () => {
    expect(containerResolvConf("domain a.example\nsearch b.example c.example ; x\nnameserver 192.0.2.1 # y\n")).toBe(
      "nameserver 192.0.2.1\nsearch b.example c.example\n",
    );
  });

  test("is taken from systemd-resolved where the host has a stub", () => {
    expect(isStubResolver("nameserver 127.0.0.53\n")).toBe(true);
    expect(isStubResolver(host)).toBe(false);
    expect(isStubResolver("")).toBe(false);
  });
});

test("a container that asks the node's resolver names it alone, with the rest as before", () => {
  const host = "nameserver 192.0.2.53\nsearch example.com\noptions edns0\n";
  const resolver = parseIpv4("127.0.0.11") ?? 0;
  expect(resolverResolvConf(host, resolver)).toBe("nameserver 127.0.0.11\nsearch example.com\noptions edns0 ndots:0\n");
  const dns = { nameservers: ["192.0.2.54"], search: ["lan"], options: ["ndots:2"] };
  expect(resolverResolvConf(host, resolver, dns)).toBe("nameserver 127.0.0.11\nsearch lan\noptions ndots:2\n");
  expect(reachableNameservers("nameserver 127.0.0.53\nnameserver 2001:db8::53\n")).toEqual(["2001:db8::53"]);
  expect(reachableNameservers("nameserver 127.0.0.53\n")).toEqual(["8.8.8.8", "8.8.4.4"]);
});

test("a container's hosts file has its own name, and the extra ones in either form", () => {
  const address = parseIpv4("10.224.0.7") ?? 0;
  const gateway = parseIpv4("10.224.0.1") ?? 0;
  const extra = ["192.0.2.9 db db.example", "cache:192.0.2.10", "v6:2001:db8::1", "host.internal:host-gateway"];
  expect(containerHosts({ hostname: "web-1", addresses: [address], gateway, extra })).toMatchInlineSnapshot(`
    "127.0.0.1	localhost
    ::1	localhost ip6-localhost ip6-loopback
    192.0.2.9	db db.example
    192.0.2.10	cache
    2001:db8::1	v6
    10.224.0.1	host.internal
    10.224.0.7	web-1
    "
  `);
});

test("a task in the host's namespace keeps the host's hosts file", () => {
  expect(extendHosts("127.0.0.1 localhost", ["db:192.0.2.9"])).toBe("127.0.0.1 localhost\n192.0.2.9\tdb\n");
});
