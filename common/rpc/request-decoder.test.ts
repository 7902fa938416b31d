/**
 * Goal: messages come out as they went in, however they are cut into frames, and what is held of them is what has come. Method:
 * random messages in random pieces; a million pieces of one byte.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { RequestDecoder } from "./request-decoder.ts";

const MIB = 1 << 20;

function framed(content: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(content.length, 1);
  return Buffer.concat([prefix, content]);
}

test("property: whatever the pieces, the messages are those that were sent", () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 2_000 }), { maxLength: 10 });
  fc.assert(
    fc.property(
      messages,
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 40 }),
      (sent, sizes) => {
        const wire = Buffer.concat(sent.map(framed));
        const decoder = new RequestDecoder(2_000);
        const read: Buffer[] = [];
        for (let at = 0, turn = 0; at < wire.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1;
          read.push(...decoder.write(wire.subarray(at, at + size)));
          at += size;
        }
        expect(read).toEqual(sent.map(framed));
      },
    ),
  );
});

test("one that is too large is refused by its length alone", () => {
  const decoder = new RequestDecoder(10);
  expect(decoder.write(framed(new Uint8Array(10)))).toHaveLength(1);
  const prefix = framed(new Uint8Array(11)).subarray(0, 5);
  decoder.write(prefix.subarray(0, 4));
  expect(() => decoder.write(Buffer.concat([prefix.subarray(4), Buffer.from("x")]))).toThrow(
    "received message larger than max (11 vs. 10)",
  );
});

test("a million bytes that come one by one are held as a million bytes", () => {
  const wire = framed(new Uint8Array(MIB));
  const decoder = new RequestDecoder(4 * MIB);
  const before = process.memoryUsage().arrayBuffers;
  let messages = 0;
  let most = 0;
  for (let at = 0; at < wire.length; at++) {
    messages += decoder.write(wire.subarray(at, at + 1)).length;
    if (at % 100_000 === 0) most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  }
  expect(messages).toBe(1);
  // Grown by doubling: with what it grew from, at most about three times as much, before anything is collected.
  expect(most).toBeLessThan(8 * MIB);
});

test("a length that is only claimed takes no memory", () => {
  const before = process.memoryUsage().arrayBuffers;
  const prefix = Buffer.from([0, 0, 0x3f, 0xff, 0xff]);
  const decoders = Array.from({ length: 1_000 }, () => new RequestDecoder(4 * MIB));
  for (const decoder of decoders) decoder.write(prefix);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * MIB);
});
