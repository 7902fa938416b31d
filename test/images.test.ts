import { describe, expect, test } from "vitest";
import { busyboxFiles } from "./images.ts";

describe("busyboxFiles", () => {
  test("every name of the program is executable, for engines that take a file's mode from its last name", () => {
    const programs = busyboxFiles().filter(({ path, type }) => path.startsWith("bin/") && type !== "5");
    expect(programs.length).toBeGreaterThan(20);
    expect(programs.filter(({ mode }) => mode !== 0o755)).toEqual([]);
  });
});
