/** Goal: one agent per data directory, and a node id for life. Method: real directories, locks of dead holders. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { seededRandom } from "../common/base/random.ts";
import { openDataDirectory } from "./data-directory.ts";

let path = "";

beforeEach(async () => {
  const parent = await mkdtemp(`${tmpdir()}/swarm-data-`);
  path = `${parent}/agent`;
  onTestFinished(() => rm(parent, { recursive: true }));
});

const random = seededRandom(1);

test("keeps the node's id, and is private", async () => {
  const first = await openDataDirectory(path, random);
  expect((await stat(path)).mode & 0o777).toBe(0o700);
  first[Symbol.dispose]();
  const second = await openDataDirectory(path, random);
  expect(second.nodeId).toBe(first.nodeId);
  second[Symbol.dispose]();
  await writeFile(`${path}/node-id`, "../..");
  await expect(openDataDirectory(path, random)).rejects.toThrow("holds no node id");
});

test("one holder at a time; a dead one's lock is taken over", async () => {
  const holder = await openDataDirectory(path, random);
  await expect(openDataDirectory(path, random)).rejects.toThrow(`another agent (pid ${process.pid}) uses ${path}`);
  const [pid, startTime, bootId] = (await readFile(`${path}/lock`, "utf8")).trim().split(" ");
  for (const dead of [`${pid} 1 ${bootId}`, `999999999 ${startTime} ${bootId}`, `${pid} ${startTime} another`, ""]) {
    await writeFile(`${path}/lock`, dead);
    (await openDataDirectory(path, random))[Symbol.dispose]();
  }
  holder[Symbol.dispose]();
});
