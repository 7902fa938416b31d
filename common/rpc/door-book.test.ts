/**
 * Goal: whoever comes to a door, in whatever order, it holds no more than its limits say, no address keeps others out, and no member
 * is sent away for a stranger. Method: tables, and random comings and goings on a clock that is stepped.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FakeClock } from "../base/fake-clock.ts";
import { DoorBook, type DoorLimits, type Guest, sourceOf } from "./door-book.ts";

const LIMITS: DoorLimits = {
  connectionsMax: 12,
  perCertificateMax: 2,
  strangersMax: 6,
  strangersPerAddressMax: 3,
  strangersPerAddressPerSecond: 1,
};

function guest(address = "192.0.2.1", sent: string[] = []): Guest {
  return { address, leave: () => sent.push(address) };
}

function full(what: string) {
  return expect.objectContaining({ code: "resource_exhausted", message: `no more than ${what}` });
}

describe("a stranger", () => {
  test("comes while his address has few of them, and another address is none of its business", () => {
    const book = new DoorBook(new FakeClock(), LIMITS);
    for (let index = 0; index < 3; index++) book.arrive(guest());
    expect(() => book.arrive(guest())).toThrow(full("3 connections without a certificate from one address"));
    book.arrive(guest("192.0.2.2"));
    expect(book.size).toBe(4);
  });

  test("may not come again and again: so many at once, and so many a second", async () => {
    const clock = new FakeClock();
    const book = new DoorBook(clock, LIMITS);
    const visit = () => {
      const each = guest();
      book.arrive(each);
      book.left(each);
    };
    for (let index = 0; index < 3; index++) visit();
    expect(visit).toThrow(full("1 connections without a certificate a second"));
    await clock.advance(2_000);
    visit();
    visit();
    expect(visit).toThrow(full("1 connections without a certificate a second"));
    expect(book.size).toBe(0);
  });

  test("who has been there longest goes when there are too many in whole", () => {
    const sent: string[] = [];
    const book = new DoorBook(new FakeClock(), LIMITS);
    for (let index = 0; index < 8; index++) book.arrive(guest(`192.0.2.${index}`, sent));
    expect(sent).toEqual(["192.0.2.0", "192.0.2.1"]);
    expect(book.size).toBe(6);
  });
});

describe("a member", () => {
  test("costs his address nothing", () => {
    const book = new DoorBook(new FakeClock(), LIMITS);
    for (let index = 0; index < 9; index++) {
      const each = guest();
      book.arrive(each);
      book.identified(each, `certificate ${index}`);
    }
    expect(book.size).toBe(9);
  });

  test("may come twice with one certificate here", () => {
    const book = new DoorBook(new FakeClock(), LIMITS);
    const guests = [guest(), guest(), guest()] as const;
    for (const each of guests) book.arrive(each);
    book.identified(guests[0], "a");
    book.identified(guests[1], "a");
    expect(() => book.identified(guests[2], "a")).toThrow(full("2 connections under one certificate"));
    book.left(guests[0]);
    book.identified(guests[2], "a");
  });
});

test("property: no limit is passed, and nobody is forgotten or counted twice", async () => {
  const step = fc.record({
    kind: fc.constantFrom("arrive", "identify", "leave", "wait"),
    address: fc.integer({ min: 0, max: 3 }),
    which: fc.nat(20),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 200 }), async (steps) => {
      const clock = new FakeClock();
      const book = new DoorBook(clock, LIMITS);
      const present = new Set<Guest>();
      for (const { kind, address, which } of steps) {
        const chosen = [...present][which % Math.max(1, present.size)];
        try {
          if (kind === "wait") await clock.advance(1_000);
          else if (kind === "leave" && chosen) {
            present.delete(chosen);
            book.left(chosen);
          } else if (kind === "identify" && chosen) book.identified(chosen, `c${which % 3}`);
          else if (kind === "arrive") {
            const each: Guest = {
              address: `a${address}`,
              leave: () => {
                expect(each.fingerprint).toBeUndefined();
                present.delete(each);
              },
            };
            book.arrive(each);
            present.add(each);
          }
        } catch (reason) {
          expect(reason).toMatchObject({ code: "resource_exhausted" });
        }
        const strangers = [...present].filter(({ fingerprint }) => fingerprint === undefined);
        expect(book.size).toBe(present.size);
        expect(present.size).toBeLessThanOrEqual(LIMITS.connectionsMax);
        expect(strangers.length).toBeLessThanOrEqual(LIMITS.strangersMax);
        for (const group of Object.values(Object.groupBy(strangers, (each) => each.address))) {
          expect(group?.length).toBeLessThanOrEqual(LIMITS.strangersPerAddressMax);
        }
      }
      for (const each of present) book.left(each);
      expect(book.size).toBe(0);
    }),
    { numRuns: 200 },
  );
});

test.each([
  ["192.0.2.7", "192.0.2.7"],
  ["::ffff:192.0.2.7", "192.0.2.7"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::1", "2001:db8:1:2::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
])("%s counts as %s", (address, source) => {
  expect(sourceOf(address)).toBe(source);
});
