/**
 * Goal: the authority changes under a cluster that goes on, whoever is away, leads or asks again meanwhile: at no moment do two
 * members that should believe each other not do so, and in the end nobody believes the old one. Method: the real authority, store
 * and loop on a clock that the test moves; nodes are played with real certificates, and every pair is verified as TLS does.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { type NodeId, newId } from "../../common/base/id.ts";
import { type Logger, silentLogger } from "../../common/base/logger.ts";
import { seededRandom, systemEntropy } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { toDuration } from "../../common/model/duration.ts";
import { type AuthorityFiles, createRoot } from "../../common/pki/certificate-authority.ts";
import { createCertificateRequest } from "../../common/pki/certificate-request.ts";
import { keyIdOf, readCertificates } from "../../common/pki/certificates.ts";
import { generateKeyPair } from "../../common/pki/key-pair.ts";
import { ASK_AGAIN_MS, ROTATION_BATCH_MAX } from "../../common/pki/root-rotation.ts";
import { readTrustBundle } from "../../common/pki/trust-bundle.ts";
import { verifyChain } from "../../common/pki/verify-chain.ts";
import {
  type ReportCertificateRequest,
  ReportCertificateRequestSchema,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  type ClusterCa,
  ClusterSchema,
  ManagerInfoSchema,
  NodeSchema,
  SessionSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { createIntermediate } from "../../test/intermediate.ts";
import { renewUnder, toldCertificate } from "../dispatcher/node-certificate.ts";
import { KEY_BYTES } from "../sealing/cluster-key.ts";
import { Sealer } from "../sealing/sealer.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import type { ProposalGroup } from "../store/proposal.ts";
import { ClusterAuthority } from "./cluster-authority.ts";
import { RootRotator } from "./root-rotator.ts";

const { signal } = new AbortController();
const HOUR_MS = 3_600_000;

/** What somebody has on their disk. */
interface Held {
  readonly chain: string;
  readonly trust: string;
}

