/** Goal: no address is lost nor given twice, whatever went wrong before. Method: books that do not agree with the store. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ServiceSchema, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { AddressAudit } from "./address-audit.ts";
import { AddressBook } from "./address-book.ts";

const networks = [{ networkId: "n", addresses: ["10.0.1.7/24", "fd00::7/64"] }];
const view = {
  tasks: new Map([["t", create(TaskSchema, { id: "t", address: "10.224.0.7/12", networks })]]),
  services: new Map([
    ["s", create(ServiceSchema, { id: "s", vips: [{ networkId: "n", addresses: ["10.0.1.2/24"] }] })],
  ]),
};

function bookOf(entries: Readonly<Record<string, string>>): AddressBook {
  const book = new AddressBook();
  for (const [address, holder] of Object.entries(entries)) book.take(address, holder);
  return book;
}

const RIGHT = { "10.0.1.7/24": "t", "fd00::7/64": "t", "10.224.0.7/12": "t", "10.0.1.2/24": "s" };

test("a book that is right stays as it is", () => {
  const book = bookOf(RIGHT);
  const audit = new AddressAudit(book);
  for (let round = 0; round < 3; round++) expect(audit.run(view)).toEqual({ leaked: 0, missing: 0 });
  expect(book.size).toBe(4);
});

test("what nobody has is given back, but not at the first look: it may be on its way to the store", () => {
  const book = bookOf({ ...RIGHT, "10.0.1.9/24": "gone", "fd00::9/64": "t", "10.0.1.3/24": "s" });
  const audit = new AddressAudit(book);
  expect(audit.run(view)).toEqual({ leaked: 0, missing: 0 });
  book.take("10.0.1.3", "other");
  expect(audit.run(view)).toEqual({ leaked: 2, missing: 0 });
  expect(book.holderOf("10.0.1.9")).toBeUndefined();
  expect(book.holderOf("10.0.1.3"), "taken anew meanwhile").toBe("other");
  expect(book.holderOf("fd00::7")).toBe("t");
});

test("what somebody has is taken", () => {
  const book = bookOf({ "10.0.1.7/24": "t" });
  expect(new AddressAudit(book).run(view)).toEqual({ leaked: 0, missing: 3 });
  expect([book.holderOf("10.224.0.7"), book.holderOf("fd00::7"), book.holderOf("10.0.1.2")]).toEqual(["t", "t", "s"]);
});
