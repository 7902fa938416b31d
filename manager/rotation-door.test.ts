/**
 * Goal: a node follows to a new authority without its session's noticing, and what it had before is worth nothing then. Method: the real
 * program, and the agent's own identity with sessions as agents open them.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { NodeIdentity } from "../agent/node-identity.ts";
import { ManagerList } from "../agent/session.ts";
import { systemClock } from "../common/base/clock.ts";
import { silentLogger } from "../common/base/logger.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { createRoot } from "../common/pki/certificate-authority.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import type { ClientTls } from "../common/rpc/tls.ts";
import { NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import { Dispatcher } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { eventually } from "../test/eventually.ts";
import { type ManagerProgram, startManagerProgram } from "../test/manager-program.ts";
import { beatOnce } from "../test/one-beat.ts";

const NEVER = new AbortController().signal;
let folder = "";
let manager: ManagerProgram;
let joins = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rotation-"));
  manager = await startManagerProgram(folder, "a");
});
afterAll(async () => {
  await manager.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A node with a session: it beats, listens, tells of its certificate, and renews. */
async function startNode() {
  const directory = join(folder, `node-${++joins}`);
  const options = { directory, clock: systemClock, random: systemRandom, logger: silentLogger };
  const { worker: token } = await manager.call((control) => control.getJoinTokens({}));
  // A token of a root that is a moment old may be newer than what the manager shows.
  const identity = await eventually(() => NodeIdentity.join(options, { managers: [manager.address], token }, NEVER));
  const { nodeId } = identity;
  const scope = new Scope();
  onTestFinished(() => scope[Symbol.asyncDispose]());
  scope.spawn("certificate", (signal) => identity.run(new ManagerList([manager.address]), signal));
  const transport = openGrpcTransport({ address: manager.address, tls: identity.client });
  onTestFinished(() => transport[Symbol.asyncDispose]());
  const client = createClient(Dispatcher, transport);
  const { promise: opened, resolve } = Promise.withResolvers<string>();
  scope.spawn("session", async (signal) => {
    for await (const message of client.openSession(
      { nodeId, description: { hostname: `node-${joins}` } },
      { signal },
    )) {
      identity.hear(message);
      resolve(message.sessionId);
    }
  });
  const sessionId = await opened;
  scope.spawn("beats", async (signal) => {
    while (true) {
      await beatOnce(client, { nodeId, sessionId }, { signal });
      await systemClock.sleep(500, signal);
    }
  });
  scope.spawn("tell", async (signal) => {
    for await (const { certificate, trustedKeys } of identity.held(signal)) {
      await client.reportCertificate({ nodeId, sessionId, certificate, trustedKeys: [...trustedKeys] }, { signal });
    }
  });
  return { identity, nodeId, scope, client, sessionId };
}

async function beatUnder(tls: ClientTls, nodeId: string): Promise<unknown> {
  await using transport = openGrpcTransport({ address: manager.address, tls });
  return await beatOnce(createClient(Dispatcher, transport), { nodeId, sessionId: "s" });
}

const settled = () =>
  eventually(async () => expect((await manager.call((control) => control.getCa({}))).settled).toBe(true), {
    timeoutMs: 20_000,
  });

test("a node follows under its session; its old certificate and the old token are refused, by a manager that it still knows", async () => {
  const node = await startNode();
  const before = node.identity.client;
  const { worker: oldToken } = await manager.call((control) => control.getJoinTokens({}));
  await manager.call((control) => control.rotateCa({}));
  await settled();
  expect(node.identity.client.certificate).not.toBe(before.certificate);
  expect(node.identity.client.ca).toBe((await manager.call((control) => control.getCa({}))).root);
  // The session that was opened under the old one goes on.
  await beatOnce(node.client, { nodeId: node.nodeId, sessionId: node.sessionId });
  expect(node.scope.signal.aborted).toBe(false);
  // Known, and only not in this session.
  await expect(beatUnder(node.identity.client, node.nodeId)).rejects.toMatchObject({ code: "failed_precondition" });
  // Who has slept through it is told by somebody it believes.
  await expect(beatUnder(before, node.nodeId)).rejects.toMatchObject({ code: "unauthenticated" });
  await expect(beatUnder({ ...before, ca: node.identity.client.ca }, node.nodeId)).rejects.toMatchObject({
    code: "unauthenticated",
  });
  await using transport = openGrpcTransport({ address: manager.address, tls: before });
  const renewal = createClient(NodeCa, transport).issueCertificate({ certificateRequest: "x" });
  await expect(renewal).rejects.toMatchObject({ code: "unauthenticated" });
  const options = { directory: join(folder, "late"), clock: systemClock, random: systemRandom, logger: silentLogger };
  await expect(
    NodeIdentity.join(options, { managers: [manager.address], token: oldToken }, NEVER),
  ).rejects.toMatchObject({
    code: "failed_precondition",
    message: expect.stringContaining("its CA is not the token's"),
  });
}, 60_000);

test("a host joins while the root rotates, by the token of either root; the manager's restart changes nothing", async () => {
  const away = await startNode();
  const { worker: oldToken } = await manager.call((control) => control.getJoinTokens({}));
  await away.scope[Symbol.asyncDispose]();
  await eventually(
    async () => {
      const { nodes } = await manager.call((control) => control.listNodes({ references: [away.nodeId] }));
      expect(nodes[0]?.status?.message).toBe("heartbeat failure");
    },
    { timeoutMs: 30_000 },
  );
  const theirs = await createRoot({ nowMs: systemClock.nowMs(), entropy: systemEntropy });
  await manager.call((control) => control.rotateCa({ certificates: theirs.certificates, key: theirs.key }));
  const here = await startNode();
  const options = {
    directory: join(folder, "old-token"),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  };
  await NodeIdentity.join(options, { managers: [manager.address], token: oldToken }, NEVER);
  const ca = await manager.call((control) => control.getCa({}));
  expect(ca).toMatchObject({ rotating: true, root: theirs.certificates, nodesAway: 2 });
  await here.scope[Symbol.asyncDispose]();
  await manager.stop();
  manager = await startManagerProgram(folder, "a");
  expect(await manager.call((control) => control.getCa({}))).toMatchObject({
    rotating: true,
    root: theirs.certificates,
  });
  // Under the certificate and roots of before.
  await expect(beatUnder(away.identity.client, away.nodeId)).rejects.toMatchObject({ code: "failed_precondition" });
  // Those of both tests that are away: who joined meanwhile has a certificate of the new authority's.
  const { nodes } = await manager.call((control) => control.listNodes({}));
  for (const { id, certificate } of nodes) {
    if (certificate?.trustedKeys.length === 2) continue;
    await manager.call((control) => control.removeNode({ nodeId: id, force: true }));
  }
  await eventually(async () => expect((await manager.call((control) => control.getCa({}))).rotating).toBe(false));
  // A moment before it was told that it is removed.
  await eventually(() =>
    expect(beatUnder(away.identity.client, away.nodeId)).rejects.toMatchObject({ code: "unauthenticated" }),
  );
}, 90_000);
