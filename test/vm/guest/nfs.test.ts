/**
 * Goal: volumes of `type=nfs` hold what others hold of them; a server that is away holds up its own tasks alone, and none of
 * them for ever. Method: a real server and a node but its session, in a kernel that has both sides.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestNode, type TestService } from "../../../agent/test-node.ts";
import { ContainerSpecSchema, Mount_Type, TaskSpecSchema, TaskState } from "../../../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../../eventually.ts";
import { buildParts, busyboxFiles } from "../../images.ts";
import { directory, file } from "../../tar.ts";
import { listenInSilence, serveFiles, startFileServer } from "./file-server.ts";

const EXPORT = "/root/export";
const WAIT_MS = 30_000;

let node: TestNode;

beforeAll(async () => {
  startFileServer(EXPORT);
  node = await TestNode.start();
  const files = [{ ...directory("data", 0o2750), uid: 999, gid: 999 }, file("data/seed", "from the image\n", 0o640)];
  const layers = [{ files: [...busyboxFiles(), ...files] }];
  node.source.add("seed:1", buildParts({ name: "seed:1", layers, config: { Env: ["PATH=/bin"] } }));
});

afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

function task(script: string, o: string, device = ":/"): TestService {
  const volumeOptions = { type: "nfs", device, o };
  const container = create(ContainerSpecSchema, {
    image: "seed:1",
    args: ["sh", "-c", script],
    stopGracePeriod: durationFromMs(1_000),
    mounts: [{ type: Mount_Type.VOLUME, source: "shared", target: "/data", volumeOptions }],
  });
  return { spec: create(TaskSpecSchema, { container }) };
}

const OPTIONS = "addr=127.0.0.1,vers=4.2";

async function output(service: TestService): Promise<string> {
  const id = node.assign(service);
  await node.reaches(id, TaskState.COMPLETE, WAIT_MS);
  return node.logs(id);
}

/** The processes that serve requests to the node's runner. */
function runnersChildren(): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || !existsSync(`/proc/${pid}/stat`)) return false;
    const [, name, parent] = /\((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
    return name === "swarm-runner" && parent !== `${process.pid}`;
  });
}

test("an empty one begins with what the image has there; what one task writes others and the server see", async () => {
  expect(await output(task("cat /data/seed; echo written > /data/new; chown 5:6 /data/new", OPTIONS))).toBe(
    "from the image\n",
  );
  expect(readFileSync(`${EXPORT}/new`, "utf8")).toBe("written\n");
  expect(statSync(`${EXPORT}/new`)).toMatchObject({ uid: 5, gid: 6 });
  expect(statSync(EXPORT)).toMatchObject({ uid: 999, gid: 999, mode: 0o42750 });
  writeFileSync(`${EXPORT}/new`, "by the server\n");
  expect(await output(task("cat /data/new; rm /data/seed", OPTIONS))).toBe("by the server\n");
  expect(await output(task("ls /data", OPTIONS)), "nothing is filled twice").toBe("new\n");
});

test("options and the mount's own read-only are the kernel's; a name is looked up; two tasks share one mount", async () => {
  expect(await output(task("touch /data/x 2>&1; true", `${OPTIONS},ro`))).toContain("Read-only file system");
  const keeps = "echo $$ > /data/running; trap 'exit 0' TERM; while true; do sleep 0.1; done";
  const service = task(keeps, "addr=localhost,vers=4.2");
  const [one, other] = [node.assign(service), node.assign(service)];
  await node.reaches(one, TaskState.RUNNING, WAIT_MS);
  await node.reaches(other, TaskState.RUNNING, WAIT_MS);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  expect(mounts.filter((line) => line.includes(`${node.directory}/mounts/`))).toHaveLength(1);
  for (const id of [one, other]) node.stop(id);
  await eventually(() => expect(readdirSync(`${node.directory}/mounts`)).toEqual([]), { timeoutMs: WAIT_MS });
});

test("what the server does not have is said", async () => {
  const refused = await node.reaches(node.assign(task("true", OPTIONS, ":/absent")), TaskState.REJECTED, WAIT_MS);
  expect(refused.error).toContain("volume shared: mount nfs :/absent: ENOENT");
});

test("a server that does not answer holds nothing once its task is not wanted any more", async () => {
  const silent = await listenInSilence();
  const waiting = node.assign(task("true", `${OPTIONS},port=${silent.port}`));
  await node.reaches(waiting, TaskState.PREPARING, WAIT_MS);
  await eventually(() => expect(runnersChildren()).toHaveLength(1), { timeoutMs: WAIT_MS });
  node.stop(waiting);
  await node.reaches(waiting, TaskState.SHUTDOWN, WAIT_MS);
  await eventually(() => expect(runnersChildren()).toEqual([]), { timeoutMs: WAIT_MS });
  silent.close();
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  expect(mounts).not.toContain(`${node.directory}/mounts/`);
});

test("a server that goes away: others' tasks start, its own wait, end when told to, or go on when it is back", async () => {
  const writes = "i=0; while true; do i=$((i + 1)); echo $i > /data/count; sleep 0.1; done";
  const [stays, ends] = [node.assign(task(writes, OPTIONS)), node.assign(task(writes, OPTIONS))];
  for (const id of [stays, ends]) await node.reaches(id, TaskState.RUNNING, WAIT_MS);
  await eventually(() => expect(Number(readFileSync(`${EXPORT}/count`, "utf8"))).toBeGreaterThan(1));
  serveFiles(0);
  const late = Array.from({ length: 6 }, () => node.assign(task("true", OPTIONS)));
  for (const id of late) await node.reaches(id, TaskState.PREPARING, WAIT_MS);
  const plain = create(TaskSpecSchema, { container: { image: "seed:1", args: ["echo", "here"] } });
  expect(await output({ spec: plain }), "a task with nothing of that server").toBe("here\n");
  for (const id of [ends, ...late]) node.stop(id);
  for (const id of [ends, ...late]) await node.reaches(id, TaskState.SHUTDOWN, WAIT_MS);
  const before = readFileSync(`${EXPORT}/count`, "utf8");
  serveFiles(4);
  await eventually(() => expect(readFileSync(`${EXPORT}/count`, "utf8")).not.toBe(before), { timeoutMs: 60_000 });
  expect(node.status(stays)?.state).toBe(TaskState.RUNNING);
}, 180_000);
