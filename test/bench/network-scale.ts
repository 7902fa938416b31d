/**
 * What a host's network costs when the cluster is large: 10,000 endpoints behind virtual addresses, 500 hosts with 1,000
 * networks, and an agent that starts again among 1,000 containers. It runs in a network namespace of its own, with the
 * real rules, routes and links, from what managers tell the agent to what the kernel has.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ClusterNetworkState } from "../../agent/cluster-network.ts";
import { formatIpv4, gatewayOf, type Ipv4, parsePrefix } from "../../agent/network/address.ts";
import type { Attachment } from "../../agent/network/attach.ts";
import { VXLAN_PORT_DEFAULT } from "../../agent/network/fabric.ts";
import { exchange, NETLINK } from "../../agent/network/netlink.ts";
import { type AttachedTask, NetworkManager } from "../../agent/network/network-manager.ts";
import { decodeGeneration, getGeneration } from "../../agent/network/nfnetlink.ts";
import { NftRuleLoader } from "../../agent/network/rule-loader.ts";
import { systemSysctls } from "../../agent/network/sysctl.ts";
import { clusterNetwork } from "../../agent/network-view.ts";
import { NEVER, TestContainers } from "../../agent/runtime/test-root.ts";
import { systemClock } from "../../common/base/clock.ts";
import { newId, type TaskId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { type AssignmentChange, AssignmentChangeSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Figure } from "./figure.ts";
import { percentiles, timed } from "./measure.ts";

const execute = promisify(execFile);

const HOSTS = 500;
const ENDPOINTS = 10_000;
const ROUNDS = 20;
const LOCAL_TASKS = 1_000;
/** RFC 2544's network for benchmarks: the hosts' own addresses. */
const FIRST_HOST = address("198.18.0.2");
const FIRST_SUBNET = address("10.64.0.0");
const FIRST_INGRESS = address("10.224.0.2");
const POOL = "10.224.0.0/12";

/** Services that share the endpoints evenly, each on a network of its own; published as well or not. */
interface Shape {
  readonly services: number;
  readonly published: boolean;
}

/** Runs this file in namespaces of its own; needs root. */
export async function measureNetworkScale(): Promise<readonly Figure[]> {
  const directory = await mkdtemp(join(tmpdir(), "swarm-bench-"));
  try {
    const script = `mount -t tmpfs tmpfs "$TMPDIR" && mount -t sysfs sysfs /sys && ip link set lo up &&
      ip link add wire type veth peer name end && ip addr add 198.18.0.1/16 dev wire &&
      ip link set wire up && ip link set end up && exec "$@"`;
    // With a process namespace, so that nothing outlives it.
    const own = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"];
    const command = [...own, "sh", "-euc", script, "sh", process.execPath, "--expose-gc", import.meta.filename];
    const { stdout } = await execute("unshare", command, { env: { ...process.env, TMPDIR: directory } });
    return JSON.parse(stdout);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function measureAll(): Promise<readonly Figure[]> {
  await using containers = await TestContainers.create();
  const record = join(containers.directory, "rules.bin");
  const open = () => {
    const world = { clock: systemClock, logger: silentLogger, rules: new NftRuleLoader(), sysctls: systemSysctls };
    const enter = async () => undefined;
    return new NetworkManager({ ...world, enter, netlink: containers.runner }, { pool: parsePrefix(POOL), record });
  };
  const start = async (manager: NetworkManager) =>
    manager.start({ port: VXLAN_PORT_DEFAULT, local: address("198.18.0.1") }, NEVER);
  const figures: Figure[] = [];
  {
    await using manager = open();
    await start(manager);
    figures.push(...(await measureFabric(manager)));
    for (const shape of [
      { services: 1, published: false },
      { services: 1_000, published: false },
      { services: 1, published: true },
      { services: 1_000, published: true },
    ]) {
      figures.push(await measureEndpoints(manager, shape));
    }
    await manager.removeAll(NEVER);
  }
  figures.push(await measureRestart(containers, { open, start }));
  return figures;
}

/** One endpoint of each service stops to serve, or begins to: from the agent's decision to the kernel. */
async function measureEndpoints(manager: NetworkManager, shape: Shape): Promise<Figure> {
  const state = cluster(shape);
  await manager.setCluster(view(state), NEVER);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    for (let service = 0; service < shape.services; service++) {
      state.apply(endpoint(shape, { service, index: 4, serving: round % 2 === 1 }));
    }
    times.push(await timed(() => manager.setCluster(view(state), NEVER)));
  }
  const which = shape.services === 1 ? "10,000 of a service" : "10 of 1,000 services";
  const name = `endpoints: 1 of ${which} changes${shape.published ? ", ports too" : ""}`;
  // Published, they are 20,000.
  return { name, value: percentiles(times).p50, unit: "ms", ...(!shape.published && { goal: 100 }) };
}

/** A host that has a task on each of 1,000 networks, with 10,000 tasks on 500 other hosts. */
async function measureFabric(manager: NetworkManager): Promise<readonly Figure[]> {
  const shape = { services: 1_000, published: false };
  const state = cluster(shape);
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  const programmed = await timed(() => manager.setCluster(view(state), NEVER));
  globalThis.gc?.();
  const memory = process.memoryUsage().heapUsed - before;
  const moves: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    state.apply(endpoint(shape, { service: 7, index: 4, serving: true, host: round }));
    moves.push(await timed(() => manager.setCluster(view(state), NEVER)));
  }
  const looks: number[] = [];
  for (let round = 0; round < ROUNDS; round++) looks.push(await timed(() => manager.reconcile(NEVER)));
  const of = "500 hosts, 1,000 networks, 10,000 tasks";
  return [
    { name: `${of}: from nothing`, value: programmed, unit: "ms" },
    { name: "  a task moves to another host", value: percentiles(moves).p50, unit: "ms" },
    { name: "  a look whether all is right", value: percentiles(looks).p50, unit: "ms" },
    { name: "  the agent's memory for it", value: memory / 2 ** 20, unit: "MB" },
  ];
}

