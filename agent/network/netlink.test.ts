import { describe, expect, test } from "vitest";
import {
  decodeAnswer,
  decodeAttributes,
  encodeAttribute,
  encodeMessage,
  exchange,
  type Netlink,
  nested,
  text,
  u8,
  u32,
} from "./netlink.ts";

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Answers everything with an NLMSG_ERROR of this (negative) errno. */
function refusing(errno: number): Netlink {
  const header = Buffer.alloc(4);
  header.writeInt32LE(errno);
  return { netlink: () => Promise.resolve(encodeMessage({ type: 2, flags: 0, header })) };
}

describe("netlink's wire form", () => {
  test("pads attributes to four bytes and counts the padding out of their length", () => {
    expect(hex(encodeAttribute(text(3, "lo")))).toBe("07000300" + "6c6f0000");
    expect(hex(encodeAttribute(u8(5, 1)))).toBe("05000500" + "01000000");
    expect(hex(encodeAttribute(nested(18, [u32(1, 7)])))).toBe("0c001280" + "08000100" + "07000000");
  });

  test("puts the whole length first", () => {
    const message = encodeMessage({ type: 16, flags: 5, header: Uint8Array.of(1, 2), attributes: [u32(1, 1)] });
    expect(hex(message)).toBe("1c000000" + "1000" + "0500" + "01000000" + "00000000" + "01020000" + "0800010001000000");
  });

  test("reads back what it wrote, several messages in one answer", () => {
    const message = encodeMessage({
      type: 30,
      flags: 0,
      header: Uint8Array.of(9, 9, 9, 9),
      attributes: [text(3, "eth0")],
    });
    const done = encodeMessage({ type: 3, flags: 0, header: new Uint8Array(4) });
    const { messages } = decodeAnswer(Buffer.concat([message, message, done]));
    expect(messages.map(({ type }) => type)).toEqual([30, 30]);
    expect(hex(decodeAttributes(messages[1]?.payload.subarray(4) ?? new Uint8Array()).get(3) ?? new Uint8Array())).toBe(
      "6574683000",
    );
  });

  test("refuses lengths that do not fit", () => {
    const message = encodeMessage({ type: 30, flags: 0, header: new Uint8Array(4) });
    message[0] = 200;
    expect(() => decodeAnswer(message)).toThrow("netlink: message of impossible length 200");
    message[0] = 3;
    expect(() => decodeAnswer(message)).toThrow("impossible length 3");
    expect(() => decodeAttributes(Uint8Array.of(9, 0, 1, 0, 0, 0))).toThrow("attribute of impossible length 9");
  });

  test("a dump that broke off is an error, not a short list", () => {
    const done = encodeMessage({ type: 3, flags: 2, header: Uint8Array.of(0xff - 3, 0xff, 0xff, 0xff) });
    expect(decodeAnswer(done)).toEqual({ messages: [], errno: "EINTR" });
  });

  test("an acknowledgement is no refusal", async () => {
    const request = { protocol: 0, message: new Uint8Array(16), label: "x" };
    expect(await exchange(refusing(0), request, new AbortController().signal)).toEqual([]);
  });

  test("tells a tolerated refusal from others", async () => {
    const request = { protocol: 0, message: new Uint8Array(16), label: "delete link x", tolerated: ["ENODEV"] };
    const { signal } = new AbortController();
    expect(await exchange(refusing(-19), request, signal)).toEqual([]);
    await expect(exchange(refusing(-1), request, signal)).rejects.toThrow("delete link x: EPERM");
  });
});
