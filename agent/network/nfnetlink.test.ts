import { describe, expect, test } from "vitest";
import { ipv4Bytes, parseIpv4 } from "./address.ts";
import { bytes, decodeAnswer, encodeMessage, nested, u8 } from "./netlink.ts";
import { decodeConnections, decodeGeneration, deleteConnection, dumpConnections, getGeneration } from "./nfnetlink.ts";

const TARGET = parseIpv4("10.224.0.7") ?? 0;
const HOST = parseIpv4("192.0.2.1") ?? 0;
const CLIENT = parseIpv4("192.0.2.2") ?? 0;

/** What ctnetlink sends of one flow: client → host:5353, answered by the target; of TCP the state too. */
function flow(protocol: number, port: number, target: number, state?: number): Uint8Array {
  const ports = [u8(1, protocol), bytes(2, Uint8Array.of(0x0f, 0xa0)), bytes(3, Uint8Array.of(port >> 8, port & 255))];
  return encodeMessage({
    type: 1 << 8,
    flags: 2,
    header: Uint8Array.of(2, 0, 0, 0),
    attributes: [
      nested(1, [nested(1, [bytes(1, ipv4Bytes(CLIENT)), bytes(2, ipv4Bytes(HOST))]), nested(2, ports)]),
      nested(2, [nested(1, [bytes(1, ipv4Bytes(target))])]),
      ...(state === undefined ? [] : [nested(4, [nested(1, [u8(1, state)])])]),
      bytes(12, Uint8Array.of(1, 2, 3, 4)),
    ],
  });
}

describe("netfilter's netlink", () => {
  test("reads the generation of the rules", () => {
    expect(Buffer.from(getGeneration()).toString("hex")).toBe("14000000100a0500010000000000000000000000");
    const header = Uint8Array.of(0, 0, 0, 7);
    const attributes = [bytes(1, Uint8Array.of(0, 0, 1, 2))];
    const answer = encodeMessage({ type: (10 << 8) | 15, flags: 0, header, attributes });
    expect(decodeGeneration(decodeAnswer(answer).messages)).toBe(258);
    expect(decodeGeneration([])).toBeUndefined();
  });

  test("filters connections again, for kernels that do not", () => {
    const { messages } = decodeAnswer(Buffer.concat([flow(17, 5353, TARGET), flow(6, 5353, TARGET), flow(17, 53, 1)]));
    expect(decodeConnections(messages, { replySources: new Set([TARGET]) })).toHaveLength(2);
    expect(decodeConnections(messages, { protocol: 17, destinationPort: 5353 })).toHaveLength(1);
    expect(decodeConnections(messages, { protocol: 17, destinationPort: 54 })).toEqual([]);
    expect(decodeConnections(messages, { protocol: 17 })).toHaveLength(2);
    expect(decodeConnections(messages, { replySources: new Set([TARGET]), protocol: 6 })).toHaveLength(1);
  });

  test("knows a connection that both sides have closed", () => {
    const flows = [3, 7, undefined].map((state) => flow(6, 80, TARGET, state));
    const found = decodeConnections(decodeAnswer(Buffer.concat(flows)).messages, { replySources: new Set([TARGET]) });
    expect(found.map(({ closed }) => closed)).toEqual([false, true, false]);
  });

  test("asks for the connections of an address, and deletes by who answers, since clients use their ports again", () => {
    const dump = Buffer.from(dumpConnections(4, { replySources: new Set([TARGET]) })).toString("hex");
    expect(dump).toContain(`0c000180${"08000100"}0ae00007`);
    const [found] = decodeConnections(decodeAnswer(flow(17, 5353, TARGET)).messages, {
      replySources: new Set([TARGET]),
    });
    const sent = Buffer.from(found === undefined ? [] : deleteConnection(found)).toString("hex");
    expect(sent, "the reply's tuple").toContain(`10000280${"0c000180"}080001000ae00007`);
    expect(sent, "the first direction's").not.toContain(Buffer.from(ipv4Bytes(CLIENT)).toString("hex"));
    expect(sent).toContain("08000c0001020304");
  });
});
