import { describe, expect, test } from "vitest";
import { DETACH_KEYS_DEFAULT, DetachScanner, parseDetachKeys } from "./detach-keys.ts";

describe("--detach-keys", () => {
  test.each([
    [DETACH_KEYS_DEFAULT, [16, 17]],
    ["ctrl-a", [1]],
    ["ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", [0, 27, 28, 29, 30, 31]],
    ["ctrl-a,d", [1, 100]],
  ])("%s", (text, keys) => {
    expect(parseDetachKeys(text)).toEqual({ ok: true, value: keys });
  });

  test.each(["", "ctrl-", "ctrl-P", "ctrl-1", "ab", "a,,b", "é"])("refused: %j", (text) => {
    expect(parseDetachKeys(text)).toMatchObject({ ok: false });
  });
});

describe("what is typed", () => {
  const typed = (...parts: readonly string[]) => {
    const scanner = new DetachScanner([16, 17]);
    return parts.map((part) => {
      const { pass, detach } = scanner.push(Buffer.from(part, "latin1"));
      return Buffer.from(pass).toString("latin1") + (detach ? "!" : "");
    });
  };

  test.each<[string[], string[]]>([
    [["ls\r"], ["ls\r"]],
    [["a\x10\x11b"], ["a!"]],
    [
      ["\x10", "\x11"],
      ["", "!"],
    ],
    // Ctrl-P alone comes with the next key.
    [
      ["\x10", "x"],
      ["", "\x10x"],
    ],
    [
      ["\x10\x10", "\x11"],
      ["\x10", "!"],
    ],
    [["\x11\x10"], ["\x11"]],
  ])("%j", (parts, passed) => {
    expect(typed(...parts)).toEqual(passed);
  });
});
