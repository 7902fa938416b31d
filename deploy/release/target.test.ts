/** Goal: the licence and the maintainer are the same wherever they are said. Method: the files beside each other; names that break a control file. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { LICENCE, maintainerOf } from "./target.ts";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const { license, author } = JSON.parse(read("package.json"));

test("LICENSE, package.json, its lock and the copyright file name one licence", () => {
  expect(read("LICENSE")).toMatch(/^\s*Apache License\s+Version 2\.0, January 2004\n/);
  expect([license, JSON.parse(read("package-lock.json")).packages[""].license]).toEqual([LICENCE, LICENCE]);
  expect(read("deploy/release/files/copyright")).toContain(`Licence: ${LICENCE};`);
});

test("the maintainer is package.json's author, or who makes the package", () => {
  expect(maintainerOf(author, {})).toBe(author);
  const environment = { DEBFULLNAME: "Ada Example", DEBEMAIL: "ada@packages.example" };
  expect(maintainerOf(author, environment)).toBe("Ada Example <ada@packages.example>");
});

test.each(["nobody", "a\nDepends: all", "a@b c", ""])("an address %j is refused", (address) => {
  expect(() => maintainerOf(author, { DEBEMAIL: address })).toThrow("set DEBFULLNAME and DEBEMAIL");
});
