/**
 * What a deploy of a hundred services costs a CI job: whole processes of swarmctl against a manager with its own etcd. No node
 * runs the tasks: they are made, and wait.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { TestCluster } from "../integration/cluster.ts";
import type { Figure } from "./figure.ts";

const SERVICES = 100;
const STACK = "bench";
/** Deploys that change nothing: the quickest shows what the work costs, the others what the machine did meanwhile. */
const REPEATS = 5;

/** Deploys to the last task created, then again without a change. */
export async function measureStackDeploy(): Promise<readonly Figure[]> {
  await using cluster = await TestCluster.start({ nodes: 0, managerArgs: ["--log-level", "info"] });
  await using transport = openGrpcTransport({ address: `unix:${cluster.socket()}` });
  const client = createClient(Control, transport);
  const file = join(cluster.folder("stack"), "stack.yml");
  const services = Array.from({ length: SERVICES }, (_, index) => `  s${index}: { image: "bench/busybox:1" }\n`);
  writeFileSync(file, `services:\n${services.join("")}`);
  const deploy = () => cluster.swarmctl("stack", "deploy", "-d", "-c", file, "--resolve-image", "never", STACK);
  const beganMs = performance.now();
  await deploy();
  while ((await client.listTasks({})).tasks.length < SERVICES)
    if (performance.now() > beganMs + 60_000) throw new Error("no tasks");
  const firstMs = performance.now() - beganMs;
  let againMs = Number.POSITIVE_INFINITY;
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    const startMs = performance.now();
    await deploy();
    againMs = Math.min(againMs, performance.now() - startMs);
  }
  return [
    { name: `stack: deploy ${SERVICES} services, to the last task made`, value: firstMs, unit: "ms", goal: 2_000 },
    { name: `stack: deploy ${SERVICES} services unchanged, whole process`, value: againMs, unit: "ms", goal: 300 },
  ];
}
