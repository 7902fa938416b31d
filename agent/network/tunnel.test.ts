/**
 * Goal: the bytes that WireGuard's kernel side wants, and no word more than needed. Method: bytes against the header's
 * layout; the changes of peers against a small model of what the kernel does with them.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseIpv4 } from "./address.ts";
import {
  type Attribute,
  decodeAttributes,
  encodeAttribute,
  encodeMessage,
  listAttributes,
  nested,
  u16,
} from "./netlink.ts";
import { peerChanges } from "./tunnel.ts";
import { generatePrivateKey, publicKeyOf } from "./wireguard-key.ts";
import {
  decodeDevice,
  decodeFamily,
  forgottenPeer,
  getFamily,
  type KernelPeer,
  type PeerSpec,
  peerAttribute,
  setDevice,
} from "./wireguard-messages.ts";

const HOST = parseIpv4("192.0.2.7") ?? 0;

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function key(number: number): Uint8Array {
  return new Uint8Array(32).fill(number);
}

function payloadOf(message: Uint8Array, type = 30) {
  return { type, payload: message.subarray(16) };
}

/** What the kernel knows after these changes, and whom it spoke to because a keepalive began. */
function applied(kernel: readonly KernelPeer[], changes: readonly Attribute[]) {
  const peers = new Map(kernel.map((peer) => [hex(peer.key), peer]));
  const greeted: string[] = [];
  for (const change of changes) {
    const fields = decodeAttributes(encodeAttribute(change).subarray(4));
    const name = hex(fields.get(1) ?? new Uint8Array());
    const [flags = 0] = fields.get(3) ?? [];
    if (flags === 1) {
      peers.delete(name);
      continue;
    }
    const [keepaliveSeconds = 0] = fields.get(5) ?? [];
    if (keepaliveSeconds > 0 && (peers.get(name)?.keepaliveSeconds ?? 0) === 0) greeted.push(name);
    const [[, first]] = listAttributes(fields.get(9) ?? new Uint8Array()) as [[number, Uint8Array]];
    const address = Buffer.from(decodeAttributes(first).get(2) ?? []).readUInt32BE();
    // An address is one peer's: the last that was given it.
    for (const [other, peer] of peers) {
      peers.set(other, { ...peer, allowed: peer.allowed.filter((each) => each.address !== address) });
    }
    peers.set(name, {
      key: fields.get(1) ?? new Uint8Array(),
      allowed: [{ address, length: 32 }],
      keepaliveSeconds,
      preshared: peers.get(name)?.preshared ?? false,
    });
  }
  return { peers: [...peers.values()], greeted };
}

const specs = fc
  .uniqueArray(
    fc.record({ host: fc.integer({ min: 1, max: 6 }), key: fc.integer({ min: 1, max: 9 }), busy: fc.boolean() }),
    { maxLength: 6, selector: ({ host }) => host },
  )
  .map((peers) => {
    const unique = new Map(peers.map((peer) => [peer.key, peer]));
    return [...unique.values()].map(
      ({ host, key: number, busy }): PeerSpec => ({
        ...{ key: key(number), host: HOST + host, port: 4790, keepaliveSeconds: busy ? 25 : 0 },
      }),
    );
  });

