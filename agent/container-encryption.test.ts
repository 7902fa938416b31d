/**
 * Goal: a node takes tasks of encrypted networks where its kernel has WireGuard, with a key that is its own, and refuses them
 * with the reason where it has not. Method: a whole node but its session; hosts have either kernel, and test/vm has WireGuard.
 */
import { existsSync, statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect } from "vitest";
import { newId, type TaskId } from "../common/base/id.ts";
import { systemRandom } from "../common/base/random.ts";
import { ContainerSpecSchema, TaskSpecSchema, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { isRoot, rootTest } from "../test/privileges.ts";
import { TestNode } from "./test-node.ts";

const WAIT_MS = 30_000;
const SCRIPT = "cat /sys/class/net/eth0/mtu; trap 'exit 0' TERM; while true; do sleep 0.1; done";

let node: TestNode;

beforeAll(async () => {
  if (isRoot) node = await TestNode.start();
});
afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

function assignEncrypted(): TaskId {
  const id = newId<TaskId>(systemRandom);
  const container = create(ContainerSpecSchema, { image: "box:1", args: ["sh", "-c", SCRIPT] });
  const spec = create(TaskSpecSchema, { container });
  const ipam = [{ subnet: "10.129.5.0/24", gateway: "10.129.5.1" }];
  const networks = [{ networkId: "vault", addresses: ["10.129.5.7/24"] }];
  const [desiredState, status] = [TaskState.RUNNING, { state: TaskState.ASSIGNED }];
  node.apply([
    { item: { case: "network", value: { id: "vault", name: "vault", encrypted: true, ipam } } },
    { item: { case: "template", value: { serviceId: "box", specVersion: 1n, serviceName: "box", spec } } },
    {
      item: { case: "task", value: { id, serviceId: "box", specVersion: 1n, slot: 1, desiredState, status, networks } },
    },
  ]);
  return id;
}

const keyOf = async () => Buffer.from((await node.executor.describe()).wireguardKey).toString("hex");

rootTest("an encrypted network's task runs, or says what the node lacks", async () => {
  const { wireguardKey, engine } = await node.executor.describe();
  const able = wireguardKey.length > 0;
  expect(engine?.facts.wireguard).toBe(String(able));
  expect(existsSync(`${node.directory}/wireguard.json`)).toBe(able);
  const id = assignEncrypted();
  if (able) {
    await node.reaches(id, TaskState.RUNNING, WAIT_MS);
    expect(Number(await node.logs(id))).toBeLessThanOrEqual(1390);
  } else {
    const { error } = await node.reaches(id, TaskState.REJECTED, WAIT_MS);
    expect(error).toContain("network vault is encrypted: this node's kernel has no WireGuard");
  }
});

rootTest(
  "its key outlives the agent, is nobody else's to read, and is replaced once managers have the next",
  async () => {
    const first = await keyOf();
    await node.restart();
    expect(await keyOf()).toBe(first);
    if (first === "") return;
    expect(statSync(`${node.directory}/wireguard.json`).mode & 0o777).toBe(0o600);
    const stop = new AbortController();
    const told: string[] = [];
    const tell = async (key: Uint8Array) => void told.push(Buffer.from(key).toString("hex"));
    const replacing = node.executor.replaceKeys(tell, stop.signal);
    await eventually(() => expect(told.length).toBeGreaterThan(1));
    stop.abort();
    await expect(replacing).rejects.toThrow();
    expect(told).not.toContain(first);
    expect(told).toContain(await keyOf());
  },
);
