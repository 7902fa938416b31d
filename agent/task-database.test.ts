/** Goal: records come back as they were, and a damaged file is set aside. Method: each file is cut at many lengths. */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { create, equals } from "@bufbuild/protobuf";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import type { TaskId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { EndpointsRecordSchema, TaskRecordSchema } from "../proto/gen/swarm/v1/agent_pb.js";
import { ServiceEndpointSchema } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { TaskState, TaskStatusSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { FileTaskDatabase, MemoryTaskDatabase, type TaskDatabase } from "./task-database.ts";

const ID = "a".repeat(25) as TaskId;
const RECORD = create(TaskRecordSchema, {
  task: { id: ID, serviceId: "web", specVersion: 3n, address: "10.224.0.7/12" },
  template: { serviceId: "web", specVersion: 3n, spec: { container: { image: "demo/web:1", args: ["a", "b"] } } },
  status: { state: TaskState.RUNNING, message: "started" },
  bootId: "8c2b1c86-65a8-4d1b-9d6c-1b0a4f3a2c11",
});

let root = "";
let directory = "";

const openFiles = () => new FileTaskDatabase({ tasks: directory, endpoints: `${root}/endpoints.pb` }, silentLogger);

beforeEach(async () => {
  root = await mkdtemp(`${tmpdir()}/swarm-tasks-`);
  directory = `${root}/tasks`;
  await mkdir(directory);
  onTestFinished(() => rm(root, { recursive: true }));
});

describe.each<[string, () => TaskDatabase]>([
  ["files", openFiles],
  ["memory", () => new MemoryTaskDatabase()],
])("%s", (_name, open) => {
  test("keeps, replaces and forgets", async () => {
    const database = open();
    expect(await database.load()).toEqual([]);
    await database.put(RECORD);
    const newer = { ...RECORD, status: create(TaskStatusSchema, { state: TaskState.FAILED }) };
    await database.put(newer);
    const [read] = await database.load();
    expect(read && equals(TaskRecordSchema, read, newer)).toBe(true);
    expect(await database.loadEndpoints()).toBeUndefined();
    const endpoint = create(ServiceEndpointSchema, { serviceId: "web", ports: [{ publishedPort: 80 }] });
    const record = create(EndpointsRecordSchema, { endpoints: [endpoint] });
    await database.putEndpoints(record);
    expect(await database.loadEndpoints()).toEqual(record);
    await database.delete(ID);
    await database.delete(ID);
    expect(await database.load()).toEqual([]);
  });
});

test("a file cut anywhere, or garbage, is set aside", async () => {
  const database = openFiles();
  const path = `${directory}/${ID}.pb`;
  await database.put(RECORD);
  const { length } = await readFile(path);
  for (let cut = 0; cut < length; cut++) {
    await database.put(RECORD);
    await truncate(path, cut);
    expect(await database.load(), `cut at ${cut}`).toEqual([]);
    expect(await readdir(directory)).toEqual([`${ID}.pb.bad`]);
  }
  await database.put(RECORD);
  await rename(path, `${path}.new`);
  expect(await database.load()).toHaveLength(1);
  expect(await database.load()).toHaveLength(1);
  await writeFile(path, new Uint8Array(200).fill(0xa5));
  await writeFile(`${directory}/${ID}.pb.new`, "half");
  await writeFile(`${directory}/notes.txt`, "not ours");
  expect(await database.load()).toEqual([]);
  expect((await readdir(directory)).sort()).toEqual([`${ID}.pb.bad`, "notes.txt.bad"]);
});

test("an id is checked before it becomes a path", async () => {
  const database = openFiles();
  await expect(database.delete("../x" as TaskId)).rejects.toThrow("not a task id");
});
