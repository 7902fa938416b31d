// Goal: docker cp's words and table. Method: each line of it.
import { describe, expect, test } from "vitest";
import { type CopyDestination, parseCopyEnd, placeCopy, saysDirectory, sourceName } from "./rules.ts";

test.each<[string, object | string]>([
  ["web.1:/etc/hosts", { kind: "task", reference: "web.1", path: "/etc/hosts" }],
  ["web:etc:x", { kind: "task", reference: "web", path: "etc:x" }],
  ["/abs:path", { kind: "local", path: "/abs:path" }],
  ["./rel:path", { kind: "local", path: "./rel:path" }],
  ["../x", { kind: "local", path: "../x" }],
  ["plain", { kind: "local", path: "plain" }],
  ["-", { kind: "stream" }],
  ["", "must not be empty"],
  [":/x", '":/x" is not TASK:PATH'],
  ["web:", '"web:" is not TASK:PATH'],
])("%j", (text, expected) => {
  const parsed = parseCopyEnd(text);
  expect(parsed.ok ? parsed.value : parsed.problem).toEqual(expected);
});

test.each([
  ["/etc/hosts", "hosts", false],
  ["/etc/", "etc", true],
  ["/etc/.", ".", true],
  [".", ".", true],
  ["/", ".", true],
  ["a/../b", "b", false],
])("%s is called %s", (path, name, directory) => {
  expect([sourceName(path), saysDirectory(path)]).toEqual([name, directory]);
});

describe("what comes to lie where", () => {
  const there = (path: string): CopyDestination => ({ path, exists: true, isDirectory: true });
  const fileAt = (path: string): CopyDestination => ({ path, exists: true, isDirectory: false });
  const nothing = (path: string): CopyDestination => ({ path, exists: false, isDirectory: false });
  const [aFile, aTree, content] = [
    { name: "f", isDirectory: false },
    { name: "t", isDirectory: true },
    { name: ".", isDirectory: true },
  ];
  test.each<[object, CopyDestination, string]>([
    [aFile, there("/d"), "/d f"],
    [aTree, there("/d/"), "/d/ t"],
    [content, there("/d"), "/d ."],
    [aFile, fileAt("/d/g"), "/d g"],
    [aTree, fileAt("/d/g"), "cannot copy a directory to where a file is"],
    [content, fileAt("/d/g"), "cannot copy a directory to where a file is"],
    [aFile, nothing("/d/new"), "/d new"],
    [aFile, nothing("/d/new/"), "no such directory: /d/new/"],
    [aFile, nothing("/d/new/."), "no such directory: /d/new/."],
    [aTree, nothing("/d/new"), "/d new"],
    [aTree, nothing("/d/new/"), "/d new"],
    [content, nothing("/d/new"), "/d new"],
    [aTree, nothing("/new"), "/ new"],
    [aTree, nothing("/d/new/."), "/d/new ."],
  ])("%j to %j: %s", (source, destination, expected) => {
    const placed = placeCopy(source as typeof aFile, destination);
    expect(placed.ok ? `${placed.value.directory} ${placed.value.name}` : placed.problem).toBe(expected);
  });
});
