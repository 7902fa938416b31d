/**
 * Goal: tasks become real containers and leave nothing behind. Method: a whole node but its session, busybox containers
 * with their own network, looked at from the host.
 */
import { once } from "node:events";
import { readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, afterEach, beforeAll, expect, onTestFinished } from "vitest";
import {
  ContainerSpecSchema,
  Mount_Type,
  PullPolicy,
  TaskSpecSchema,
  TaskState,
} from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { buildParts, busyboxFiles } from "../test/images.ts";
import { isRoot, rootTest } from "../test/privileges.ts";
import { file } from "../test/tar.ts";
import { TestNode, type TestService } from "./test-node.ts";

let node: TestNode;

beforeAll(async () => {
  if (isRoot) node = await TestNode.start();
});

afterEach(async () => {
  if (!isRoot) return;
  node.clear();
  await eventually(async () => {
    expect(await node.cgroups()).toEqual([]);
    expect(await readdir(`${node.directory}/containers`)).toEqual([]);
    expect(await readdir(`${node.directory}/tasks`)).toEqual([]);
  });
});

afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

function shell(
  script: string,
  container: MessageInitShape<typeof ContainerSpecSchema> = {},
  task: MessageInitShape<typeof TaskSpecSchema> = {},
): TestService {
  const spec = create(ContainerSpecSchema, container);
  spec.image ||= "box:1";
  if (spec.command.length === 0) spec.args = ["sh", "-c", script];
  spec.stopGracePeriod ??= durationFromMs(1_000);
  return { spec: create(TaskSpecSchema, { ...task, container: spec }) };
}

const FOREVER = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

rootTest("runs, logs, and tells the exit code", async () => {
  const id = node.assign(
    shell("echo out; echo err >&2; hostname; cat /etc/hosts; exit 3", { hostname: "{{.Task.Slot}}-x" }),
  );
  const status = await node.reaches(id, TaskState.FAILED);
  expect(status.error).toBe("task: non-zero exit (3)");
  expect(status.container?.exitCode).toBe(3);
  const logs = await node.logs(id);
  expect(logs).toContain("out\n");
  expect(logs).toContain("err\n");
  expect(logs).toContain(`${node.addressOf(id)}\t`);
  const done = node.assign(shell("true"));
  await node.reaches(done, TaskState.COMPLETE);
});

rootTest("a shutdown sends the stop signal, and SIGKILL after the grace time", async () => {
  const polite = node.assign(shell("trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done"));
  const stubborn = node.assign(shell("trap '' TERM; while true; do sleep 0.1; done"));
  await node.reaches(polite, TaskState.RUNNING);
  await node.reaches(stubborn, TaskState.RUNNING);
  node.stop(polite);
  node.stop(stubborn);
  expect((await node.reaches(polite, TaskState.SHUTDOWN)).container?.exitCode).toBe(0);
  expect(await node.logs(polite)).toBe("bye\n");
  expect((await node.reaches(stubborn, TaskState.SHUTDOWN)).container?.exitCode).toBe(137);
});

rootTest("a published port reaches the tasks of the service", async () => {
  const web: TestService = {
    ...shell("mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"),
    ports: [{ publishedPort: 18080, targetPort: 80 }],
  };
  const one = node.assign(web);
  const two = node.assign(node.serviceOf(one));
  await node.reaches(one, TaskState.RUNNING);
  await node.reaches(two, TaskState.RUNNING);
  const seen = new Set<string>();
  await eventually(async () => {
    const answer = await fetch("http://127.0.0.1:18080/", { headers: { connection: "close" } });
    seen.add((await answer.text()).trim());
    expect(seen).toEqual(new Set([one.slice(0, 12), two.slice(0, 12)]));
  });
  node.stop(one);
  await node.reaches(one, TaskState.SHUTDOWN);
  const answer = await fetch("http://127.0.0.1:18080/", { headers: { connection: "close" } });
  expect((await answer.text()).trim()).toBe(two.slice(0, 12));
});

rootTest("containers outlive the agent; an exit meanwhile is told with its code", async () => {
  const stays = node.assign(shell(FOREVER));
  const ends = node.assign(shell("while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 7"));
  const before = await node.reaches(stays, TaskState.RUNNING);
  const other = await node.reaches(ends, TaskState.RUNNING);
  const pid = before.container?.pid ?? 0;
  const startTime = await startTimeOf(pid);
  await node.restart(async () => {
    process.kill(other.container?.pid ?? 0, "SIGKILL");
    await eventually(() => readFile(`${node.directory}/containers/${ends}/exit`));
  });
  const after = await node.reaches(stays, TaskState.RUNNING);
  expect(after.container?.pid).toBe(pid);
  expect(await startTimeOf(pid)).toBe(startTime);
  expect((await node.reaches(ends, TaskState.FAILED)).error).toBe("task: non-zero exit (137)");
  node.stop(stays);
  expect((await node.reaches(stays, TaskState.SHUTDOWN)).container?.exitCode).toBe(0);
});

rootTest("what a crash left of an unknown task is freed", async () => {
  const id = node.assign(shell(FOREVER));
  await node.reaches(id, TaskState.RUNNING);
  await node.restart(() => rm(`${node.directory}/tasks/${id}.pb`));
  expect(await node.cgroups()).toEqual([]);
  expect((await node.reaches(id, TaskState.FAILED)).error).toContain("lost");
});