describe("WireGuard's wire form", () => {
  test("asks for the family by name, and reads its number", () => {
    expect(hex(getFamily())).toBe(
      "24000000" +
        "1000" +
        "0500" +
        "01000000" +
        "00000000" +
        "03010000" +
        "0e000200" +
        "7769726567756172" +
        "64000000",
    );
    const answer = encodeMessage({
      type: 16,
      flags: 0,
      header: Uint8Array.of(1, 2, 0, 0),
      attributes: [u16(1, 0x1234)],
    });
    expect(decodeFamily([payloadOf(answer, 16)])).toBe(0x1234);
    expect(decodeFamily([])).toBeUndefined();
  });

  test("a peer speaks for its own address only", () => {
    const peer = peerAttribute({ key: key(1), host: HOST, port: 4790, keepaliveSeconds: 25 });
    expect(hex(encodeAttribute(peer))).toBe(
      `6c000080${"24000100"}${"01".repeat(32)}08000300020000001400${"0400"}0200${"12b6"}c0000207${"00".repeat(8)}` +
        `06000500190000002000${"0980"}1c0000800600010002000000${"08000200"}c00002070500030020000000`,
    );
    expect(hex(encodeAttribute(forgottenPeer(key(2))))).toBe(`300000802400010${"0"}${"02".repeat(32)}0800030001000000`);
  });

  test("a device's peers may come in several messages, and one peer's addresses too", () => {
    const part = (allowed: number) =>
      setDevice(30, "w", {
        port: 4790,
        peers: [peerAttribute({ key: key(3), host: HOST + allowed, port: 1, keepaliveSeconds: 7 })],
      });
    const device = decodeDevice([payloadOf(part(0)), payloadOf(part(1))]);
    expect(device).toEqual({
      publicKey: new Uint8Array(),
      port: 4790,
      peers: [
        {
          key: key(3),
          keepaliveSeconds: 7,
          preshared: false,
          allowed: [
            { address: HOST, length: 32 },
            { address: HOST + 1, length: 32 },
          ],
        },
      ],
    });
    expect(decodeDevice([{ type: 30, payload: encodeAttribute(nested(0, [])) }]).peers).toEqual([]);
  });

  test("a key's public half is the curve's", () => {
    // RFC 7748 §6.1, Alice's.
    const secret = Buffer.from("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a", "hex");
    expect(hex(publicKeyOf(secret))).toBe("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    const one = generatePrivateKey();
    expect(one).toHaveLength(32);
    expect(hex(publicKeyOf(one))).not.toBe(hex(publicKeyOf(generatePrivateKey())));
  });
});

describe("peers", () => {
  test("come to what is wanted, whatever was there, and then nothing more is said", () => {
    fc.assert(
      fc.property(specs, specs, fc.boolean(), fc.boolean(), (before, after, rekeyed, preshared) => {
        const made = applied([], peerChanges(before, [], { rekeyed: false })).peers;
        const peers = made.map((peer, which) => ({ ...peer, preshared: preshared && which % 2 === 0 }));
        const then = applied(peers, peerChanges(after, peers, { rekeyed }));
        const wanted = after.map(({ key: each, host, keepaliveSeconds }) => ({
          ...{ key: each, allowed: [{ address: host, length: 32 }], keepaliveSeconds, preshared: false },
        }));
        const textsOf = (list: readonly unknown[]) => new Set(list.map((peer) => JSON.stringify(peer)));
        expect(textsOf(then.peers)).toEqual(textsOf(wanted));
        expect(peerChanges(after, then.peers, { rekeyed: false })).toEqual([]);
      }),
    );
  });

  test("that need a secret beside the keys are forgotten, made anew and spoken to", () => {
    const spec: PeerSpec = { key: key(1), host: HOST, port: 4790, keepaliveSeconds: 0 };
    const peers = applied([], peerChanges([spec], [], { rekeyed: false })).peers;
    const changes = peerChanges(
      [spec],
      peers.map((peer) => ({ ...peer, preshared: true })),
      { rekeyed: false },
    );
    expect(changes[0]).toEqual(forgottenPeer(key(1)));
    expect(applied(peers, changes)).toEqual({ peers, greeted: [hex(key(1))] });
  });

  test("are spoken to at once when their key or ours is new, idle or not", () => {
    const idle: PeerSpec = { key: key(1), host: HOST, port: 4790, keepaliveSeconds: 0 };
    const busy: PeerSpec = { key: key(2), host: HOST + 1, port: 4790, keepaliveSeconds: 25 };
    const { peers, greeted } = applied([], peerChanges([idle, busy], [], { rekeyed: true }));
    expect(greeted).toEqual([hex(key(2))]);
    expect(applied(peers, peerChanges([idle, busy], peers, { rekeyed: true })).greeted).toEqual([
      hex(key(1)),
      hex(key(2)),
    ]);
    const renewed = [{ ...idle, key: key(3) }, busy];
    expect(applied(peers, peerChanges(renewed, peers, { rekeyed: false })).greeted).toEqual([hex(key(3))]);
  });
});
