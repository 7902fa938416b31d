/** The quick reader is right where it answers: the same tree as the `yaml` package's, places included. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { Findings } from "./findings.ts";
import { readPlainYaml } from "./plain-yaml.ts";
import { readWhole } from "./read-yaml.ts";
import { CASES } from "./test-docker.ts";
import type { Tree } from "./tree.ts";

/** A tree as data: what it holds and where. */
function shape(node: Tree | undefined): unknown {
  if (node === undefined) return undefined;
  const at = node.place.offset;
  if (node.kind === "scalar") return { at, value: node.value, text: node.text };
  if (node.kind === "list") return { at, items: node.items.map(shape) };
  return { at, entries: [...node.entries].map(([name, { key, value }]) => [name, key.offset, shape(value)]) };
}

/** Whether the quick reader answers; fails where the package answers otherwise. */
function agrees(text: string): boolean {
  const quick = readPlainYaml(text, { name: "x", lineStarts: [0] });
  if (quick === undefined) return false;
  const findings = new Findings();
  const whole = readWhole(text, "x", findings);
  expect(findings.problems).toEqual([]);
  expect(shape(quick)).toEqual(shape(whole));
  return true;
}

test("the corpus", () => {
  const files = readdirSync(CASES).filter((name) => name.endsWith(".yml"));
  const quick = files.filter((name) => agrees(readFileSync(join(CASES, name), "utf8")));
  // Most files are plain: else the reader would be for nothing.
  expect(quick.length).toBeGreaterThan(files.length / 2);
});

/** Pieces that stack files, and mistakes in them, are made of. */
const piece = fc.oneof(
  fc.constantFrom(
    "a",
    "b",
    "key",
    ":",
    ": ",
    ":\n",
    "- ",
    "-",
    "\n",
    "\n  ",
    "\n    ",
    "\n- ",
    "\n  - ",
    " ",
    "  ",
    "#",
    " # c",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ",",
    "'",
    '"',
    "''",
    "1",
    "0440",
    "1.5",
    "null",
    "~",
    "true",
    "80:80",
    "a b",
    "a: b",
    "a:b",
    "x: y\n",
    "k:\n  ",
    "&a",
    "*a",
    "!t",
    "|",
    ">",
    "%",
    "@",
    "`",
    "?",
    "? ",
    "<<: ",
    "\\",
    "---",
    "...",
    "\t",
    "é",
    "😀",
    "=",
    "$",
    "(",
    ";",
    "+",
    "^",
    "/",
  ),
  fc.string({ maxLength: 2 }),
);

test.each([
  ["pieces at random", fc.array(piece, { maxLength: 14 }).map((pieces) => pieces.join(""))],
  [
    "a map of pieces",
    fc
      .array(
        fc.tuple(
          fc.constantFrom("", "  ", "    ", "- ", "  - "),
          fc.constantFrom("a: ", "b: ", "c:", "d", ""),
          fc.array(piece, { maxLength: 4 }),
        ),
        { maxLength: 6 },
      )
      .map((lines) => lines.map(([indent, key, rest]) => `${indent}${key}${rest.join("")}`).join("\n")),
  ],
  [
    "a flow of pieces",
    fc.array(piece, { maxLength: 8 }).map((pieces) => `a: [${pieces.join("")}]\nb: {c: ${pieces.join("")}}\n`),
  ],
])("%s", (_, texts) => {
  fc.assert(
    fc.property(texts, (text) => void agrees(text)),
    { numRuns: 2000 },
  );
});

test("what the package writes", () => {
  const value = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: "small" },
      fc.oneof(
        fc.string({ maxLength: 6 }),
        fc.integer(),
        fc.boolean(),
        fc.constantFrom(null, "a b", "x:1", "no", "1.10"),
      ),
      fc.array(tie("tree"), { maxLength: 3 }),
      fc.dictionary(fc.stringMatching(/^[a-z][a-z_-]{0,5}$/), tie("tree"), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).tree;
  fc.assert(
    fc.property(
      fc.dictionary(fc.stringMatching(/^[a-z]{1,4}$/), value, { minKeys: 1, maxKeys: 4, noNullPrototype: true }),
      fc.boolean(),
      (tree, flow) => {
        agrees(stringify(tree, { version: "1.2", ...(flow && { collectionStyle: "flow", lineWidth: 0 }) }));
      },
    ),
    { numRuns: 300 },
  );
});
