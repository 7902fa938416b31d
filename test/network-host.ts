/**
 * A host for tests: runs in a network namespace of its own, owns a real NetworkManager there, and obeys the requests
 * that `network-lab.ts` writes to its stdin, one JSON object a line. Its answers are lines of JSON too.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import {
  gatewayOf,
  type Ip,
  type Ipv4,
  networkOf,
  parseIp,
  parseIpPrefix,
  parseIpv4,
  parsePrefix,
} from "../agent/network/address.ts";
import type { AttachOp, InterfaceSpec } from "../agent/network/attach.ts";
import type { ClusterNetwork } from "../agent/network/cluster.ts";
import { type Underlay, VXLAN_PORT_DEFAULT } from "../agent/network/fabric.ts";
import { readHostRoutes } from "../agent/network/host-routes.ts";
import type { Netlink } from "../agent/network/netlink.ts";
import { type AttachedTask, type NetworkDependencies, NetworkManager } from "../agent/network/network-manager.ts";
import { NftRuleLoader } from "../agent/network/rule-loader.ts";
import type { Protocol } from "../agent/network/ruleset.ts";
import { systemSysctls } from "../agent/network/sysctl.ts";
import { publicKeyOf } from "../agent/network/wireguard-key.ts";
import { systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { openLogger } from "../common/base/logger.ts";
import { Scope } from "../common/base/scope.ts";
import type { ContainerStarted, HostRequest, TestCluster, TestTask } from "./network-lab.ts";

const [helper = ""] = process.argv.slice(2);
const containers = new Set<ChildProcessByStdio<Writable, Readable, null>>();
/** The first process of each task's container. */
const pids = new Map<TaskId, number>();
const scope = new Scope();
const { signal } = scope;
const logger = openLogger("test-host", { level: "info", format: "json" });
const helperNetlink = serveNetlink([helper, "serve"]);
let manager: NetworkManager | undefined;
/** Aborted when another takes its place. */
let reopened = new AbortController();
/** Since `open`. */
let steps = 0;
let underlay: Underlay = { port: VXLAN_PORT_DEFAULT };

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const answer = { result: (await obey(JSON.parse(line))) ?? null };
    const asText = (_: string, value: unknown) => (typeof value === "bigint" ? value.toString() : value);
    process.stdout.write(`${JSON.stringify(answer, asText)}\n`);
  } catch (reason) {
    process.stdout.write(`${JSON.stringify({ error: SwarmError.from(reason).message })}\n`);
  }
}
for (const container of containers) container.kill("SIGKILL");
await helperNetlink[Symbol.asyncDispose]();
scope.cancel();
await manager?.[Symbol.asyncDispose]();
// What a container started may hold its output open: that is not waited for.
process.exit();

async function obey(request: HostRequest): Promise<unknown> {
  if (request.do === "open") {
    reopened.abort();
    reopened = new AbortController();
    await manager?.[Symbol.asyncDispose]();
    const world = { clock: systemClock, logger, enter, ...stepping(request.dieAt ?? Number.POSITIVE_INFINITY) };
    const { pool, record, linkLocal = false } = request;
    const key = request.key === undefined ? undefined : Buffer.from(request.key, "hex");
    const options = { pool: parsePrefix(pool), linkLocal, key, ...(record !== undefined && { record }) };
    manager = new NetworkManager(world, options);
    underlay = { port: VXLAN_PORT_DEFAULT, ...(request.local !== undefined && { local: ipv4(request.local) }) };
    return manager.start(underlay, signal);
  }
  const network = manager;
  if (network === undefined) throw new SwarmError("failed_precondition", "open first");
  switch (request.do) {
    case "run":
      return scope.spawn("network", (ending) => runUntil(reopened.signal, network, ending));
    case "start":
      return network.start(underlay, signal);
    case "move":
      underlay = { ...underlay, local: ipv4(request.local) };
      return network.start(underlay, signal);
    case "attach": {
      const { taskId, attachment } = attached(request.task);
      const plan = network.attach(taskId, attachment, { hostname: "test" });
      const started = await runContainer(plan.ops, request.command);
      pids.set(taskId, started.pid);
      return started;
    }
    case "publish":
      return network.setCluster(clusterOf({ published: request.ports }), signal);
    case "cluster":
      return network.setCluster(clusterOf(request.cluster), signal);
    case "key":
      return network.setKey(Buffer.from(request.key, "hex"), signal);
    case "reconcile":
      return network.reconcile(signal);
    case "detach": {
      const { taskId, attachment } = attached(request.task);
      return network.detach(taskId, attachment, signal);
    }
    case "adopt":
      return network.adopt(request.live.map(attached), signal);
    case "removeAll":
      return network.removeAll(signal);
    case "steps":
      return steps;
    case "warnings":
      return network.hostWatch.warnings(signal);
    case "routes":
      return readHostRoutes(helperNetlink, "swarm0", signal);
  }
}

/** The one that was closed must mend nothing any more, while another has its place. */
async function runUntil(closed: AbortSignal, network: NetworkManager, ending: AbortSignal): Promise<void> {
  try {
    await network.run(AbortSignal.any([closed, ending]));
  } catch (reason) {
    if (!closed.aborted) throw reason;
  }
}

/** All ways by which the network manager changes its host; the process dies in place of the step of a number. */
function stepping(dieAt: number): Pick<NetworkDependencies, "netlink" | "rules" | "sysctls"> {
  const nft = new NftRuleLoader();
  steps = 0;
  const step = () => {
    if (++steps === dieAt) process.kill(process.pid, "SIGKILL");
  };
  return {
    netlink: {
      netlink(protocol, message, inner) {
        step();
        return helperNetlink.netlink(protocol, message, inner);
      },
    },
    rules: {
      load(script, inner) {
        step();
        return nft.load(script, inner);
      },
      baseChains: (inner) => nft.baseChains(inner),
      chain: (chain, inner) => nft.chain(chain, inner),
    },
    sysctls: {
      read: (name) => systemSysctls.read(name),
      write(name, value) {
        step();
        return systemSysctls.write(name, value);
      },
    },
  };
}

