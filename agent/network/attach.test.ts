import { describe, expect, test } from "vitest";
import type { TaskId } from "../../common/base/id.ts";
import { gatewayOf, parsePrefix } from "./address.ts";
import { type AttachOp, bridgeOps, isVethName, loopbackOps, vethGroup, vethName } from "./attach.ts";

const TASK = "3f9k2abcdefghijklmnopqrst" as TaskId;
const ADDRESS = parsePrefix("10.224.0.7/12");

function plan(ipv6: boolean): string {
  const point = { bridgeIndex: 4, group: vethGroup("swarm0"), gateway: gatewayOf(ADDRESS), mtu: 1500, ipv6 };
  return bridgeOps(TASK, ADDRESS, point).map(describeOp).join("\n");
}

function describeOp(op: AttachOp): string {
  if (op.op === "set-sysctl") return `${op.name}=${op.value}`;
  const bytes = Buffer.from(op.message)
    .toString("hex")
    .match(/.{1,64}/g);
  return [`${op.side}: ${op.label}`, ...(bytes ?? [])].join("\n  ");
}

describe("a task's attachment", () => {
  test("to the bridge is these bytes", () => {
    expect(plan(true)).toMatchInlineSnapshot(`
      "container: bring lo up
        2000000013000500010000000000000000000000010000000100000001000000
      net.ipv6.conf.default.disable_ipv6=1
      container: create veth eth0, v3f9k2abcdef
        9400000010000506010000000000000000000000e80300000100000001000000
        0900030065746830000000000a00010002420ae00007000008000400dc050000
        5400128009000100766574680000000044000280400001800000000000000000
        000000000000000011000300763366396b326162636465660000000008000400
        dc05000008001b008321777308001c00fa000000
      host: attach v3f9k2abcdef to the bridge
        4c00000013000500010000000000000000000000000000000000000000000000
        11000300763366396b326162636465660000000008000a000400000010001a80
        0c000a800500080001000000
      host: open port v3f9k2abcdef
        5000000010000500010000000000000000000000000000000100000001000000
        11000300763366396b32616263646566000000001c0012800b00040062726964
        676500000c0005800500040001000000
      container: add address 10.224.0.7 to eth0
        28000000140005050100000000000000020c0000e8030000080002000ae00007
        080001000ae00007
      container: add default route via 10.224.0.1
        2c00000018000506010000000000000002000000fe0400010000000008000500
        0ae0000108000400e8030000"
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
    expect(vethName(TASK)).toBe("v3f9k2abcdef");
    expect(isVethName(vethName(TASK))).toBe(true);
    expect(isVethName("veth0")).toBe(false);
  });
});