rootTest("a killed supervisor is told, and its container does not stay", async () => {
  const id = node.assign(shell(FOREVER));
  const { container } = await node.reaches(id, TaskState.RUNNING);
  const supervisor = Number(/^PPid:\s+(\d+)$/m.exec(await readFile(`/proc/${container?.pid}/status`, "utf8"))?.[1]);
  process.kill(supervisor, "SIGKILL");
  expect((await node.reaches(id, TaskState.FAILED)).error).toBe("task: shim lost");
  await eventually(async () => expect(await node.cgroups()).toEqual([]));
});

rootTest("out of memory is told", async () => {
  const limits = { memoryBytes: 16n * 1024n * 1024n };
  const id = node.assign(shell("tail /dev/zero", {}, { resources: { limits } }));
  const status = await node.reaches(id, TaskState.FAILED);
  expect(status.error).toBe("task: non-zero exit (137): out of memory");
  expect(status.container?.oomKilled).toBe(true);
});

rootTest("health checks hold RUNNING back, and end what is unhealthy", async () => {
  const checks = { interval: { nanos: 50_000_000 }, retries: 2 };
  const sick = node.assign(
    shell(`touch /ok; ${FOREVER}`, {
      healthcheck: { test: ["CMD-SHELL", "test -e /ok || { echo no file; false; }"], ...checks },
    }),
  );
  await node.reaches(sick, TaskState.RUNNING);
  const never = node.assign(shell(FOREVER, { healthcheck: { test: ["CMD", "false"], ...checks } }));
  expect((await node.reaches(never, TaskState.FAILED)).error).toBe("task: unhealthy: health check exited with 1");
  const stopped = node.assign(
    shell(`(sleep 0.5; rm /ok) & touch /ok; ${FOREVER}`, {
      healthcheck: { test: ["CMD-SHELL", "cat /ok"], ...checks },
    }),
  );
  expect((await node.reaches(stopped, TaskState.FAILED)).error).toContain("task: unhealthy: cat: can't open '/ok'");
});

rootTest("what cannot be is rejected with its reason", async () => {
  const registry = createServer((_, response) => response.writeHead(404).end()).listen(0, "127.0.0.1");
  onTestFinished(() => void registry.close());
  await once(registry, "listening");
  const address = registry.address();
  const image = `127.0.0.1:${typeof address === "object" ? address?.port : ""}/nope:1`;
  const cases: [TestService, string][] = [
    [shell("true", { image }), `No such image: ${image}`],
    [shell("true", { user: "nobody-knows" }), 'no user "nobody-knows"'],
    [shell("true", { mounts: [{ type: Mount_Type.BIND, source: "/does/not/exist", target: "/x" }] }), "does not exist"],
    [shell("true", {}, { logDriver: { name: "syslog" } }), 'log driver "syslog" is not supported'],
  ];
  for (const [service, error] of cases) {
    const id = node.assign(service);
    expect((await node.reaches(id, TaskState.REJECTED)).error).toContain(error);
  }
  const id = node.assign(shell("true", { command: ["/nope"] }));
  expect((await node.reaches(id, TaskState.FAILED)).error).toContain("/nope");
});

rootTest("pull policy: what is there, asked again at each task, or never asked for", async () => {
  const version = (text: string) =>
    buildParts({
      name: "moved:1",
      layers: [{ files: [...busyboxFiles(), file("v", text)] }],
      config: { Env: ["PATH=/bin"] },
    });
  const shown = async (pullPolicy: PullPolicy) => {
    const id = node.assign(shell("cat /v", { image: "moved:1", pullPolicy }));
    await node.reaches(id, TaskState.COMPLETE);
    return node.logs(id);
  };
  const never = node.assign(shell("true", { image: "moved:1", pullPolicy: PullPolicy.NEVER }));
  expect((await node.reaches(never, TaskState.REJECTED)).error).toContain(
    "image moved:1: not present on this node, and its pull policy is never",
  );
  node.source.add("moved:1", version("old"));
  expect(await shown(PullPolicy.MISSING)).toBe("old\n");
  node.source.add("moved:1", version("new"));
  expect([await shown(PullPolicy.MISSING), await shown(PullPolicy.NEVER)]).toEqual(["old\n", "old\n"]);
  expect([await shown(PullPolicy.ALWAYS), await shown(PullPolicy.MISSING)]).toEqual(["new\n", "new\n"]);
});

rootTest("named volumes outlive tasks", async () => {
  const mounts = [{ type: Mount_Type.VOLUME, source: "data", target: "/data" }];
  const writer = node.assign(shell("echo kept > /data/x", { mounts }));
  await node.reaches(writer, TaskState.COMPLETE);
  const reader = node.assign(shell("cat /data/x", { mounts }));
  await node.reaches(reader, TaskState.COMPLETE);
  expect(await node.logs(reader)).toBe("kept\n");
});

async function startTimeOf(pid: number): Promise<string | undefined> {
  return (await readFile(`/proc/${pid}/stat`, "utf8")).split(" ")[21];
}