function attached({ taskId, addresses, ipv6 = [], internal = [], encrypted = [] }: TestTask): AttachedTask {
  const interfaces = addresses.map((text, which) => {
    const address = parsePrefix(text);
    return {
      address,
      gateway: gatewayOf(address),
      ipv6: ipv6Of(ipv6[which]),
      internal: internal.includes(text),
      encrypted: encrypted.includes(text),
    };
  });
  return { taskId, attachment: { kind: "routed", interfaces } };
}

function ipv6Of(text: string | undefined): InterfaceSpec["ipv6"] {
  if (text === undefined) return undefined;
  const { address, length } = parseIpPrefix(text);
  if (typeof address !== "bigint") throw new SwarmError("invalid_argument", `${text} is no IPv6 address`);
  return { address: { address, length }, gateway: networkOf({ address, length }).address + 1n };
}

function clusterOf(cluster: TestCluster): ClusterNetwork {
  const {
    networks = [],
    hosts = [],
    keys = {},
    remote = {},
    encrypted = [],
    virtual = {},
    leaving = {},
    published = [],
    served = [],
    affinity,
  } = cluster;
  return {
    networks: networks.map(({ subnet, internal = false, encrypted: isEncrypted = false }) => ({
      ...{ subnet: parseIpPrefix(subnet), internal, encrypted: isEncrypted },
    })),
    hosts: hosts.map(ipv4),
    keys: new Map(Object.entries(keys).map(([host, key]) => [ipv4(host), publicKeyOf(Buffer.from(key, "hex"))])),
    remote: Object.entries(remote).map(([address, host]) => ({
      ...{ address: ip(address), host: ipv4(host), encrypted: encrypted.includes(address) },
    })),
    virtual: Object.entries(virtual).map(([address, targets]) => ({
      ...{ address: ip(address), targets: targets.map(ip), affinity: affinity ?? "none" },
    })),
    leaving: Object.entries(leaving).map(([address, targets]) => ({
      ...{ address: ip(address), targets: targets.map(ip) },
    })),
    published: published.map(({ hostIp, ...port }) => ({
      ...port,
      ...(hostIp !== undefined && { hostIp: ip(hostIp) }),
      targets: port.targets.map((target) => ({ ...target, address: ip(target.address) })),
    })),
    served: served.map((text) => {
      const [, address = "", port, protocol = "tcp"] = /^(.*):(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
      return { protocol: protocol as Protocol, address: ip(address), port: Number(port) };
    }),
  };
}

function ip(text: string): Ip {
  const address = parseIp(text);
  if (address === undefined) throw new SwarmError("invalid_argument", `${text} is no address`);
  return address;
}

function ipv4(text: string): Ipv4 {
  const address = parseIpv4(text);
  if (address === undefined) throw new SwarmError("invalid_argument", `${text} is no IPv4 address`);
  return address;
}

/** Sends through the helper's `serve`, run by `command`, and answers as the shim's runner does. */
function serveNetlink(command: readonly [string, ...string[]]): Netlink & AsyncDisposable {
  const [program, ...args] = command;
  const serving = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const answers = readAnswers(serving.stdout);
  return {
    async netlink(protocol, message) {
      const head = Buffer.alloc(8);
      head.writeUInt32LE(protocol, 0);
      head.writeUInt32LE(message.length, 4);
      serving.stdin.write(Buffer.concat([head, message]));
      const { value } = await answers.next();
      if (!value) throw new SwarmError("unavailable", "the helper ended");
      return value;
    },
    async [Symbol.asyncDispose]() {
      serving.stdin.end();
    },
  };
}

async function enter(taskId: TaskId): Promise<(Netlink & AsyncDisposable) | undefined> {
  const pid = pids.get(taskId);
  return pid === undefined ? undefined : serveNetlink(["nsenter", `--net=/proc/${pid}/ns/net`, helper, "serve"]);
}

async function* readAnswers(output: Readable): AsyncGenerator<Uint8Array, void> {
  let data = Buffer.alloc(0);
  for await (const chunk of output) {
    data = Buffer.concat([data, chunk]);
    while (data.length >= 4 && data.length >= 4 + data.readUInt32LE(0)) {
      const end = 4 + data.readUInt32LE(0);
      yield data.subarray(4, end);
      data = data.subarray(end);
    }
  }
}

/** Starts a command in a new network namespace once the operations have run there. */
async function runContainer(ops: readonly AttachOp[], command: readonly string[]): Promise<ContainerStarted> {
  const child = spawn(helper, ["container", ...command], { stdio: ["pipe", "pipe", "inherit"] });
  containers.add(child);
  child.once("exit", () => containers.delete(child));
  child.stdin.end(Buffer.concat(ops.map(frameOf)));
  for await (const line of createInterface({ input: child.stdout })) {
    const started = JSON.parse(line);
    if (started.pid !== undefined) return started;
    const failed = ops[started.index];
    throw new SwarmError("unknown", `${failed && "label" in failed ? failed.label : "sysctl"}: errno ${started.errno}`);
  }
  throw new SwarmError("unknown", "container ended early");
}

function frameOf(op: AttachOp): Buffer {
  const netlinkOp = op.op === "netlink";
  const body = netlinkOp ? Buffer.from(op.message) : Buffer.from(`${op.name.replaceAll(".", "/")}=${op.value}`);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(netlinkOp ? (op.side === "host" ? 1 : 0) : 2, 0);
  head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, body]);
}
