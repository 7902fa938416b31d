/**
 * Goal: an agent that reads no more costs the manager nothing: its updates are not heaped up, its connection is given up, and when it
 * reads again it gets a whole set (hardening §4.4). Method: the real manager and a real agent in a process that is stopped (SIGSTOP)
 * while ten thousand of its tasks change, after as many have gone to it while it read.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toDuration } from "../../common/model/duration.ts";
import { type ServiceMode, ServiceModeSchema, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../eventually.ts";
import { residentMib } from "../hostile/victim.ts";
import { type ManagerProgram, startManagerProgram } from "../manager-program.ts";

const CLIENT = new URL("../bench/agents-clients.ts", import.meta.url).pathname;
/** Each is given out and taken back. */
const TASKS = 5_000;
const PATIENT = { timeoutMs: 120_000, intervalMs: 250 };

let folder = "";
let manager: ManagerProgram;
let agent: ChildProcess;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hostile-agent-"));
  manager = await startManagerProgram(folder, "m");
  await manager.call(async (control) => {
    const { cluster } = await control.getInfo({});
    // A session outlives its connection here, so that it is the connection that is given up.
    if (!cluster?.spec) throw new Error("no cluster");
    const spec = { ...cluster.spec, heartbeatPeriod: toDuration(20_000) };
    await control.updateCluster({ version: cluster.meta?.version ?? 0n, spec });
  });
  const { worker: token } = await manager.call((control) => control.getJoinTokens({}));
  agent = spawn(process.execPath, [CLIENT], { stdio: ["pipe", "ignore", "inherit"] });
  agent.stdin?.end(JSON.stringify({ address: manager.address, token, folder, count: 1, number: 0 }));
});
afterAll(async () => {
  const ended = once(agent, "close");
  agent.kill("SIGCONT");
  agent.kill("SIGKILL");
  await ended;
  await manager.stop();
  await rm(folder, { recursive: true, force: true });
});

/** How many tasks the service has in each state that is wanted of them and told of them. */
async function tasks(): Promise<Readonly<Record<string, number>>> {
  const { tasks: all } = await manager.call((control) => control.listTasks({}));
  const counts: Record<string, number> = {};
  for (const { task } of all) {
    const word = `${TaskState[task?.desiredState ?? 0]} ${TaskState[task?.status?.state ?? 0]}`;
    counts[word] = (counts[word] ?? 0) + 1;
  }
  return counts;
}

function modeOf(replicas: number): ServiceMode {
  return create(ServiceModeSchema, { mode: { case: "replicated", value: { replicas: BigInt(replicas) } } });
}

async function scale(replicas: number): Promise<void> {
  await eventually(() =>
    manager.call(async (control) => {
      const { services } = await control.listServices({ references: ["web"] });
      const { service, spec } = services[0] ?? {};
      if (!service || !spec) throw new Error("no service");
      await control.updateService({
        serviceId: service.id,
        version: service.meta?.version ?? 0n,
        spec: { ...spec, mode: modeOf(replicas) },
      });
    }),
  );
}

test("10,000 updates for an agent that is stopped", { timeout: 400_000 }, async () => {
  await manager.call((control) =>
    control.createService({
      spec: {
        name: "web",
        task: { container: { image: "demo/web:1" } },
        mode: modeOf(TASKS),
      },
    }),
  );
  const pid = manager.child.pid ?? 0;
  // The same with an agent that reads: what the manager takes for it, it has.
  await eventually(async () => expect(await tasks()).toEqual({ "RUNNING RUNNING": TASKS }), PATIENT);
  await scale(0);
  await eventually(async () => expect(await tasks()).toEqual({}), PATIENT);

  const beforeMib = residentMib(pid);
  let mostMib = 0;
  const settled = (state: string) =>
    eventually(async () => {
      mostMib = Math.max(mostMib, residentMib(pid));
      expect(await tasks()).toEqual({ [state]: TASKS });
    }, PATIENT);
  agent.kill("SIGSTOP");
  await scale(TASKS);
  await settled("RUNNING ASSIGNED");
  await scale(0);
  await settled("REMOVE ASSIGNED");
  expect(mostMib - beforeMib).toBeLessThan(50);
  await eventually(() => expect(said("session stream ended")).toBe(1), PATIENT);

  await scale(10);
  agent.kill("SIGCONT");
  await eventually(async () => expect(await tasks()).toEqual({ "RUNNING RUNNING": 10 }), PATIENT);
  expect(said("session opened")).toBe(2);
});

function said(message: string): number {
  return manager.text.filter((line) => line.includes(`"msg":"${message}"`)).length;
}
