import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  type NetworkAssignment,
  NetworkAssignmentSchema,
  TaskTemplateSchema,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { type Task, TaskSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { attachmentOf, checkEncryption } from "./container-network.ts";
import type { AssignedTask } from "./executor.ts";
import { formatIpv4, formatPrefix } from "./network/address.ts";

const NETWORKS = {
  front: create(NetworkAssignmentSchema, { id: "front", ipam: [{ subnet: "10.0.1.0/24", gateway: "10.0.1.254" }] }),
  vault: create(NetworkAssignmentSchema, { id: "vault", internal: true, ipam: [{ subnet: "10.0.2.0/24" }] }),
  secret: create(NetworkAssignmentSchema, { id: "secret", name: "secret", encrypted: true }),
  six: create(NetworkAssignmentSchema, {
    id: "six",
    name: "six",
    ipam: [{ subnet: "10.0.3.0/24" }, { subnet: "fd00::/64", gateway: "fd00::1" }],
    driverOpts: { "com.docker.network.driver.mtu": "1400" },
  }),
} as const satisfies Record<string, NetworkAssignment>;

function assigned(task: MessageInitShape<typeof TaskSchema>, target?: string): AssignedTask {
  const template = create(TaskTemplateSchema, { spec: { networks: target === undefined ? [] : [{ target }] } });
  const networks = { network: (id: string) => Object.values(NETWORKS).find((each) => each.id === id) };
  const contents = { fetch: () => Promise.reject(new Error("none")) } as never;
  return { task: create(TaskSchema, task), template, contents, networks };
}

function attach(task: MessageInitShape<typeof TaskSchema>, target?: string) {
  return attachmentOf(assigned(task, target));
}

function on(networkId: string, address: string): Task["networks"][number] {
  return { $typeName: "swarm.v1.NetworkAddresses", networkId, addresses: [address] };
}

test("a task has an interface for each network in the spec's order, and one on the nodes' own where it has an address", () => {
  const attachment = attach({
    address: "10.224.0.7/12",
    networks: [on("vault", "10.0.2.7/24"), on("front", "10.0.1.7/24")],
  });
  const shown =
    attachment.kind === "routed" &&
    attachment.interfaces.map(({ address, gateway, internal }) => [
      formatPrefix(address),
      formatIpv4(gateway),
      internal,
    ]);
  expect(shown).toEqual([
    ["10.0.2.7/24", "10.0.2.1", true],
    ["10.0.1.7/24", "10.0.1.254", false],
    ["10.224.0.7/12", "10.224.0.1", false],
  ]);
});

test("a network's IPv6 address and its own MTU are its interface's", () => {
  const addresses = { ...on("six", "10.0.3.7/24"), addresses: ["10.0.3.7/24", "fd00::7/64"] };
  const attachment = attach({ networks: [addresses, on("front", "10.0.1.7/24")] });
  const interfaces = attachment.kind === "routed" ? attachment.interfaces : [];
  const prefix = 0xfd00n << 112n;
  expect(interfaces.map(({ mtu, ipv6 }) => ({ mtu, ipv6 }))).toEqual([
    { mtu: 1400, ipv6: { address: { address: prefix + 7n, length: 64 }, gateway: prefix + 1n } },
    { mtu: undefined, ipv6: undefined },
  ]);
});

test("the host's network and none are themselves; no address at all is refused", () => {
  expect(attach({}, "host")).toEqual({ kind: "host" });
  expect(attach({}, "none")).toEqual({ kind: "none" });
  expect(() => attach({})).toThrow("the task was given no address");
});

test("an encrypted network is refused where nothing can be encrypted, never left in clear", () => {
  const check = (networkId: string, problem?: string) =>
    checkEncryption(assigned({ networks: [on(networkId, "10.0.9.7/24")] }), problem);
  expect(() => check("secret", "no WireGuard")).toThrow("network secret is encrypted: no WireGuard");
  expect(() => check("secret")).not.toThrow();
  expect(() => check("front", "no WireGuard")).not.toThrow();
});