/** An agent ends and another one starts among 1,000 containers that go on. */
async function measureRestart(
  containers: TestContainers,
  { open, start }: { open: () => NetworkManager; start: (manager: NetworkManager) => Promise<void> },
): Promise<Figure> {
  const shape = { services: 100, published: true };
  const state = cluster(shape);
  const tasks: AttachedTask[] = [];
  const generation = async () => {
    const request = { protocol: NETLINK.NETFILTER, message: getGeneration(), label: "ask for the generation" };
    return decodeGeneration(await exchange(containers.runner, request, NEVER));
  };
  {
    await using manager = open();
    await start(manager);
    for (let index = 0; index < LOCAL_TASKS; index++) {
      const prefix = parsePrefix(`${formatIpv4(address("10.230.0.2") + index)}/12`);
      const interfaces = [{ address: prefix, gateway: gatewayOf(prefix), internal: false }];
      const attachment: Attachment = { kind: "routed", interfaces };
      const taskId = newId<TaskId>(systemRandom);
      const { ops } = manager.attach(taskId, attachment, { hostname: "bench" });
      const plan = await containers.plan(["sleep", "1d"], { network: ops });
      await (await containers.start(plan))[Symbol.asyncDispose]();
      tasks.push({ taskId, attachment });
    }
    await manager.setCluster(view(state), NEVER);
  }
  const before = await generation();
  await using manager = open();
  const value = await timed(async () => {
    await start(manager);
    await manager.adopt(tasks, NEVER);
    await manager.setCluster(view(state), NEVER);
    await manager.reconcile(NEVER);
  });
  if ((await generation()) !== before) throw new Error("the agent that started again touched the rules");
  return { name: "agent starts again among 1,000 containers", value, unit: "ms", goal: 1_000 };
}

function view(state: ClusterNetworkState) {
  return clusterNetwork(state.snapshot([]), Date.now());
}

/** What managers tell a node of all this. */
function cluster(shape: Shape): ClusterNetworkState {
  const state = new ClusterNetworkState();
  for (let host = 0; host < HOSTS; host++) {
    state.apply(update({ case: "peer", value: { nodeId: `node${host}`, address: formatIpv4(FIRST_HOST + host) } }));
  }
  for (let service = 0; service < shape.services; service++) {
    const { subnet, length } = subnetOf(shape, service);
    const ipam = [{ subnet: `${formatIpv4(subnet)}/${length}`, gateway: formatIpv4(subnet + 1) }];
    state.apply(update({ case: "network", value: { id: `net${service}`, name: `net${service}`, ipam } }));
    const networks = [{ networkId: `net${service}`, addresses: [`${formatIpv4(subnet + 2)}/${length}`] }];
    const ports = shape.published ? [{ targetPort: 80, publishedPort: 10_000 + service }] : [];
    state.apply(
      update({ case: "endpoint", value: { serviceId: `s${service}`, name: `s${service}`, networks, ports } }),
    );
    for (let index = 0; index < ENDPOINTS / shape.services; index++) {
      state.apply(endpoint(shape, { service, index, serving: true }));
    }
  }
  return state;
}

function endpoint(
  shape: Shape,
  { service, index, serving, host = index }: { service: number; index: number; serving: boolean; host?: number },
): AssignmentChange {
  const { subnet, length } = subnetOf(shape, service);
  const number = service * (ENDPOINTS / shape.services) + index;
  const value = {
    ...{ taskId: `task${number}`, serviceId: `s${service}`, nodeId: `node${host % HOSTS}`, serving },
    ingressAddresses: [formatIpv4(FIRST_INGRESS + number)],
    networks: [{ networkId: `net${service}`, addresses: [`${formatIpv4(subnet + 3 + index)}/${length}`] }],
  };
  return update({ case: "taskEndpoint", value });
}

function subnetOf({ services }: Shape, service: number): { readonly subnet: Ipv4; readonly length: number } {
  return services === 1 ? { subnet: FIRST_SUBNET, length: 16 } : { subnet: FIRST_SUBNET + service * 256, length: 24 };
}

function update(item: NonNullable<MessageInitShape<typeof AssignmentChangeSchema>["item"]>): AssignmentChange {
  return create(AssignmentChangeSchema, { item });
}

function address(text: string): Ipv4 {
  return parsePrefix(`${text}/32`).address;
}

if (import.meta.main) process.stdout.write(JSON.stringify(await measureAll()));
