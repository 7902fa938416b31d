/** Goal: prefixes are read, written and compared right. Method: tables, and properties against node:net. */
import { BlockList, isIP } from "node:net";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  contains,
  formatIpAddress,
  formatIpPrefix,
  networkOf,
  overlaps,
  parseIpAddress,
  parseIpPrefix,
} from "./ip-prefix.ts";

test.each([
  ["10.0.1.7", "10.0.1.7"],
  ["0.0.0.0", "0.0.0.0"],
  ["255.255.255.255", "255.255.255.255"],
  ["fd00::", "fd00::"],
  ["::", "::"],
  ["::1", "::1"],
  ["FD00:0:0:1:0:0:0:1", "fd00:0:0:1::1"],
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
])("%s is %s", (text, canonical) => {
  const address = parseIpAddress(text);
  expect(address && formatIpAddress(address)).toBe(canonical);
});

test.each([
  "",
  "10.0.1",
  "10.0.1.256",
  "010.0.0.1",
  "1:2",
  "1::2::3",
  "1:2:3:4:5:6:7::8",
  "g::",
  "fe80::1%eth0",
  "::ffff:1.2.3.4",
])("%j is no address", (text) => expect(parseIpAddress(text)).toBeUndefined());

test.each(["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/", "10.0.0.0/8/8", "fd00::/129"])(
  "%j is no prefix",
  (text) => expect(parseIpPrefix(text)).toBeUndefined(),
);

test("host bits stay until the network is asked for", () => {
  const prefix = parseIpPrefix("10.0.1.7/24");
  expect(prefix && [formatIpPrefix(prefix), formatIpPrefix(networkOf(prefix))]).toEqual(["10.0.1.7/24", "10.0.1.0/24"]);
});

test("what is written is read again, and node:net takes it", () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
      const address = parseIpAddress(text);
      fc.pre(address !== undefined);
      const written = formatIpAddress(address);
      expect(isIP(written)).toBe(address.family);
      expect(parseIpAddress(written)).toEqual(address);
    }),
  );
});

test("containing and overlapping, as node:net has it", () => {
  const nearby = fc.tuple(fc.constantFrom(0, 1, 128, 255), fc.integer({ min: 0, max: 255 }));
  fc.assert(
    fc.property(nearby, nearby, fc.integer({ min: 8, max: 32 }), fc.integer({ min: 8, max: 32 }), (a, b, m, n) => {
      const [one, other] = [parseIpPrefix(`10.0.${a.join(".")}/${m}`), parseIpPrefix(`10.0.${b.join(".")}/${n}`)];
      if (!one || !other) throw new Error("they are prefixes");
      const list = new BlockList();
      list.addSubnet(formatIpAddress(one), m, "ipv4");
      expect(contains(one, other)).toBe(list.check(formatIpAddress(other), "ipv4"));
      expect(overlaps(one, other)).toBe(contains(one, other) || contains(other, one));
    }),
  );
});
