/**
 * Goal: volumes hold what Docker's would, hostile content leads nowhere, and nothing is deleted that is used or is not ours.
 * Method: a whole node but its session; busybox tasks write and look, the host looks too.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, afterEach, beforeAll, expect, onTestFinished } from "vitest";
import {
  ContainerSpecSchema,
  Mount_Type,
  type MountSchema,
  TaskSpecSchema,
  TaskState,
} from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { buildParts, busyboxFiles } from "../test/images.ts";
import { isRoot, rootTest } from "../test/privileges.ts";
import { directory, file, symlink } from "../test/tar.ts";
import { TestNode, type TestService } from "./test-node.ts";
import { birthMs } from "./volume-watch.ts";

const NEVER = new AbortController().signal;
const FOREVER = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

let node: TestNode;

beforeAll(async () => {
  if (!isRoot) return;
  node = await TestNode.start();
  const folders = [
    { ...directory("data", 0o2750), uid: 999, gid: 999 },
    { ...directory("data/sub", 0o700), uid: 7, gid: 8, mtimeSeconds: 1_000_000 },
  ];
  const files = [{ ...file("data/seed", "from the image\n", 0o640), uid: 999, gid: 999 }, symlink("seed", "data/link")];
  node.source.add(
    "seed:1",
    buildParts({
      name: "seed:1",
      layers: [
        { files: busyboxFiles() },
        { files: [...folders, ...files] },
        { files: [...folders, file("data/sub/late", "second layer\n")] },
      ],
      config: { Env: ["PATH=/bin"] },
    }),
  );
});

afterEach(async () => {
  if (!isRoot) return;
  node.clear();
  await eventually(async () => {
    expect(await node.cgroups()).toEqual([]);
    expect(readdirSync(`${node.directory}/containers`)).toEqual([]);
    expect(readdirSync(`${node.directory}/mounts`)).toEqual([]);
  });
});

afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

function task(script: string, ...mounts: MessageInitShape<typeof MountSchema>[]): TestService {
  const container = create(ContainerSpecSchema, {
    image: "seed:1",
    args: ["sh", "-c", script],
    stopGracePeriod: durationFromMs(1_000),
    mounts: mounts.map((mount) => ({ type: Mount_Type.VOLUME, target: "/data", ...mount })),
  });
  return { spec: create(TaskSpecSchema, { container }) };
}

async function output(service: TestService): Promise<string> {
  const id = node.assign(service);
  await node.reaches(id, TaskState.COMPLETE);
  return node.logs(id);
}

async function refusal(service: TestService): Promise<string> {
  return (await node.reaches(node.assign(service), TaskState.REJECTED)).error;
}

rootTest("a new volume begins with what the image has there: content, owners, modes, times", async () => {
  const look = "cd /data; stat -c '%n %u:%g %a %F' . seed link sub; stat -c %Y sub; cat link sub/late";
  const expected = [
    ". 999:999 2750 directory",
    "seed 999:999 640 regular file",
    "link 0:0 777 symbolic link",
    "sub 7:8 700 directory",
    "1000000",
    "from the image",
    "second layer",
    "",
  ].join("\n");
  expect(await output(task(look, { source: "named" }))).toBe(expected);
  expect(await output(task(look, {}))).toBe(expected);
  expect(await output(task("ls /data", { source: "none", volumeNoCopy: true }))).toBe("");
  // What is there stays: a volume is filled once.
  await output(task("rm /data/seed /data/link; echo mine > /data/own", { source: "named" }));
  expect(await output(task("cd /data; echo *", { source: "named" }))).toBe("own sub\n");
  expect(await output(task("ls /new", { source: "other", target: "/new" }))).toBe("");
});

rootTest("a tmpfs volume is shared by the tasks that use it, and gone after the last", async () => {
  const mount = { source: "fast", volumeOptions: { type: "tmpfs", device: "tmpfs", o: "size=64k,mode=700" } };
  const holder = node.assign(task(FOREVER, mount));
  await node.reaches(holder, TaskState.RUNNING);
  await output(task("echo shared > /data/x", mount));
  await node.restart();
  expect(
    await output(
      task(
        "cat /data/x; stat -f -c %T /data; dd if=/dev/zero of=/data/big bs=1k count=100 2>&1 | grep -o 'No space.*'",
        mount,
      ),
    ),
  ).toBe("shared\ntmpfs\nNo space left on device\n");
  node.stop(holder);
  await node.reaches(holder, TaskState.SHUTDOWN);
  await eventually(() => expect(readdirSync(`${node.directory}/mounts`)).toEqual([]));
  expect(await output(task("cd /data; echo *", { ...mount, volumeNoCopy: true }))).toBe("*\n");
});

rootTest("a part of a volume; no link in it leads out", async () => {
  await output(
    task(
      "mkdir -p /data/a/b; echo inner > /data/a/b/x; ln -s a/b /data/short; ln -s /etc /data/out; ln -s ../../../../../../etc /data/up",
      { source: "parts" },
    ),
  );
  expect(await output(task("cat /data/x", { source: "parts", volumeSubpath: "a/b" }))).toBe("inner\n");
  expect(await output(task("cat /data/x", { source: "parts", volumeSubpath: "short" }))).toBe("inner\n");
  expect(await output(task("cat /file", { source: "parts", volumeSubpath: "a/b/x", target: "/file" }))).toBe("inner\n");
  for (const volumeSubpath of ["out", "up", "missing"]) {
    expect(await refusal(task("true", { source: "parts", volumeSubpath }))).toBe(
      `volume parts: subpath "${volumeSubpath}" does not exist`,
    );
  }
});

rootTest("a directory of the host, and file systems that are not to be had", async () => {
  const device = `${node.directory}/host`;
  mkdirSync(device);
  onTestFinished(() => rmSync(device, { recursive: true }));
  writeFileSync(`${device}/x`, "the host's\n");
  const bind = (path: string, o = "bind") => ({ source: "web", volumeOptions: { type: "none", device: path, o } });
  expect(await output(task("cat /data/x; ls /data", bind(device)))).toBe("the host's\nx\n");
  expect(await output(task("echo no > /data/x || echo refused", bind(device, "bind,ro")))).toContain("refused");
  expect(await refusal(task("true", bind(`${device}/none`)))).toContain("bind source path does not exist");
  const foreign = { source: "far", volumeOptions: { type: "nosuchfs", device: "x" } };
  expect(await refusal(task("true", foreign))).toContain("volume far: this node's kernel has no nosuchfs");
});

rootTest("a volume that was removed is deleted when nobody uses it, and never one that was made since", async () => {
  const holder = node.assign(task(FOREVER, { source: "old" }));
  await node.reaches(holder, TaskState.RUNNING);
  const path = `${node.directory}/volumes/old`;
  const createdMs = birthMs(statSync(path));
  await expect(node.executor.purgeVolume("old", createdMs, NEVER)).rejects.toThrow("volume old is in use");
  const createdAt = { seconds: BigInt(Math.floor(createdMs / 1000)), nanos: (createdMs % 1000) * 1e6 };
  node.apply([{ action: 1, item: { case: "volume", value: { name: "old", createdAt } } }]);
  node.stop(holder);
  await node.reaches(holder, TaskState.SHUTDOWN);
  await eventually(() => expect(existsSync(path)).toBe(false));
  await output(task("echo new > /data/x", { source: "old" }));
  await node.executor.purgeVolume("old", createdMs, NEVER);
  expect(readFileSync(`${path}/x`, "utf8")).toBe("new\n");
  await node.executor.purgeVolume("never-was", createdMs, NEVER);
});

rootTest("what a crash left is no volume, and labels are told", async () => {
  await output(task("true", { source: "labelled", volumeLabels: { tier: "gold" } }));
  await node.restart(async () => {
    mkdirSync(`${node.directory}/volumes/.new-9-1/half`, { recursive: true });
    mkdirSync(`${node.directory}/mounts/left`);
  });
  expect(readdirSync(`${node.directory}/volumes`).filter((name) => name.startsWith("."))).toEqual([]);
  expect(readdirSync(`${node.directory}/mounts`)).toEqual([]);
  for await (const volumes of node.executor.volumes(NEVER)) {
    expect(volumes.find(({ name }) => name === "labelled")?.labels).toEqual({ tier: "gold" });
    break;
  }
});
