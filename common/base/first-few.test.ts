import { expect, test } from "vitest";
import { FirstFew } from "./first-few.ts";

test("the first few are told, each once; the rest are counted", () => {
  const few = new FirstFew(2);
  few.add("a");
  expect(few.take()).toEqual(["a"]);
  expect(few.takeAll("more")).toEqual([]);
  for (const text of ["b", "c", "d"]) few.add(text);
  expect(few.takeAll("more")).toEqual(["b", "2 more"]);
});
