/** Goal: every bad field of a network is named, and what is right passes. Method: a table. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { MTU_OPTION, normaliseNetwork } from "./networks.ts";
import { networkProblems } from "./validate-network.ts";

type Init = MessageInitShape<typeof NetworkSpecSchema>;
const problems = (init: Init) =>
  networkProblems(normaliseNetwork(create(NetworkSpecSchema, { name: "front", ...init }))).map(
    ({ field, problem }) => `${field}: ${problem}`,
  );
const mtu = (value: string) => ({ driverOpts: { [MTU_OPTION]: value } });
const subnet = (text: string, more: object = {}) => ({ ipam: [{ subnet: text, ...more }] });

test.each<[string, Init]>([
  ["nothing but a name", {}],
  ["Docker's words", { driver: "overlay", driverOpts: { encrypted: "" } }],
  ["MTU", mtu("1400")],
  [
    "all of a subnet",
    subnet("10.9.0.0/24", { gateway: "10.9.0.254", ipRange: "10.9.0.128/25", auxAddresses: { a: "10.9.0.2" } }),
  ],
  ["both families", { ipv6: true, ipam: [{ subnet: "10.9.0.0/29" }, { subnet: "fd01::/64", gateway: "fd01::1" }] }],
])("right: %s", (_, init) => expect(problems(init)).toEqual([]));

test.each<[string, Init, string]>([
  ["name", { name: "a b" }, 'name: invalid network name "a b": letters, digits and _.-, at most 255'],
  ["a node's", { name: "bridge" }, 'name: "bridge" is a network of the nodes'],
  ["ingress", { name: "ingress" }, 'name: "ingress": the routing mesh\'s network is always there'],
  ["driver", { driver: "macvlan" }, 'driver: "macvlan": network drivers are not supported, only overlay is'],
  ["option", { driverOpts: { foo: "1" } }, `driver_opts."foo": unknown option: there are encrypted and ${MTU_OPTION}`],
  ["MTU 500", mtu("500"), `driver_opts."${MTU_OPTION}": 500 is below 576, which every IPv4 host must take`],
  [
    "MTU with IPv6",
    { ipv6: true, ...mtu("1279") },
    `driver_opts."${MTU_OPTION}": 1279 is below 1280, which every IPv6 host must take`,
  ],
  ["MTU of words", mtu("big"), `driver_opts."${MTU_OPTION}": "big" is not a number of bytes`],
  ["subnet", subnet("10.9.0.0"), 'ipam[0].subnet: "10.9.0.0" is not a subnet such as 10.0.9.0/24'],
  ["too small", subnet("10.9.0.0/30"), 'ipam[0].subnet: "10.9.0.0/30": must be from /8 to /29'],
  ["too large", subnet("8.0.0.0/7"), 'ipam[0].subnet: "8.0.0.0/7": must be from /8 to /29'],
  ["loopback", subnet("127.0.0.0/8"), 'ipam[0].subnet: "127.0.0.0/8" is not for networks (127.0.0.0/8)'],
  [
    "two",
    { ipam: [{ subnet: "10.9.0.0/24" }, { subnet: "10.8.0.0/24" }] },
    "ipam[1].subnet: a second IPv4 subnet: a network has one",
  ],
  ["IPv6 without", subnet("fd01::/64"), "ipam[0].subnet: an IPv6 subnet needs ipv6 (--ipv6, enable_ipv6)"],
  ["gateway", subnet("10.9.0.0/24", { gateway: "10.8.0.1" }), "ipam[0].gateway: 10.8.0.1 is not in 10.9.0.0/24"],
  [
    "broadcast",
    subnet("10.9.0.0/24", { gateway: "10.9.0.255" }),
    "ipam[0].gateway: 10.9.0.255 is the first or last address of 10.9.0.0/24",
  ],
  [
    "range",
    subnet("10.9.0.0/24", { ipRange: "10.8.0.0/25" }),
    'ipam[0].ip_range: "10.8.0.0/25" is not a part of 10.9.0.0/24',
  ],
  ["aux", subnet("10.9.0.0/24", { auxAddresses: { a: "x" } }), 'ipam[0].aux_addresses."a": "x" is not an IP address'],
  ["gateway alone", { ipam: [{ gateway: "10.9.0.1" }] }, "ipam[0].gateway: needs the subnet that it is of"],
])("wrong: %s", (_, init, problem) => expect(problems(init)).toEqual([problem]));

test("one form for what means the same", () => {
  const spec = { name: "n", driver: "overlay", driverOpts: { encrypted: "true" }, ipam: [{ subnet: "10.9.0.7/24" }] };
  expect(normaliseNetwork(create(NetworkSpecSchema, spec))).toMatchObject({
    driver: "",
    encrypted: true,
    driverOpts: {},
    ipam: [{ subnet: "10.9.0.0/24" }],
  });
});
