import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { contains, parseIpv4, parsePrefix } from "./address.ts";
import { NOTHING } from "./cluster.ts";
import { balancedTo, beyondReach, encryptedContent, secretPrefixes, unreached } from "./secrecy.ts";

const BASE = parseIpv4("10.0.0.0") ?? 0;
const NETWORKS = ["10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30"];

describe("what must not pass in clear", () => {
  const aRemote = fc.record({
    address: fc.integer({ min: 0, max: 15 }).map((number) => BASE + number),
    host: fc.constant(1),
    encrypted: fc.boolean(),
  });
  const remotes = fc.uniqueArray(aRemote, { selector: ({ address }) => address });

  test("are the encrypted networks and every address beyond them that is said to be, none of them twice", () => {
    fc.assert(
      fc.property(remotes, fc.subarray(NETWORKS), (remote, secret) => {
        const networks = NETWORKS.map((text) => ({
          ...{ subnet: parsePrefix(text), internal: false, encrypted: secret.includes(text) },
        }));
        const prefixes = secretPrefixes(networks, remote);
        for (let address = BASE; address < BASE + 16; address++) {
          const wanted =
            secret.some((text) => contains(parsePrefix(text), address)) ||
            remote.some((each) => each.encrypted && each.address === address);
          expect(prefixes.filter((prefix) => contains(prefix, address))).toHaveLength(wanted ? 1 : 0);
        }
      }),
    );
  });

  test("lead nowhere, but for single addresses that a way leads to", () => {
    const networks = [{ subnet: parsePrefix("10.0.0.0/30"), internal: false, encrypted: true }];
    const inside = { address: BASE + 2, host: 1, encrypted: true };
    const outside = { address: BASE + 9, host: 1, encrypted: true };
    const secret = secretPrefixes(networks, [inside, outside]);
    expect(beyondReach(secret, [inside, outside])).toEqual([{ address: BASE, length: 30 }]);
    expect(beyondReach(secret, [inside])).toEqual(secret);
  });

  test("nobody is sent to a target that cannot be reached", () => {
    const remote = [1, 2].map((address) => ({ address, host: 9, encrypted: true }));
    const missing = unreached([...remote, { address: 3, host: 9 }], remote.slice(0, 1));
    const published = [
      { protocol: "tcp" as const, port: 80, targets: [1, 2, 3].map((address) => ({ address, port: 8 })) },
    ];
    const balanced = balancedTo({ published, virtual: [{ address: 7, targets: [2, 3] }], leaving: [] }, missing);
    expect(balanced.published[0]?.targets.map(({ address }) => address)).toEqual([1, 3]);
    expect(balanced.virtual).toEqual([{ address: 7, targets: [3] }]);
  });

  test("is made for a host that has a key and an address, while something is encrypted", () => {
    const networks = [{ subnet: parsePrefix("10.0.0.0/30"), internal: false, encrypted: true }];
    const remote = [
      { address: 1, host: 9, encrypted: true },
      { address: 2, host: 9 },
    ];
    const host = { local: 8, port: 4789, key: new Uint8Array(32), mtu: 1390 };
    expect(encryptedContent({ ...NOTHING, networks, remote }, host)?.remote).toEqual(remote.slice(0, 1));
    expect(encryptedContent({ ...NOTHING, networks }, { ...host, key: undefined })).toBeUndefined();
    expect(encryptedContent({ ...NOTHING, networks }, { ...host, local: undefined })).toBeUndefined();
    expect(encryptedContent({ ...NOTHING, remote: remote.slice(1) }, host)).toBeUndefined();
  });
});
