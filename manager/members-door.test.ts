/**
 * Goal: who is let in by a real manager, and who is not (hardening cases 66-69, 73, 113-118; F39, F41). Method: the real program with an
 * etcd of its own; joins, certificates and calls as hosts make them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type JoinRequest, NodeIdentity } from "../agent/node-identity.ts";
import { systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { silentLogger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import type { ClientTls } from "../common/rpc/tls.ts";
import { NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { LocalManager } from "../proto/gen/swarm/v1/local_pb.js";
import { NodeSpec_Availability, NodeSpec_Role } from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { freePort } from "../test/free-port.ts";
import { beatOnce } from "../test/one-beat.ts";

const PROGRAM = new URL("swarm-manager", import.meta.url).pathname;
const NEVER = new AbortController().signal;

interface Running {
  readonly child: ChildProcess;
  readonly address: string;
  readonly socket: string;
  readonly text: readonly string[];
}

let folder = "";
let manager: Running;
let other: Running;
let joins = 0;

async function start(name: string, more = ["--listen-addr", "127.0.0.1:0"], ready = "manager ready"): Promise<Running> {
  const socket = join(folder, `${name}.sock`);
  const options = ["--data-dir", join(folder, name), "--socket", socket, ...more];
  const child = spawn(PROGRAM, [...options, "--log-format", "json"], { stdio: ["ignore", "pipe", "pipe"] });
  const text: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on("line", (line) => text.push(line));
  const line = await eventually(
    () => {
      const found = text.find((each) => each.includes(`"msg":"${ready}"`));
      if (!found) throw new Error(text.join("\n"));
      return found;
    },
    { timeoutMs: 20_000 },
  );
  return { child, socket, text, address: String((JSON.parse(line) as { address: string }).address) };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "members-"));
  [manager, other] = await Promise.all([start("a"), start("b")]);
});

afterAll(async () => {
  for (const { child } of [manager, other]) {
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGTERM");
    await ended;
  }
  await rm(folder, { recursive: true, force: true });
});

async function tokens(of: Running, rotate?: NodeSpec_Role) {
  await using local = openGrpcTransport({ address: `unix:${of.socket}` });
  return await createClient(Control, local).getJoinTokens(rotate === undefined ? {} : { rotate });
}

async function local<T>(call: (control: ReturnType<typeof createClient<typeof Control>>) => Promise<T>): Promise<T> {
  await using transport = openGrpcTransport({ address: `unix:${manager.socket}` });
  return await call(createClient(Control, transport));
}

const options = (directory: string) => ({
  ...{ directory, clock: systemClock, random: systemRandom },
  logger: silentLogger,
});

function joinCluster(request: Partial<JoinRequest> & { readonly token: string }): Promise<NodeIdentity> {
  const directory = join(folder, `node-${++joins}`);
  return NodeIdentity.join(options(directory), { managers: [manager.address], ...request }, NEVER);
}

async function heartbeat(tls: ClientTls, nodeId = ""): Promise<unknown> {
  await using transport = openGrpcTransport({ address: manager.address, tls });
  return await beatOnce(createClient(Dispatcher, transport), { nodeId, sessionId: "s" });
}

test("a worker's token makes a node, which then has a certificate and no need of the token", async () => {
  const { worker } = await tokens(manager);
  const node = await joinCluster({ token: ` ${worker}\n`, availability: NodeSpec_Availability.PAUSE });
  const { nodes } = await local((control) => control.listNodes({ references: [node.nodeId] }));
  expect(nodes[0]?.spec).toMatchObject({
    availability: NodeSpec_Availability.PAUSE,
    desiredRole: NodeSpec_Role.WORKER,
  });
  // Known, and only not in session.
  await expect(heartbeat(node.client, node.nodeId)).rejects.toMatchObject({ code: "failed_precondition" });
  const again = await NodeIdentity.read(options(join(folder, `node-${joins}`)));
  expect(again?.nodeId).toBe(node.nodeId);
});

test("a certificate speaks for its node only, and for agents' methods only", async () => {
  const node = await joinCluster(await tokens(manager).then(({ worker }) => ({ token: worker })));
  await expect(heartbeat(node.client, "x".repeat(25))).rejects.toMatchObject({ code: "permission_denied" });
  await using transport = openGrpcTransport({ address: manager.address, tls: node.client });
  const denied = { code: "permission_denied" };
  await expect(createClient(Control, transport).getInfo({})).rejects.toMatchObject(denied);
  await expect(createClient(Control, transport).getJoinTokens({})).rejects.toMatchObject(denied);
  const asManager = { certificateRequest: "x", manager: true };
  await expect(createClient(NodeCa, transport).issueCertificate(asManager)).rejects.toMatchObject(denied);
});

test("a manager's token makes a node whose manager may have a certificate, too", async () => {
  const { manager: token } = await tokens(manager);
  const node = await joinCluster({ token });
  const { nodes } = await local((control) => control.listNodes({ references: [node.nodeId] }));
  expect(nodes[0]?.spec?.desiredRole).toBe(NodeSpec_Role.MANAGER);
  await using transport = openGrpcTransport({ address: manager.address, tls: node.client });
  // Past the question who asks: only the request itself is nonsense.
  const call = createClient(NodeCa, transport).issueCertificate({ certificateRequest: "x", manager: true });
  await expect(call).rejects.toMatchObject({ code: "invalid_argument" });
});

test("what is no token is told before anything is dialled", async () => {
  const nobody = { managers: ["127.0.0.1:1"] };
  await expect(joinCluster({ token: "hunter2", ...nobody })).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining("invalid join token"),
  });
  const { worker } = await tokens(manager);
  await expect(joinCluster({ token: worker.slice(0, -1), ...nobody })).rejects.toThrow(
    "invalid join token: its secret",
  );
  await expect(joinCluster({ token: worker, ...nobody })).rejects.toMatchObject({ code: "unavailable" });
});

test("a manager of another cluster is not told the token", async () => {
  const { worker } = await tokens(manager);
  await expect(joinCluster({ token: worker, managers: [other.address] })).rejects.toMatchObject({
    code: "failed_precondition",
    message: expect.stringContaining("the token was not sent"),
  });
  expect(other.text.filter((line) => line.includes("join token"))).toEqual([]);
});

test("another cluster's certificate is nobody's here", async () => {
  const { worker } = await tokens(other);
  const stranger = await joinCluster({ token: worker, managers: [other.address] });
  const mine = await joinCluster({ token: (await tokens(manager)).worker });
  // It would not believe this manager; made to, this manager does not believe it.
  await expect(heartbeat(stranger.client)).rejects.toMatchObject({ code: "unavailable" });
  const { ca } = mine.client;
  await expect(heartbeat({ ...stranger.client, ca })).rejects.toMatchObject({ code: "unauthenticated" });
  await expect(heartbeat({ ca, serverName: "swarm-manager" })).rejects.toMatchObject({ code: "unauthenticated" });
});

test("whoever has the socket may begin a cluster, locked from the beginning", async () => {
  const idle = await start("idle", [], "socket open");
  try {
    await using transport = openGrpcTransport({ address: `unix:${idle.socket}` });
    const listenAddress = `127.0.0.1:${await freePort()}`;
    const request = { listenAddress, advertiseAddress: listenAddress, autolock: true };
    const { unlockKey } = await createClient(LocalManager, transport).initCluster(request, { timeoutMs: 30_000 });
    expect(unlockKey).toMatch(/^SWMKEY-1-/);
    expect(await createClient(Control, transport).getUnlockKey({})).toMatchObject({ unlockKey });
    expect(idle.text.filter((line) => line.includes(unlockKey))).toEqual([]);
  } finally {
    const ended = new Promise((resolve) => idle.child.once("close", resolve));
    idle.child.kill("SIGTERM");
    await ended;
  }
});

test("a rotated token is refused at once, members are unaffected", async () => {
  const before = await tokens(manager);
  const member = await joinCluster({ token: before.worker });
  const after = await tokens(manager, NodeSpec_Role.WORKER);
  expect(after.worker).not.toBe(before.worker);
  expect(after.manager).toBe(before.manager);
  await expect(joinCluster({ token: before.worker })).rejects.toMatchObject({
    code: "permission_denied",
    message: expect.stringContaining("may have been rotated"),
  });
  await joinCluster({ token: after.worker });
  await expect(heartbeat(member.client, member.nodeId)).rejects.toMatchObject({ code: "failed_precondition" });
  const secret = before.worker.split("-")[3] ?? "";
  expect(manager.text.filter((line) => line.includes(secret))).toEqual([]);
});

test("guesses are slowed down", async () => {
  const { worker } = await tokens(manager);
  const wrong = `${worker.slice(0, -25)}${"0".repeat(25)}`;
  await using transport = openGrpcTransport({ address: manager.address, tls: { verify: false } });
  const client = createClient(NodeCa, transport);
  const codes: string[] = [];
  for (let guess = 0; guess < 20; guess++) {
    await client.issueCertificate({ token: wrong, certificateRequest: "x" }).catch(({ code }) => codes.push(code));
  }
  expect(codes[0]).toBe("permission_denied");
  expect(codes.indexOf("resource_exhausted")).toBeLessThanOrEqual(5);
  expect(codes.filter((code) => code === "resource_exhausted").length).toBeGreaterThan(5);
  await eventually(() => joinCluster({ token: worker }));
});

test("a node that was removed is refused at once, and gets no new certificate", async () => {
  const { worker } = await tokens(manager);
  const node = await joinCluster({ token: worker });
  await local((control) => control.removeNode({ nodeId: node.nodeId, force: true }));
  await expect(heartbeat(node.client, node.nodeId)).rejects.toMatchObject({
    code: "permission_denied",
    message: `node ${node.nodeId} was removed from the cluster`,
  });
  await using transport = openGrpcTransport({ address: manager.address, tls: node.client });
  const renewal = createClient(NodeCa, transport).issueCertificate({ certificateRequest: "x" });
  await expect(renewal).rejects.toMatchObject({ code: "permission_denied" });
});

test("a node that was removed hears no more: its streams are closed, whatever they were for", async () => {
  const node = await joinCluster({ token: (await tokens(manager)).worker });
  await using transport = openGrpcTransport({ address: manager.address, tls: node.client });
  const { nodeId } = node;
  const dispatcher = createClient(Dispatcher, transport);
  const session = dispatcher.openSession({ nodeId, description: { hostname: "h" } })[Symbol.asyncIterator]();
  const { sessionId } = (await session.next()).value ?? {};
  const streams = {
    session: { [Symbol.asyncIterator]: () => session },
    assignments: dispatcher.watchAssignments({ nodeId, sessionId }),
    subscriptions: createClient(LogBroker, transport).listenSubscriptions({ nodeId, sessionId }),
    offers: createClient(StreamBroker, transport).listenStreams({ nodeId, sessionId }),
  };
  const ends: Record<string, string> = {};
  const reading = Object.entries(streams).map(async ([name, stream]) => {
    try {
      for await (const _ of stream);
      ends[name] = "ended";
    } catch (reason) {
      ends[name] = SwarmError.from(reason).code;
    }
  });
  await local((control) => control.removeNode({ nodeId, force: true }));
  await eventually(() => expect(Object.keys(ends).sort()).toEqual(Object.keys(streams).sort()));
  await Promise.all(reading);
  expect(ends.session).toBe("failed_precondition");
});

test("the CA and the tokens survive the manager", async () => {
  const before = await tokens(manager);
  const node = await joinCluster({ token: before.worker });
  const ended = new Promise((resolve) => manager.child.once("close", resolve));
  manager.child.kill("SIGTERM");
  await ended;
  await cp(join(folder, "a", "identity"), join(folder, "kept"), { recursive: true, verbatimSymlinks: true });
  manager = await start("a");
  expect(await tokens(manager)).toEqual(before);
  expect(manager.text.filter((line) => line.includes("certificate made"))).toEqual([]);
  // Unavailable until it has told the store that it is there.
  await eventually(async () => {
    await expect(heartbeat(node.client, node.nodeId)).rejects.toMatchObject({ code: "failed_precondition" });
  });
});
