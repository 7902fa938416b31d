import { describe, expect, test } from "vitest";
import type { TaskId } from "../../common/base/id.ts";
import { gatewayOf, parsePrefix } from "./address.ts";
import { type AttachOp, isVethName, loopbackOps, mtuOf, routedOps, vethGroup, vethName } from "./attach.ts";

const TASK = "3f9k2abcdefghijklmnopqrst" as TaskId;
const ADDRESS = parsePrefix("10.224.0.7/12");

function plan(ipv6: boolean): string {
  const interfaces = [
    { address: parsePrefix("10.0.1.7/24"), gateway: gatewayOf(parsePrefix("10.0.1.7/24")), internal: true },
    { address: ADDRESS, gateway: gatewayOf(ADDRESS), internal: false },
  ];
  const point = { hostIndexes: [1048576, 1048577], group: vethGroup("swarm0"), hostAddress: gatewayOf(ADDRESS) };
  return routedOps(TASK, interfaces, { ...point, mtu: 1450, encryptedMtu: 1390, ipv6 })
    .map(describeOp)
    .join("\n");
}

function describeOp(op: AttachOp): string {
  if (op.op === "set-sysctl") return `${op.name}=${op.value}`;
  const bytes = Buffer.from(op.message)
    .toString("hex")
    .match(/.{1,64}/g);
  return [`${op.side}: ${op.label}`, ...(bytes ?? [])].join("\n  ");
}

describe("a task's attachment", () => {
  test("has the network's own MTU where less fits into it than between hosts", () => {
    const point = { mtu: 1450, encryptedMtu: 1390 };
    const asked = [{}, { mtu: 1400 }, { mtu: 9000 }, { encrypted: true }, { encrypted: true, mtu: 1400 }];
    expect(asked.map((spec) => mtuOf(spec, point))).toEqual([1450, 1400, 1450, 1390, 1390]);
  });

  test("to two networks is these bytes", () => {
    expect(plan(true)).toMatchInlineSnapshot(`
      "container: bring lo up
        2000000013000500010000000000000000000000010000000100000001000000
      net.ipv6.conf.default.disable_ipv6=1
      container: create veth eth0, v3f9k2abcde0
        a000000010000506010000000000000000000000e80300000100000001000000
        0900030065746830000000000a00010002420a000107000008000400aa050000
        60001280090001007665746800000000500002804c0001800000000000001000
        000000000000000011000300763366396b32616263646530000000000a000100
        0242fffffffe000008000400aa05000008001b008321777308001c00fa000000
      host: keep v3f9k2abcde0 free of IPv6
        3000000013000500010000000000000000000000000010000000000000000000
        10001a800c000a800500080001000000
      host: bring v3f9k2abcde0 up
        3400000013000500010000000000000000000000000010000100000001000000
        14001a80100002800c0001800800080001000000
      host: route 10.0.1.7/32 to v3f9k2abcde0
        3c00000018000505010000000000000002200000fe53fd010000000008000f00
        fe0000000800040000001000080001000a000107080007000ae00001
      host: tell v3f9k2abcde0 its neighbour
        300000001c000505010000000000000002000000000010008000000008000100
        0a0001070a00020002420a0001070000
      container: add address 10.0.1.7/24 to eth0
        3000000014000505010000000000000002180000e8030000080002000a000107
        080001000a0001070800080000020000
      container: tell eth0 its gateway
        300000001c000505010000000000000002000000e80300008000000008000100
        0a0001010a0002000242fffffffe0000
      container: route 10.0.1.0/24 via 10.0.1.1
        4400000018000505010000000000000002180000fe5300010400000008000f00
        fe00000008000400e8030000080001000a000100080005000a00010108000700
        0a000107
      container: create veth eth1, v3f9k2abcde1
        a000000010000506010000000000000000000000e90300000100000001000000
        0900030065746831000000000a00010002420ae00007000008000400aa050000
        60001280090001007665746800000000500002804c0001800000000001001000
        000000000000000011000300763366396b32616263646531000000000a000100
        0242fffffffe000008000400aa05000008001b008321777308001c00fa000000
      host: keep v3f9k2abcde1 free of IPv6
        3000000013000500010000000000000000000000010010000000000000000000
        10001a800c000a800500080001000000
      host: bring v3f9k2abcde1 up
        3400000013000500010000000000000000000000010010000100000001000000
        14001a80100002800c0001800800080001000000
      host: route 10.224.0.7/32 to v3f9k2abcde1
        3c00000018000505010000000000000002200000fe53fd010000000008000f00
        fe0000000800040001001000080001000ae00007080007000ae00001
      host: tell v3f9k2abcde1 its neighbour
        300000001c000505010000000000000002000000010010008000000008000100
        0ae000070a00020002420ae000070000
      container: add address 10.224.0.7/12 to eth1
        30000000140005050100000000000000020c0000e9030000080002000ae00007
        080001000ae000070800080000020000
      container: tell eth1 its gateway
        300000001c000505010000000000000002000000e90300008000000008000100
        0ae000010a0002000242fffffffe0000
      container: route 10.224.0.0/12 via 10.224.0.1
        44000000180005050100000000000000020c0000fe5300010400000008000f00
        fe00000008000400e9030000080001000ae00000080005000ae0000108000700
        0ae00007
      container: let the resolver answer
        3400000013000500010000000000000000000000e90300000000000000000000
        14001a80100002800c00018008001a0001000000
      container: route 127.0.0.11/32 via 10.224.0.1
        4400000018000505010000000000000002200000ff5300010400000008000f00
        ff00000008000400e9030000080001007f00000b080005000ae0000108000700
        0ae00007
      container: add default route via 10.224.0.1
        3c00000018000505010000000000000002000000fe5300010400000008000f00
        fe00000008000400e9030000080005000ae00001080007000ae00007
      container: add default route via 10.224.0.1
        3c00000018000505010000000000000002000000005300010400000008000f00
        e903000008000400e9030000080005000ae00001080007000ae00007
      container: answer from 10.224.0.7 by its own link
        3c00000020000506010000000000000002002000000000010000000008000600
        ec1400000500150053000000080002000ae0000708000f00e9030000"
    `);
  });

  test("says nothing of IPv6 to a kernel without it", () => {
    const steps = plan(false);
    expect(steps).not.toContain("disable_ipv6");
    // IFLA_AF_SPEC with AF_INET6 in it.
    expect(steps).not.toContain("1a800c000a80");
  });

  test("to nothing is loopback alone", () => {
    expect(loopbackOps().map(describeOp)).toEqual([expect.stringContaining("container: bring lo up")]);
  });

  test("has a link that is told from others", () => {
    expect(vethName(TASK)).toBe("v3f9k2abcde0");
    expect(vethName(TASK, 35)).toBe("v3f9k2abcdez");
    expect(isVethName(vethName(TASK))).toBe(true);
    expect(isVethName("veth0")).toBe(false);
  });
});
