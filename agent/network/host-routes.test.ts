/**
 * Goal: the cluster learns every prefix that a host has for itself, and none that is ours. Method: a table; then a namespace with routes
 * of all kinds beside a running network.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { Lab } from "../../test/network-lab.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { parseIpPrefix } from "./address.ts";
import { foreignPrefixes, type HostRoute } from "./host-routes.ts";
import { RTPROT_SWARM } from "./routing-messages.ts";
import type { Link } from "./rtnetlink.ts";

const [LO, ETH, FABRIC, VETH] = [1, 2, 3, 4];
const link = (index: number, name: string, kind = ""): Link => {
  return { index, name, kind, up: true, mtu: 1500, group: 0, mac: new Uint8Array() };
};
const LINKS = [link(1, "lo"), link(2, "eth0"), link(3, "swarm0", "vxlan"), link(4, "v3f9k2abcde0", "veth")];

function route(text: string, fields: Partial<HostRoute> = {}): HostRoute {
  return { destination: parseIpPrefix(text), protocol: 2, type: 1, index: 2, ...fields };
}

test.each<[string, HostRoute[], string[]]>([
  ["a connected subnet", [route("192.0.2.0/24")], ["192.0.2.0/24"]],
  ["IPv6", [route("2001:db8::/64"), route("fe80::/64")], ["2001:db8::/64"]],
  ["an address of the host", [route("192.0.2.7/32", { type: 2, index: ETH ?? 0 })], ["192.0.2.7/32"]],
  [
    "one within another",
    [route("10.0.1.0/24"), route("10.0.0.0/16"), route("10.1.0.0/24")],
    ["10.0.0.0/16", "10.1.0.0/24"],
  ],
  ["twice", [route("10.0.1.0/24"), route("10.0.1.0/24", { type: 2 })], ["10.0.1.0/24"]],
  ["a way to nowhere", [route("10.9.0.0/16", { type: 6, index: 0 })], ["10.9.0.0/16"]],
  ["default", [route("0.0.0.0/0"), route("::/0")], []],
  ["loopback", [route("127.0.0.0/8", { type: 2, index: LO ?? 0 }), route("10.3.0.1/32", { index: LO ?? 0 })], []],
  ["broadcast, anycast, multicast", [3, 4, 5].map((type) => route("192.0.2.255/32", { type })), []],
  ["of an agent", [route("10.0.1.9/32", { protocol: RTPROT_SWARM })], []],
  ["over ours", [route("10.224.0.1/32", { index: FABRIC ?? 0 }), route("10.224.0.7/32", { index: VETH ?? 0 })], []],
])("%s", (_, routes, prefixes) => expect(foreignPrefixes(routes, LINKS, "swarm0")).toEqual(prefixes));

test("of very many the widest count", () => {
  const many = Array.from({ length: 5_000 }, (_, index) => route(`11.${index >> 8}.${index & 255}.0/24`));
  const prefixes = foreignPrefixes([...many, route("12.0.0.0/8")], LINKS, "swarm0");
  expect([prefixes.length, prefixes.includes("12.0.0.0/8")]).toEqual([1_000, true]);
});

describe("a host", () => {
  let lab: Lab;
  beforeAll(async () => {
    if (!isRoot) return;
    lab = await Lab.open();
    await lab.ask({ do: "open", pool: "10.224.0.0/12" });
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());

  rootTest("tells its own routes and not the fabric's", async () => {
    const before = (await lab.ask({ do: "routes" })) as string[];
    const task = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.7/24"] };
    await lab.ask({ do: "cluster", cluster: { networks: [{ subnet: "10.0.1.0/24" }] } });
    await lab.ask({ do: "attach", task, command: ["busybox", "sleep", "600"] });
    await lab.inHost("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1");
    await lab.inHost("ip", "address", "add", "10.77.0.9/16", "dev", "lan0");
    await lab.inHost("ip", "address", "add", "2001:db8:77::9/64", "dev", "lan0");
    for (const end of ["lan0", "lan1"]) await lab.inHost("ip", "link", "set", end, "up");
    await lab.inHost("ip", "route", "add", "172.31.0.0/20", "via", "10.77.0.1");
    await lab.inHost("ip", "route", "add", "blackhole", "10.99.0.0/24");
    const after = (await lab.ask({ do: "routes" })) as string[];
    expect(after.filter((prefix) => !before.includes(prefix)).sort()).toEqual([
      ...["10.77.0.0/16", "10.99.0.0/24", "172.31.0.0/20", "2001:db8:77::/64"],
    ]);
    expect(before.filter((prefix) => prefix.startsWith("10."))).toEqual([]);
  });
});
