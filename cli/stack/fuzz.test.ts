/** Whatever a file holds, it is read or refused with a place: nothing throws, nothing hangs. Method: files of the corpus, damaged at random. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CASES } from "./test-docker.ts";
import { load, printed } from "./test-files.ts";

const TEXTS = readdirSync(CASES)
  .filter((name) => name.endsWith(".yml") && name !== "many-services.yml")
  .map((name) => readFileSync(join(CASES, name), "utf8"));

const PIECES = [
  ":",
  "-",
  "\n",
  "  ",
  "{",
  "}",
  "[",
  "]",
  "&a ",
  "*a",
  "!reset ",
  "!override ",
  "!!str ",
  "${",
  "}",
  "$",
  "'",
  '"',
  "#",
  "|",
  "null",
  "true",
  "1",
  "-1",
  "1e99",
  "x-",
  "<<: ",
  "? ",
  "\t",
  "\0",
  "services",
  "web",
  "image",
  "deploy",
];

/** One change: a piece put in, a stretch taken out, or a line moved to another place. */
const damage = fc.tuple(fc.constantFrom("insert", "remove", "move"), fc.nat(), fc.nat(), fc.constantFrom(...PIECES));

function damaged(text: string, [kind, first, second, piece]: readonly [string, number, number, string]): string {
  if (text === "") return piece;
  const at = first % text.length;
  if (kind === "insert") return text.slice(0, at) + piece + text.slice(at);
  if (kind === "remove") return text.slice(0, at) + text.slice(at + 1 + (second % 12));
  const lines = text.split("\n");
  const [line = ""] = lines.splice(first % lines.length, 1);
  lines.splice(second % (lines.length + 1), 0, line);
  return lines.join("\n");
}

test("damaged files", () => {
  fc.assert(
    fc.property(fc.constantFrom(...TEXTS), fc.array(damage, { minLength: 1, maxLength: 5 }), (text, changes) => {
      const content = changes.reduce(damaged, text);
      const loaded = load(content);
      if (loaded.ok) expect(printed(content, "yaml")).not.toBe("");
      else
        for (const { path, line, message } of loaded.problems)
          expect([path, line, message]).toEqual([expect.any(String), expect.any(Number), expect.stringMatching(/\S/)]);
    }),
    { numRuns: 500 },
  );
});
