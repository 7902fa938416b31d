/**
 * A host for tests: runs in a network namespace of its own, owns a real NetworkManager there, and obeys the requests
 * that `network-lab.ts` writes to its stdin, one JSON object a line. Its answers are lines of JSON too.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { parseIpv4, parsePrefix } from "../agent/network/address.ts";
import type { Attachment, AttachOp } from "../agent/network/attach.ts";
import type { Netlink } from "../agent/network/netlink.ts";
import { NetworkManager } from "../agent/network/network-manager.ts";
import { NftRuleLoader } from "../agent/network/rule-loader.ts";
import { systemSysctls } from "../agent/network/sysctl.ts";
import { systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { openLogger } from "../common/base/logger.ts";
import { Scope } from "../common/base/scope.ts";
import type { ContainerStarted, HostRequest } from "./network-lab.ts";

const [helper = ""] = process.argv.slice(2);
const containers = new Set<ChildProcessByStdio<Writable, Readable, null>>();
const scope = new Scope();
const { signal } = scope;
const logger = openLogger("test-host", { level: "info", format: "json" });
const serving = spawn(helper, ["serve"], { stdio: ["pipe", "pipe", "inherit"] });
const answers = readAnswers();
/** Sends through the helper's `serve`, and answers as the shim's runner does. */
const helperNetlink: Netlink = {
  async netlink(protocol, message) {
    const head = Buffer.alloc(8);
    head.writeUInt32LE(protocol, 0);
    head.writeUInt32LE(message.length, 4);
    serving.stdin.write(Buffer.concat([head, message]));
    const { value } = await answers.next();
    if (!value) throw new SwarmError("unavailable", "the helper ended");
    return value;
  },
};
let manager: NetworkManager | undefined;

for await (const line of createInterface({ input: process.stdin })) {
  try {
    process.stdout.write(`${JSON.stringify({ result: (await obey(JSON.parse(line))) ?? null })}\n`);
  } catch (reason) {
    process.stdout.write(`${JSON.stringify({ error: SwarmError.from(reason).message })}\n`);
  }
}
for (const container of containers) container.kill("SIGKILL");
serving.stdin.end();
scope.cancel();
await manager?.[Symbol.asyncDispose]();
// What a container started may hold its output open: that is not waited for.
process.exit();

async function obey(request: HostRequest): Promise<unknown> {
  if (request.do === "open") {
    await manager?.[Symbol.asyncDispose]();
    const world = { clock: systemClock, logger, rules: new NftRuleLoader(), sysctls: systemSysctls };
    manager = new NetworkManager({ ...world, netlink: helperNetlink }, { pool: parsePrefix(request.pool) });
    return manager.start(signal);
  }
  const network = manager;
  if (network === undefined) throw new SwarmError("failed_precondition", "open first");
  switch (request.do) {
    case "run":
      return scope.spawn("network", (ending) => network.run(ending));
    case "start":
      return network.start(signal);
    case "attach": {
      const plan = network.attach(request.taskId, bridged(request.address), { hostname: "test" });
      return runContainer(plan.ops, request.command);
    }
    case "publish":
      return network.setPublished(
        request.ports.map(({ hostIp, ...port }) => ({
          ...port,
          ...(hostIp !== undefined && { hostIp: parseIpv4(hostIp) ?? 0 }),
          targets: port.targets.map((target) => ({ ...target, address: parseIpv4(target.address) ?? 0 })),
        })),
        signal,
      );
    case "reconcile":
      return network.reconcile(signal);
    case "detach":
      return network.detach(request.taskId, bridged(request.address), signal);
    case "cleanup":
      return network.cleanup(request.live, signal);
    case "removeAll":
      return network.removeAll(signal);
  }
}

function bridged(address: string): Attachment {
  return { kind: "bridge", address: parsePrefix(address) };
}

async function* readAnswers(): AsyncGenerator<Uint8Array, void> {
  let data = Buffer.alloc(0);
  for await (const chunk of serving.stdout) {
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
