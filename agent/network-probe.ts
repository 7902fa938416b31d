/**
 * Tries what a task of this node can reach, from where the task is: in its network namespace, by a process of the agent's
 * own program. It needs nobody's help there: a port that nobody listens on answers as well, by refusing.
 */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { connect } from "node:net";
import { create } from "@bufbuild/protobuf";
import { abortable, type Clock, withTimeout } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isIpv4, withoutLength } from "../common/model/task-addresses.ts";
import { type ProbeResult, ProbeResult_Kind, ProbeResultSchema } from "../proto/gen/swarm/v1/control_pb.js";
import { addressesOf } from "./cluster-network.ts";
import type { NodeNetwork } from "./executor.ts";
import { formatIpv4 } from "./network/address.ts";
import { RESOLVER_ADDRESS } from "./network/attach.ts";

/** RFC 863: where something listens there, so much the better. */
const DISCARD_PORT = 9;
/** Longer than a packet that was lost takes to be sent again twice. */
const TRY_MS = 4_000;
/** Each holds a socket in the task's namespace. */
const TRIES_AT_ONCE = 32;
/** Tries from one node: a network of more services is tried in part. */
const TRIES_MAX = 512;
/** IPv4's and UDP's headers, or IPv6's and UDP's. */
const UDP_OVERHEAD = { udp4: 28, udp6: 48 } as const;
const OUTPUT_BYTES_MAX = 1 << 20;

/** One try, as it is handed to the process in the namespace. */
export interface Probe {
  readonly kind: "task" | "mtu" | "service" | "name";
  readonly networkId: string;
  readonly target: string;
  readonly nodeId: string;
  /** The address, or the name. */
  readonly to: string;
}

/** What came of a try: the answer's time, or why there was none. */
interface Outcome {
  readonly micros: number;
  readonly problem: string;
}

const KINDS = {
  task: ProbeResult_Kind.TASK,
  mtu: ProbeResult_Kind.MTU,
  service: ProbeResult_Kind.SERVICE,
  name: ProbeResult_Kind.NAME,
} as const;

/** What is to be tried from the node's tasks on a network: one task of each node, and every service there. */
export function probesOf({ services, tasks, own }: NodeNetwork, networkId: string): readonly Probe[] {
  const names = new Map(services.map(({ serviceId, name }) => [serviceId, name]));
  const seen = new Set<string>();
  const all = [
    ...own.filter(({ serving }) => serving).map(({ task }) => ({ ...task, taskId: task.id })),
    ...tasks.filter(({ serving }) => serving),
  ];
  const toTasks = all.flatMap((task): Probe[] => {
    const addresses = addressesOf(task).flatMap(([id, address]) => (id === networkId ? address : []));
    if (addresses.length === 0 || seen.has(task.nodeId)) return [];
    seen.add(task.nodeId);
    const name = `${names.get(task.serviceId) ?? task.serviceId}.${task.slot || task.nodeId}`;
    return addresses.flatMap((to): Probe[] => {
      const probe = { networkId, target: named(name, to), nodeId: task.nodeId, to };
      return [
        { ...probe, kind: "task" },
        { ...probe, kind: "mtu" },
      ];
    });
  });
  const toServices = services.flatMap(({ serviceId, name, networks }): Probe[] => {
    const on = networks.find((each) => each.networkId === networkId);
    if (on === undefined) return [];
    const serves = all.some(
      (task) => task.serviceId === serviceId && addressesOf(task).some(([id]) => id === networkId),
    );
    const byName: Probe = { networkId, target: name, nodeId: "", kind: "name", to: name };
    const virtual = on.addresses.map(withoutLength).map((to): Probe => {
      return { networkId, target: named(name, to), nodeId: "", kind: "service", to };
    });
    return serves ? [byName, ...virtual] : [byName];
  });
  return [...toTasks, ...toServices].slice(0, TRIES_MAX);
}

function named(name: string, address: string): string {
  return isIpv4(address) ? name : `${name} by IPv6`;
}

