import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  contains,
  formatIpv4,
  formatPrefix,
  gatewayOf,
  macOf,
  networkOf,
  overlaps,
  parseIpv4,
  parsePrefix,
} from "./address.ts";

describe("IPv4 addresses", () => {
  test("are read back as they were written", () => {
    fc.assert(fc.property(fc.nat(0xffffffff), (address) => parseIpv4(formatIpv4(address)) === address));
  });

  test.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "256.0.0.1",
    "01.2.3.4",
    "1.2.3.-4",
    "a.b.c.d",
    " 1.2.3.4",
    "1.2.3.4.",
    "1..3.4",
    "00.2.3.4",
  ])("%j is none", (text) => {
    expect(parseIpv4(text)).toBeUndefined();
  });

  test.each(["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "x/8"])("%j is no prefix", (text) => {
    expect(() => parsePrefix(text)).toThrow("is not an IPv4 prefix");
  });

  test("make MACs and gateways", () => {
    const prefix = parsePrefix("10.224.0.7/12");
    expect(formatPrefix(prefix)).toBe("10.224.0.7/12");
    expect(formatPrefix(networkOf(prefix))).toBe("10.224.0.0/12");
    expect(formatIpv4(gatewayOf(prefix))).toBe("10.224.0.1");
    expect(Buffer.from(macOf(prefix.address)).toString("hex")).toBe("02420ae00007");
    expect(formatPrefix(networkOf(parsePrefix("255.255.255.255/0")))).toBe("0.0.0.0/0");
  });

  test("two prefixes overlap exactly when one holds the other's first address", () => {
    const prefix = fc.record({ address: fc.nat(0xffffffff), length: fc.nat(32) });
    fc.assert(
      fc.property(prefix, prefix, (one, other) => {
        const expected = contains(one, networkOf(other).address) || contains(other, networkOf(one).address);
        return overlaps(one, other) === expected && overlaps(other, one) === expected;
      }),
    );
  });
});
