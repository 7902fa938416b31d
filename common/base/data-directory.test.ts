/** Goal: one daemon per data directory, and an id for life. Method: real directories. */
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { openDataDirectory } from "./data-directory.ts";
import type { NodeId } from "./id.ts";
import { seededRandom } from "./random.ts";

let path = "";

beforeEach(async () => {
  const parent = await mkdtemp(`${tmpdir()}/swarm-data-`);
  path = `${parent}/agent`;
  onTestFinished(() => rm(parent, { recursive: true }));
});

const random = seededRandom(1);
const open = () => openDataDirectory<NodeId>(path, "node-id", random);

test("keeps the id, and is private", async () => {
  const first = await open();
  expect((await stat(path)).mode & 0o777).toBe(0o700);
  first[Symbol.dispose]();
  const second = await open();
  expect(second.id).toBe(first.id);
  second[Symbol.dispose]();
});

test("one holder at a time; one that could not read its id holds nothing", async () => {
  const holder = await open();
  await expect(open()).rejects.toThrow(`${path} is in use by the process with pid ${process.pid}`);
  holder[Symbol.dispose]();
  await writeFile(`${path}/node-id`, "../..");
  await expect(open()).rejects.toThrow("holds no id");
  await expect(open()).rejects.toThrow("holds no id");
});