async function world() {
  const clock = new FakeClock();
  const random = seededRandom(3);
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  onTestFinished(async () => {
    await scope[Symbol.asyncDispose]();
    kv[Symbol.dispose]();
  });
  const store = await openStore({ kv, clock, random, logger: silentLogger }, scope);
  const commit = (...groups: ProposalGroup[]) => store.commit(groups, { signal });
  const cluster = create(ClusterSchema, { id: "default", spec: { certificateLifetime: toDuration(2 * HOUR_MS) } });
  await commit({ type: "create", kind: "cluster", object: cluster });
  const sealer = new Sealer(new Uint8Array(KEY_BYTES), systemEntropy);
  const authority = new ClusterAuthority({ store, sealer, clock, random, entropy: systemEntropy });
  await authority.ensure(signal);
  const logged: string[] = [];
  const logger: Logger = { ...silentLogger, info: (_: unknown, text?: string) => logged.push(text ?? "") } as Logger;
  let rotator = new RootRotator({ clock, logger });
  const held = new Map<string, Held>();
  const asked: string[][] = [];

  const ca = (): ClusterCa => {
    const found = store.view.cluster?.ca;
    if (!found) throw new Error("no CA");
    return found;
  };

  async function issue(id: string, role: "swarm-worker" | "swarm-manager"): Promise<Held> {
    const subject = { kind: "node", nodeId: id as NodeId, role, clusterId: authority.clusterId } as const;
    const { chain } = await authority.issue(subject, await createCertificateRequest(await generateKeyPair()));
    return { chain, trust: authority.roots };
  }

  /** A node tells what it has. */
  async function tell(id: string): Promise<void> {
    const node = store.view.nodes.get(id);
    const { chain = "", trust = "" } = held.get(id) ?? {};
    if (!node) return;
    const trustedKeys = readTrustBundle(trust).map(({ publicKey }) => keyIdOf(publicKey));
    const request = create(ReportCertificateRequestSchema, { nodeId: id, certificate: chain, trustedKeys });
    const certificate = toldCertificate(ca(), request as ReportCertificateRequest);
    const askedRotation = node.certificate?.askedRotation ?? "";
    await commit({ type: "update", kind: "node", object: { ...node, certificate: { ...certificate, askedRotation } } });
  }

  async function addNodes(count: number): Promise<string[]> {
    const ids = Array.from({ length: count }, () => newId<NodeId>(random));
    for (const id of ids) {
      await commit([
        { type: "create", kind: "node", object: create(NodeSchema, { id }) },
        { type: "create", kind: "session", object: create(SessionSchema, { nodeId: id }) },
      ]);
      held.set(id, await issue(id, "swarm-worker"));
      await tell(id);
    }
    return ids;
  }

  /** The manager takes up whatever is stored, at once. */
  async function managerFollows(id: string): Promise<void> {
    held.set(id, await issue(id, "swarm-manager"));
    const { chain, trust } = held.get(id) as Held;
    const keys = readTrustBundle(trust).map(({ publicKey }) => keyIdOf(publicKey));
    const issuerKey = authority.certificates.issuerKeyId;
    const object = create(ManagerInfoSchema, { id, certificate: { issuerKey, trustedKeys: keys } });
    expect(chain).toContain("BEGIN");
    const version = store.view.version("manager", id);
    await commit(
      version === undefined
        ? { type: "create", kind: "manager", object }
        : { type: "update", kind: "manager", object, version },
    );
  }
  const managerId = newId<NodeId>(random);
  await managerFollows(managerId);

  /** One pass of the loop. */
  async function pass(): Promise<void> {
    const { groups } = rotator.decide(store.view);
    asked.push(
      groups.flatMap((group) =>
        !Array.isArray(group) && "object" in group && group.kind === "node" ? [group.object.id] : [],
      ),
    );
    await commit(...groups);
  }

  /** Everybody who is there does what they are told. */
  async function nodesAct(how: { readonly fails?: (id: string) => boolean } = {}): Promise<void> {
    await managerFollows(managerId);
    for (const [id, { trust }] of [...held]) {
      if (id === managerId || !store.view.sessions.has(id)) continue;
      const node = store.view.nodes.get(id);
      const under = renewUnder(ca(), node);
      if (under !== "" && under !== node?.certificate?.issuerKey && !how.fails?.(id))
        held.set(id, await issue(id, "swarm-worker"));
      else if (trust !== authority.roots) held.set(id, { ...(held.get(id) as Held), trust: authority.roots });
      else continue;
      await tell(id);
    }
  }

  /** That the manager and everyone who is there believe each other, as TLS would see it. */
  async function everyoneBelieves(ids: Iterable<string> = [...held.keys()]): Promise<void> {
    const manager = held.get(managerId) as Held;
    const shared = { nowMs: clock.nowMs(), clusterId: authority.clusterId };
    for (const id of ids) {
      if (id === managerId) continue;
      const node = held.get(id) as Held;
      const server = readCertificates(manager.chain, "manager");
      expect(
        await verifyChain(server, readTrustBundle(node.trust), { ...shared, usage: "server", name: "swarm-manager" }),
        `${id} believes the manager`,
      ).toMatchObject({ ok: true });
      const client = readCertificates(node.chain, "node");
      expect(
        await verifyChain(client, readTrustBundle(authority.roots), { ...shared, usage: "client" }),
        `the manager believes ${id}`,
      ).toMatchObject({ ok: true });
    }
  }

  const leave = (id: string) => commit({ type: "delete", kind: "session", id });
  const comeBack = (id: string) =>
    commit({ type: "create", kind: "session", object: create(SessionSchema, { nodeId: id }) });
  const rotate = (successor?: Pick<AuthorityFiles, "certificates" | "key">) =>
    authority.rotate(successor ? { successor } : {}, signal);
  const newLeader = () => {
    rotator = new RootRotator({ clock, logger });
  };
  const isOver = () => ca().rotation === undefined;
  return {
    ...{ clock, store, authority, held, asked, logged, ca, commit, addNodes, pass, nodesAct, everyoneBelieves },
    ...{ leave, comeBack, rotate, newLeader, isOver, managerFollows, managerId, tell, issue },
  };
}

const rootOf = (pem: string) => readCertificates(pem, "root").at(-1)?.toString();

