/** Goal: every address of a range is given once, in the one text that it has. Method: properties over subnets of both families. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { formatIpAddress, parseIpAddress, parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { AddressBook, AddressRange } from "./address-book.ts";

const rangeOf = (book: AddressBook, text: string) => {
  const subnet = parseIpPrefix(text);
  if (!subnet) throw new Error(text);
  return new AddressRange(book, { subnet, reserved: [] });
};

test("a small subnet is given whole, each address once", () => {
  const book = new AddressBook();
  const range = rangeOf(book, "10.0.1.8/29");
  const given = Array.from({ length: 7 }, (_, index) => range.allocate(`t${index}`));
  expect(given).toEqual([...[9, 10, 11, 12, 13, 14].map((last) => `10.0.1.${last}/29`), undefined]);
  book.release("10.0.1.11/29", "t0");
  expect(range.allocate("t7")).toBeUndefined();
  book.release("10.0.1.11", "t2");
  expect([range.allocate("t7"), range.allocate("t8")]).toEqual(["10.0.1.11/29", undefined]);
});

test("IPv6 addresses are as RFC 5952 writes them, and the next one follows whatever the store had", () => {
  const group = fc.constantFrom("0", "0", "1", "fd00", "db8");
  const offset = fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.constantFrom(0xfffe, 0xffff, 0x10000, 0x12345, 0xffff_fff0),
  );
  fc.assert(
    fc.property(
      fc.array(group, { minLength: 7, maxLength: 7 }),
      fc.constantFrom(48, 64, 80, 96),
      offset,
      (groups, length, at) => {
        const subnet = parseIpPrefix(`fd00:${groups.join(":")}/${length}`);
        if (!subnet) throw new Error("it is a prefix");
        const first = subnet.value - (subnet.value % (1n << BigInt(128 - length)));
        const text = (low: number) => formatIpAddress({ family: 6, value: first + BigInt(low) });
        const range = new AddressRange(new AddressBook(), { subnet, reserved: [] });
        range.passOver(`${text(at)}/${length}`);
        const next = range.allocate("t")?.split("/")[0] ?? "";
        expect(next).toBe(text(at + 1));
        expect(parseIpAddress(next)?.value).toBe(first + BigInt(at + 1));
      },
    ),
    { numRuns: 500 },
  );
});