/** Carries probes out in the namespace of a process. Throws `unavailable` when that cannot be entered. */
export async function probeFrom(
  pid: number,
  probes: readonly Probe[],
  mtu: number,
  signal: AbortSignal,
): Promise<readonly ProbeResult[]> {
  if (probes.length === 0) return [];
  const program = [process.execPath, ...process.execArgv, process.argv[1] ?? "", "--probe"];
  const child = spawn("nsenter", [`--net=/proc/${pid}/ns/net`, ...program], {
    signal,
    stdio: ["pipe", "pipe", "ignore"],
  });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    if (output.length < OUTPUT_BYTES_MAX) output += part;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(JSON.stringify({ mtu, probes }));
  child.on("error", (reason) => reject(SwarmError.wrap("enter a task's network", reason, "unavailable")));
  child.on("close", (code) => {
    if (code === 0) resolve(output);
    else reject(new SwarmError("unavailable", `probe a task's network: exit ${code}`));
  });
  const outcomes: unknown = JSON.parse(await promise);
  return probes.map(({ kind, networkId, target, nodeId }, index) => {
    const { micros, problem } = outcomeOf(outcomes, index);
    return create(ProbeResultSchema, { kind: KINDS[kind], networkId, target, nodeId, micros, problem });
  });
}

function outcomeOf(outcomes: unknown, index: number): Outcome {
  const found: unknown = Array.isArray(outcomes) ? outcomes[index] : undefined;
  if (typeof found !== "object" || found === null) return { micros: 0, problem: "not tried" };
  const { micros, problem } = found as Partial<Outcome>;
  return { micros: Number(micros ?? 0), problem: String(problem ?? "") };
}

/** The other side of `probeFrom`: reads probes from stdin, writes their outcomes. */
export async function runProbes(
  clock: Clock,
  input: AsyncIterable<Buffer | string>,
  print: (text: string) => void,
): Promise<void> {
  let text = "";
  for await (const part of input) text += String(part);
  const { mtu, probes } = JSON.parse(text) as { readonly mtu: number; readonly probes: readonly Probe[] };
  const outcomes: Outcome[] = [];
  for (let begin = 0; begin < probes.length; begin += TRIES_AT_ONCE) {
    const some = probes.slice(begin, begin + TRIES_AT_ONCE);
    outcomes.push(...(await Promise.all(some.map((probe) => attempt(clock, probe, mtu)))));
  }
  print(JSON.stringify(outcomes));
}

async function attempt(clock: Clock, probe: Probe, mtu: number): Promise<Outcome> {
  const beganMs = clock.monotonicMs();
  const limits = { clock, timeoutMs: TRY_MS, operation: probe.kind === "mtu" ? `${mtu} bytes` : "it" };
  let problem = "";
  try {
    await withTimeout(limits, new AbortController().signal, (signal) => {
      if (probe.kind === "name") return askName(probe.to);
      return probe.kind === "mtu" ? sendLarge(clock, probe.to, mtu, signal) : reach(probe.to, signal);
    });
  } catch (reason) {
    problem = SwarmError.from(reason).message;
  }
  return { micros: Math.round((clock.monotonicMs() - beganMs) * 1_000), problem };
}

/** A connection that is made, or refused by the other side itself. */
async function reach(host: string, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect({ host, port: DISCARD_PORT });
  socket.once("connect", () => resolve());
  socket.once("error", (reason) => {
    if (errnoOf(reason) === "ECONNREFUSED") resolve();
    else reject(new SwarmError("unavailable", errnoOf(reason) ?? reason.message));
  });
  try {
    await abortable(promise, signal);
  } finally {
    socket.destroy();
  }
}

/** A packet that fills the network's MTU: the other side says that nobody takes it. */
async function sendLarge(clock: Clock, host: string, mtu: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const over = new AbortController();
  const type = isIpv4(host) ? "udp4" : "udp6";
  const socket = createSocket(type);
  socket.on("error", (reason) => {
    if (errnoOf(reason) === "ECONNREFUSED") resolve();
    else reject(new SwarmError("unavailable", errnoOf(reason) ?? reason.message));
  });
  const send = () => socket.send(Buffer.alloc(mtu - UDP_OVERHEAD[type]), () => {});
  socket.connect(DISCARD_PORT, host, send);
  // Again: the kernel tells of refusals by ICMP, of which it sends few at a time.
  clock.sleep(TRY_MS / 2, AbortSignal.any([signal, over.signal])).then(send, () => {});
  try {
    await abortable(promise, signal);
  } finally {
    over.abort();
    socket.close();
  }
}

/** Whatever is answered but "no such name": a service may have no address at the moment. */
async function askName(name: string): Promise<void> {
  const resolver = new Resolver({ timeout: TRY_MS / 2, tries: 2 });
  resolver.setServers([formatIpv4(RESOLVER_ADDRESS)]);
  try {
    await resolver.resolve4(name);
  } catch (reason) {
    if (errnoOf(reason) !== "ENODATA") throw new SwarmError("unavailable", errnoOf(reason) ?? "no answer");
  }
}