test("a few nodes at a time follow; everyone believes everyone all the while, and nobody the old root afterwards", async () => {
  const { addNodes, rotate, pass, nodesAct, everyoneBelieves, isOver, asked, authority, held, ca } = await world();
  const ids = await addNodes(2 * ROTATION_BATCH_MAX + 10);
  const before = { root: authority.root, held: held.get(ids[0] ?? "") };
  await rotate();
  expect(authority.root).not.toBe(before.root);
  expect(readTrustBundle(authority.roots)).toHaveLength(2);
  for (let round = 0; !isOver(); round++) {
    expect(round).toBeLessThan(8);
    await everyoneBelieves(ids.filter((_, index) => index % 10 === 0));
    await pass();
    await nodesAct();
  }
  expect(asked.map(({ length }) => length).filter(Boolean)).toEqual([ROTATION_BATCH_MAX, ROTATION_BATCH_MAX, 10]);
  await nodesAct();
  await everyoneBelieves(ids.slice(0, 10));
  expect(authority.roots).toBe(authority.root);
  for (const id of ids) expect(held.get(id)?.trust).toBe(authority.root);
  const [leaf] = readCertificates(before.held?.chain ?? "", "old");
  const usage = { nowMs: Date.UTC(2026, 0, 1), usage: "client" } as const;
  expect(await verifyChain([leaf], readTrustBundle(authority.roots), usage)).toMatchObject({
    fault: "unknown-authority",
  });
  expect(
    Buffer.from(toBinary(ClusterSchema, create(ClusterSchema, { id: "x", ca: ca() }))).toString("latin1"),
  ).not.toContain("PRIVATE KEY");
}, 60_000);

test("a node that is away keeps it open, comes back with what it had, and follows; one whose time is over is not waited for", async () => {
  const { addNodes, rotate, pass, nodesAct, everyoneBelieves, isOver, leave, comeBack, clock, tell } = await world();
  const [here = "", away = ""] = await addNodes(2);
  await leave(away);
  await rotate();
  for (let round = 0; round < 4; round++) {
    await pass();
    await nodesAct();
  }
  expect(isOver()).toBe(false);
  await everyoneBelieves([here, away]);
  await comeBack(away);
  await tell(away);
  await pass();
  await nodesAct();
  await everyoneBelieves();
  await pass();
  expect(isOver()).toBe(true);
  await nodesAct();
  await leave(away);
  await rotate();
  await pass();
  await nodesAct();
  await pass();
  expect(isOver()).toBe(false);
  // Two hours of life, and one by which clocks may differ.
  await clock.advance(2 * HOUR_MS + 1_000);
  await pass();
  expect(isOver()).toBe(false);
  await clock.advance(HOUR_MS);
  await pass();
  expect(isOver()).toBe(true);
});

test("a node that is removed is not waited for", async () => {
  const { addNodes, rotate, pass, nodesAct, isOver, leave, commit } = await world();
  const [, away = ""] = await addNodes(2);
  await leave(away);
  await rotate();
  await pass();
  await nodesAct();
  await pass();
  expect(isOver()).toBe(false);
  await commit({ type: "delete", kind: "node", id: away });
  await pass();
  expect(isOver()).toBe(true);
});

test("another rotation replaces one that is open, as often as it is asked for; also back to where it began", async () => {
  const { addNodes, rotate, pass, nodesAct, everyoneBelieves, isOver, authority, leave, comeBack, tell, ca } =
    await world();
  const nowMs = new FakeClock().nowMs();
  const theirs = await createRoot({ nowMs, entropy: systemEntropy });
  await rotate(theirs);
  await nodesAct();
  await pass();
  expect(isOver()).toBe(true);
  const ids = await addNodes(4);
  const [first = "", , , away = ""] = ids;
  await leave(away);
  // Each time only the one that is asked first gets through.
  for (let again = 0; again < 3; again++) {
    await rotate();
    await pass();
    await nodesAct({ fails: (id) => id !== first });
    await everyoneBelieves();
  }
  expect(ca().rotations).toBe(4n);
  // What is trusted is bounded by what somebody may still have.
  expect(readTrustBundle(authority.roots)).toHaveLength(4);
  await rotate(theirs);
  await everyoneBelieves();
  expect(rootOf(authority.root)).toBe(rootOf(theirs.certificates));
  await comeBack(away);
  await tell(away);
  for (let round = 0; !isOver(); round++) {
    expect(round).toBeLessThan(4);
    await pass();
    await nodesAct();
    await everyoneBelieves();
  }
  expect(authority.roots).toBe(theirs.certificates);
}, 60_000);

