/** Goal: no two subnets of the cluster overlap, and who is in the way is named. Method: tables, and a property over many networks. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { seededRandom } from "../common/base/random.ts";
import { overlaps, parseIpPrefix } from "../common/model/ip-prefix.ts";
import { ClusterSchema, NetworkSchema, NodeSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { NetworkSpecSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { ViewState } from "./store/view.ts";
import { overlappingRoutes, SubnetPlanner } from "./subnets.ts";

type Settings = { networkPools?: string[]; networkPrefixLength?: number; addressPool?: string };
const id = (digit: string) => digit.repeat(25);

function viewWith(settings: Settings, ...routes: string[]): ViewState {
  const view = new ViewState();
  view.put("cluster", "default", create(ClusterSchema, { id: "default", spec: settings }), 1);
  const description = { hostname: "h1", routes };
  view.put("node", id("n"), create(NodeSchema, { id: id("n"), description }), 1);
  return view;
}

/** Makes a network as the API does. */
function make(view: ViewState, name: string, spec: MessageInitShape<typeof NetworkSpecSchema> = {}) {
  const planner = new SubnetPlanner(view, seededRandom(1));
  const whole = create(NetworkSpecSchema, { name, ...spec });
  const allocation = planner.add(whole);
  if (!allocation.ok) return allocation.problems.map(({ field, problem }) => `${field}: ${problem}`);
  const networkId = name.padEnd(25, "0");
  const ipam = [...allocation.ipam];
  view.put("network", networkId, create(NetworkSchema, { id: networkId, name, spec: whole, ipam }), 2);
  const guard = planner.guard();
  if (guard.type !== "delete" && guard.kind === "ipam") view.put("ipam", "default", guard.object, 2);
  return ipam.map(({ subnet, gateway }) => `${subnet} ${gateway}`);
}

test("subnets come one after the other, and one that was given back comes back late", () => {
  const view = viewWith({ networkPools: ["10.0.0.0/22"], networkPrefixLength: 24 });
  expect(make(view, "a")).toEqual(["10.0.0.0/24 10.0.0.1"]);
  expect(make(view, "b")).toEqual(["10.0.1.0/24 10.0.1.1"]);
  view.remove("network", "a".padEnd(25, "0"));
  expect(make(view, "c")).toEqual(["10.0.2.0/24 10.0.2.1"]);
  expect(make(view, "d")).toEqual(["10.0.3.0/24 10.0.3.1"]);
  expect(make(view, "e")).toEqual(["10.0.0.0/24 10.0.0.1"]);
  expect(make(view, "f")).toEqual([
    "ipam: no free /24 in 10.0.0.0/22, where there are network b (10.0.1.0/24), network c (10.0.2.0/24), network d (10.0.3.0/24), …: give a subnet (--subnet), or more pools (swarm update --default-addr-pool)",
  ]);
});

test("the cluster's pool, hosts' routes and explicit subnets are passed over", () => {
  const view = viewWith({ networkPools: ["10.0.0.0/8"], addressPool: "10.0.0.0/16" }, "10.1.0.0/17", "10.1.128.0/24");
  expect(make(view, "a", { ipam: [{ subnet: "10.1.129.0/25" }] })).toEqual(["10.1.129.0/25 10.1.129.1"]);
  expect(make(view, "b")).toEqual(["10.1.130.0/24 10.1.130.1"]);
});

test("several pools are used up in turn", () => {
  const view = viewWith({ networkPools: ["172.30.0.0/25", "172.31.0.0/25"], networkPrefixLength: 26 });
  expect(["a", "b", "c"].flatMap((name) => make(view, name))).toEqual([
    "172.30.0.0/26 172.30.0.1",
    "172.30.0.64/26 172.30.0.65",
    "172.31.0.0/26 172.31.0.1",
  ]);
});

test.each([
  ["10.224.9.0/24", "ipam[0].subnet: 10.224.9.0/24 overlaps the cluster's address pool (10.224.0.0/12)"],
  ["10.0.0.0/16", "ipam[0].subnet: 10.0.0.0/16 overlaps network first (10.0.0.0/24)"],
  ["192.168.0.0/20", "ipam[0].subnet: 192.168.0.0/20 overlaps 192.168.1.0/24 on h1"],
])("%s is refused", (subnet, problem) => {
  const view = viewWith({}, "192.168.1.0/24");
  make(view, "first");
  expect(make(view, "second", { ipam: [{ subnet }] })).toEqual([problem]);
});

test("a host that routes a whole pool is named", () => {
  const [problem] = make(viewWith({}, "10.0.0.0/8", "10.9.0.0/16"), "front");
  expect(problem).toMatch(/^ipam: no free \/24 in 10\.0\.0\.0\/8, where there are 10\.0\.0\.0\/8 on h1, /);
});

test("a route that came later is found", () => {
  const view = viewWith({});
  make(view, "front");
  const network = view.networks.get("front".padEnd(25, "0"));
  const description = { hostname: "h2", routes: ["10.0.0.128/25", "10.1.0.0/24"] };
  view.put("node", id("o"), create(NodeSchema, { id: id("o"), description }), 2);
  expect(network && overlappingRoutes(view, network)).toEqual(["10.0.0.128/25 on h2"]);
});

test("IPv6 without a subnet is of the range that is nobody's", () => {
  const [, subnet] = make(viewWith({}), "six", { ipv6: true });
  expect(subnet).toMatch(/^fd[0-9a-f]{2}:[0-9a-f:]+::\/64 fd[0-9a-f:]+::1$/);
});

test("whatever is asked for, nothing overlaps", () => {
  const asked = fc.record({
    ipv6: fc.boolean(),
    subnet: fc.option(
      fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 255 }), fc.integer({ min: 20, max: 29 })),
    ),
  });
  fc.assert(
    fc.property(fc.array(asked, { maxLength: 30 }), (wishes) => {
      const view = viewWith({ networkPools: ["10.0.0.0/22"], networkPrefixLength: 26 }, "10.0.1.0/25");
      wishes.forEach(({ ipv6, subnet }, index) => {
        const text = subnet && `10.0.${subnet[0]}.${subnet[1]}/${subnet[2]}`;
        make(view, `n${index}`, { ipv6, ipam: text ? [{ subnet: text }] : [] });
      });
      const subnets = [...view.networks.values()].flatMap(({ ipam }) => ipam.map((each) => parseIpPrefix(each.subnet)));
      const taken = [...subnets, parseIpPrefix("10.0.1.0/25")].flatMap((each) => each ?? []);
      taken.forEach((one, index) => {
        expect(taken.slice(index + 1).filter((other) => overlaps(one, other))).toEqual([]);
      });
    }),
    { numRuns: 60 },
  );
});
