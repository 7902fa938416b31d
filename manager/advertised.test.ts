import type { NetworkInterfaceInfo } from "node:os";
import { expect, test } from "vitest";
import { advertisedAddress } from "./advertised.ts";

const address = (text: string, internal = false) =>
  ({ address: text, family: "IPv4", internal, netmask: "", mac: "", cidr: null }) as NetworkInterfaceInfo;
const LOOPBACK = { lo: [address("127.0.0.1", true)] };
const ONE = { ...LOOPBACK, eth0: [address("10.0.0.5")] };
const TWO = { ...ONE, eth1: [address("192.168.0.5")] };
const anywhere = { host: "0.0.0.0", port: 2377 };

test.each([
  ["", anywhere, ONE, "10.0.0.5:2377"],
  ["", anywhere, LOOPBACK, "127.0.0.1:2377"],
  ["", { host: "10.0.0.9", port: 99 }, TWO, "10.0.0.9:99"],
  ["192.168.0.5", anywhere, TWO, "192.168.0.5:2377"],
  ["192.168.0.5:7", anywhere, TWO, "192.168.0.5:7"],
  ["eth1", anywhere, TWO, "192.168.0.5:2377"],
  ["eth1:7", anywhere, TWO, "192.168.0.5:7"],
  ["m.example", anywhere, TWO, "m.example:2377"],
])("%j, listening on %j", (said, listen, interfaces, expected) => {
  expect(advertisedAddress(said, listen, interfaces)).toBe(expected);
});

test("122 a loopback address is for a manager that listens on one", () => {
  const here = { host: "127.0.0.1", port: 2377 };
  expect(advertisedAddress("127.0.0.1", here, ONE)).toBe("127.0.0.1:2377");
  expect(advertisedAddress("::1", { ...here, host: "::1" }, ONE)).toBe("[::1]:2377");
});

test.each([
  ["0.0.0.0", "is no address that others could reach"],
  ["0.0.0.0:2377", "is no address that others could reach"],
  ["[::]:2377", "is no address that others could reach"],
  ["127.0.0.1", "is a loopback address"],
  ["[::1]:2377", "is a loopback address"],
  ["lo", "is a loopback address"],
  ["192.0.2.7", "is not an address of this host"],
  ["[2001:db8::7]:2377", "is not an address of this host"],
])("122 %s cannot be advertised", (said, problem) => {
  expect(() => advertisedAddress(said, anywhere, TWO)).toThrow(
    expect.objectContaining({
      code: "invalid_argument",
      message: expect.stringMatching(`^--advertise-addr: .* ${problem}`),
    }),
  );
});

test("a host with several addresses must say which", () => {
  expect(() => advertisedAddress("", anywhere, TWO)).toThrow(
    "could not choose an IP address to advertise since this system has multiple addresses: 10.0.0.5 on eth0, 192.168.0.5 on eth1: specify one with --advertise-addr",
  );
  expect(() => advertisedAddress("eth2", anywhere, { ...TWO, eth2: [] })).toThrow("interface eth2 has no address");
});
