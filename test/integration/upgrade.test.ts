/**
 * Goal: managers and agents are upgraded one by one, with one version of skew: no service is lost, everybody says who runs what, and
 * what the newer version adds to the store survives the older one's writing. Method: two builds of the programs, three hosts, a
 * client that asks all the while; fields and keys of the future are put into the managers' etcd.
 */
import { join } from "node:path";
import { expect } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { projectVersion } from "../../common/base/version.ts";
import { writeDemoImage } from "../../deploy/demo/image.ts";
import { EtcdKv } from "../../manager/store/etcd-kv.ts";
import { eventually } from "../eventually.ts";
import { buildVersion } from "../other-build.ts";
import { rootTest } from "../privileges.ts";
import { TestCluster } from "./cluster.ts";
import { Requests } from "./load.ts";

const NAMES = ["m1", "m2", "m3"];
const NEWER = "9.9.9";
/** Field 15,000 with "future": what a newer version may add to any object. */
const FUTURE = Buffer.concat([Buffer.from([0xc2, 0xa9, 0x07, 6]), Buffer.from("future")]);
/** `Cluster.store_format`, which the last one of them says. */
const FORMAT_99 = Buffer.from([0x38, 99]);
const { signal } = new AbortController();

type Command = (...args: readonly string[]) => Promise<string>;

/** Three managers that are agents, too, of the version that is tested. */
async function startManagers(cluster: TestCluster): Promise<ReadonlyMap<string, Command>> {
  const on = new Map<string, Command>();
  for (const name of NAMES) {
    const swarmctl = await cluster.startIdle(cluster.addHost(name));
    on.set(name, async (...args) => {
      const { code, stdout, stderr } = await swarmctl(...args);
      if (code !== 0) throw new Error(`${args.join(" ")}: ${stderr}`);
      return stdout;
    });
  }
  const [m1, ...others] = on.values();
  await m1?.("swarm", "init");
  const token = (await m1?.("swarm", "join-token", "-q", "manager"))?.trim() ?? "";
  for (const each of others) await each("swarm", "join", "--token", token, `${cluster.host("m1").address}:2377`);
  return on;
}

/** All objects of a kind as they lie in etcd, by key. */
async function stored(kv: EtcdKv, kind: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const { entries } = await kv.range({ from: { prefix: `/swarm/${kind}/` }, limit: 100 }, signal);
  return new Map(entries.map(({ key, value }) => [key, value]));
}

async function put(kv: EtcdKv, key: string, value: Uint8Array): Promise<void> {
  await kv.txn({ compare: [], operations: [{ type: "put", key, value }] }, signal);
}

rootTest(
  "managers are upgraded one by one, then agents: no request fails, and nothing of the future is lost",
  { timeout: 180_000 },
  async () => {
    await using cluster = await TestCluster.start({ managers: 0, nodes: 0 });
    const newer = await buildVersion(cluster.folder("newer"), NEWER);
    const on = await startManagers(cluster);
    const swarmctl = (name: string, ...args: readonly string[]) =>
      on.get(name)?.(...args) ?? Promise.reject(new Error(name));
    const versions = async (name: string) =>
      (await swarmctl(name, "info", "--format", "{{range .Managers}}{{.Version}} {{end}}")).trim().split(" ").sort();
    await swarmctl("m1", "image", "load", writeDemoImage(cluster.folder("images"), "1"));
    const placed = [
      "--replicas",
      "2",
      "--constraint",
      "node.hostname==m3",
      "-p",
      "8080:80",
      "--update-order",
      "start-first",
    ];
    await swarmctl("m1", "service", "create", "--name", "web", "--update-monitor", "500ms", ...placed, "demo/web:1");
    const requests = new Requests(cluster, `http://${cluster.host("m3").address}:8080/up`);

    using kv = new EtcdKv({
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      endpoints: [`unix:${join(cluster.directory, "m2/manager/etcd/client:1")}`],
    });
    const kinds = ["service", "node", "cluster"];
    for (const kind of kinds) {
      for (const [key, value] of await stored(kv, kind)) await put(kv, key, Buffer.concat([value, FUTURE]));
    }
    await put(kv, "/swarm/gadget/abc", FUTURE);

    for (const [done, name] of NAMES.entries()) {
      await cluster.end(cluster.program(`${name}-manager`), "SIGTERM");
      cluster.restartManager(name, newer);
      const expected = NAMES.map((_, index) => (index <= done ? NEWER : projectVersion())).sort();
      for (const each of NAMES)
        await eventually(async () => expect(await versions(each)).toEqual(expected), { timeoutMs: 30_000 });
      // Through each of them, whoever leads.
      for (const each of NAMES)
        await swarmctl(each, "service", "update", "--label-add", `by-${each}=${done}`, "-d", "web");
      await swarmctl(name, "service", "update", "--env-add", `ROUND=${done}`, "web");
      await swarmctl(name, "node", "update", "--label-add", `round=${done}`, "m1");
      await swarmctl(name, "swarm", "update", "--task-history-limit", `${done + 3}`);
    }
    for (const kind of kinds) {
      for (const [key, value] of await stored(kv, kind)) expect(Buffer.from(value).includes(FUTURE), key).toBe(true);
    }

    const tasks = () => swarmctl("m1", "service", "ps", "-q", "--filter", "desired-state=running", "web");
    const before = await tasks();
    for (const name of NAMES) {
      await cluster.end(cluster.agent(name), "SIGTERM");
      cluster.restartAgent(name, newer);
    }
    await eventually(async () => expect(await swarmctl("m1", "info")).toContain(`3 with agent ${NEWER}`), {
      timeoutMs: 30_000,
    });
    expect(await swarmctl("m2", "version")).toContain(` Agents:     ${NEWER}\n`);
    expect(await tasks()).toBe(before);
    expect(requests.failures).toEqual([]);
    expect(requests.answered).toBeGreaterThan(50);

    // What this version would misread it leaves alone.
    for (const [key, value] of await stored(kv, "cluster")) await put(kv, key, Buffer.concat([value, FORMAT_99]));
    const manager = cluster.program("m1-manager");
    await cluster.end(manager, "SIGTERM");
    cluster.restartManager("m1");
    await eventually(() => expect(cluster.log(manager)).toContain("the cluster's store is of format 99"), {
      timeoutMs: 30_000,
    });
  },
);
