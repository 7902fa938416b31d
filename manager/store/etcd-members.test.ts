/**
 * Goal: the managers' etcd grows and shrinks by managers' certificates, and by nobody else's. Method: real etcds on loopback under
 * one CA.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { writeCredentials } from "../../common/pki/credential-files.ts";
import { ClusterPki } from "../../test/cluster-pki.ts";
import { freePort } from "../../test/free-port.ts";
import { EmbeddedEtcd, peerUrl } from "./embedded-etcd.ts";
import { EtcdKv } from "./etcd-kv.ts";

const NEVER = new AbortController().signal;
const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };

let folder = "";
let pki: ClusterPki;
const opened: AsyncDisposable[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "members-"));
  pki = await ClusterPki.open(systemClock.nowMs());
});

afterEach(async () => {
  for (const etcd of opened.splice(0).reverse()) await etcd[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

interface Place {
  readonly name: string;
  readonly address: string;
  readonly credentials: string;
}

async function place(name: string, role: "swarm-manager" | "swarm-worker" = "swarm-manager"): Promise<Place> {
  const hosts = role === "swarm-manager" ? ["127.0.0.1"] : [];
  const { key, chain, trust } = await pki.join(pki.node(role), { hosts });
  await writeCredentials(join(folder, `${name}-identity`), { key, chain, trust });
  return { name, address: `127.0.0.1:${await freePort()}`, credentials: join(folder, `${name}-identity`, "current") };
}

async function start(
  { name, address, credentials }: Place,
  initialCluster: string,
  joins: boolean,
): Promise<EmbeddedEtcd> {
  const peer = { name, listen: address, advertise: address, initialCluster, joins, credentials };
  const etcd = await EmbeddedEtcd.start({ ...shared, directory: join(folder, name), peer }, NEVER);
  opened.push(etcd);
  return etcd;
}

const member = ({ name, address }: Place) => `${name}=${peerUrl(address)}`;

test("a second member is taken in, has its data and a vote, and leaves", async () => {
  const [first, second] = [await place("a"), await place("b")];
  const a = await start(first, member(first), false);
  using kv = new EtcdKv({ ...shared, endpoints: [a.endpoint] });
  await kv.txn({ compare: [], operations: [{ type: "put", key: "/x", value: Buffer.from("1") }] }, NEVER);
  const members = kv.members();
  const learner = await members.addLearner(second.address, NEVER);
  await expect(members.addLearner("127.0.0.1:1", NEVER)).rejects.toThrow("another manager is just being taken in");
  const promoted = members.promote(learner.id, 30_000, NEVER);
  const b = await start(second, `${member(first)},${member(second)}`, true);
  await promoted;
  expect(await members.list()).toMatchObject([
    { name: expect.any(String), isLearner: false },
    { name: expect.any(String), isLearner: false },
  ]);
  using other = new EtcdKv({ ...shared, endpoints: [b.endpoint] });
  expect((await other.range({ from: { key: "/x" }, limit: 1 }, NEVER)).entries).toHaveLength(1);
  await other.members().remove(learner.id, NEVER);
  await members.remove(learner.id, NEVER);
  expect(await members.list()).toMatchObject([{ name: "a" }]);
}, 60_000);

test("a worker's certificate makes no member", async () => {
  const [first, second] = [await place("a"), await place("b", "swarm-worker")];
  const a = await start(first, member(first), false);
  using kv = new EtcdKv({ ...shared, endpoints: [a.endpoint] });
  const learner = await kv.members().addLearner(second.address, NEVER);
  const giveUp = AbortSignal.timeout(6_000);
  const peer = {
    listen: second.address,
    advertise: second.address,
    initialCluster: `${member(first)},${member(second)}`,
  };
  const starting = EmbeddedEtcd.start(
    {
      ...shared,
      directory: join(folder, "b"),
      peer: { ...peer, name: "b", joins: true, credentials: second.credentials },
    },
    giveUp,
  );
  await expect(starting).rejects.toThrow();
  await expect(kv.members().promote(learner.id, 1_000, NEVER)).rejects.toThrow("has not caught up");
}, 60_000);