test("a new leader goes on where the last one stopped, and asks nobody twice for nothing", async () => {
  const { addNodes, rotate, pass, nodesAct, isOver, newLeader, asked, clock } = await world();
  await clock.advance(1_000);
  const ids = await addNodes(ROTATION_BATCH_MAX + 5);
  await rotate();
  await pass();
  newLeader();
  await pass();
  // Those that were asked are at it, as far as the new one knows.
  expect(asked.map(({ length }) => length)).toEqual([ROTATION_BATCH_MAX, 0]);
  await clock.advance(ASK_AGAIN_MS);
  await pass();
  // They have failed, then: it is the others' turn.
  expect(asked[2]).toEqual(ids.filter((id) => !asked[0]?.includes(id)));
  newLeader();
  await nodesAct();
  await pass();
  expect(isOver()).toBe(true);
}, 60_000);

test("without anybody's leave: an authority that may sign no other is followed by two steps", async () => {
  const { addNodes, rotate, pass, nodesAct, everyoneBelieves, isOver, authority, ca, leave, comeBack, tell, logged } =
    await world();
  const ids = await addNodes(3);
  await rotate(await createIntermediate(2, new FakeClock().nowMs()));
  for (let round = 0; !isOver(); round++) {
    expect(round).toBeLessThan(4);
    await everyoneBelieves();
    await pass();
    await nodesAct();
  }
  await nodesAct();
  const [, away = ""] = ids;
  await leave(away);
  const signer = authority.certificates.issuerKeyId;
  await rotate();
  await pass();
  await nodesAct();
  await pass();
  // One node does not trust the new root yet: the old one signs.
  expect(authority.certificates.issuerKeyId).toBe(signer);
  await everyoneBelieves();
  await comeBack(away);
  await tell(away);
  await nodesAct();
  await pass();
  expect(logged).toContain("every node trusts the new root");
  expect(authority.certificates.issuerKeyId).not.toBe(signer);
  await everyoneBelieves();
  for (let round = 0; !isOver(); round++) {
    expect(round).toBeLessThan(4);
    await pass();
    await nodesAct();
    await everyoneBelieves();
  }
  expect(ca()).toMatchObject({ formerRoots: "", crossCertificate: "" });
});

test("an authority of theirs that signs at once is believed by who knows the old root only", async () => {
  const { addNodes, rotate, managerFollows, managerId, everyoneBelieves, ca } = await world();
  await addNodes(1);
  await rotate(await createIntermediate(1, new FakeClock().nowMs()));
  expect(ca().rotation?.next).toBe("");
  await managerFollows(managerId);
  await everyoneBelieves();
  // It has itself room for another one, but not for one with more below it.
  await rotate(await createIntermediate(1, new FakeClock().nowMs()));
  expect(ca().rotation?.next).toBe("");
  await rotate(await createIntermediate(2, new FakeClock().nowMs()));
  expect(ca().rotation?.next).not.toBe("");
  await managerFollows(managerId);
  await everyoneBelieves();
});

test("what cannot be is refused: the same authority again, more rotations than fit", async () => {
  const { addNodes, rotate, authority, leave, ca } = await world();
  const theirs = await createRoot({ nowMs: new FakeClock().nowMs(), entropy: systemEntropy });
  await rotate(theirs);
  await expect(rotate(theirs)).rejects.toThrow("the cluster's CA is that one already");
  const [away = ""] = await addNodes(1);
  await leave(away);
  const before = ca().rotations;
  await expect(
    (async () => {
      for (let count = 0; count < 20; count++) await rotate();
    })(),
  ).rejects.toMatchObject({ code: "failed_precondition", message: expect.stringContaining("too many rotations") });
  expect(Number(ca().rotations - before)).toBeGreaterThan(5);
  expect(readTrustBundle(authority.roots).length).toBeLessThanOrEqual(12);
});
