/**
 * Goal: whatever somebody does to the devices of encrypted networks, tasks hear each other again at the next look, and
 * nothing of what they say meanwhile is on the wire in clear. Method: two network namespaces as hosts whose tasks talk all
 * the time, a tap on each one's wire, `ip`, `bridge`, `nft` and Debian's `wg` to do harm, and the hosts' state as these
 * show it before and after.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fabricNumber } from "../../../agent/network/fabric.ts";
import { publicKeyOf } from "../../../agent/network/wireguard-key.ts";
import { newId, type TaskId } from "../../../common/base/id.ts";
import { systemRandom } from "../../../common/base/random.ts";
import { CLIENT_ADDRESS, type ContainerStarted, Lab, type LabHost, type TestCluster } from "../../network-lab.ts";
import { address, hostOf, newKey, POOL, SECRET, SECRET6, tap, tapped } from "./encrypted-lab.ts";
import { Talk } from "./talk.ts";

/** How soon all must be as it was; most of it is the five seconds until an agent looks. */
const HEALED_MS = 10_000;
const LOOK_MS = 5_000;
/** What another host's task must not notice of an agent that dies. */
const UNNOTICED_MS = 3_000;
/** With `--long` more harm is done, and an agent is killed at many of its steps, else at one about its middle. */
const LONG = process.env.SWARM_TEST_LONG !== undefined;
const MIDDLE = 30;

const keys = [newKey(), newKey()] as const;
const taskIds = [newId<TaskId>(systemRandom), newId<TaskId>(systemRandom)] as const;
const containers: ContainerStarted[] = [];
const talks: Talk[] = [];
let lab: Lab;
let first: LabHost;
/** The first host's state when nothing is amiss. */
let whole: readonly string[];

/** Either host's number as an index. */
type Which = 0 | 1;

function taskOf(which: Which) {
  const at = `${SECRET[which]}/24`;
  return { taskId: taskIds[which], addresses: [at], ipv6: [`${SECRET6[which]}/64`], encrypted: [at] };
}

function clusterOf(own: Which): TestCluster {
  const other = own === 0 ? 1 : 0;
  const host = address(other + 1);
  return {
    networks: ["10.0.5.0/24", "fd05::/64"].map((subnet) => ({ subnet, encrypted: true })),
    hosts: [host],
    keys: { [host]: keys[other] },
    remote: { [SECRET[other]]: host, [SECRET6[other]]: host },
    encrypted: [...SECRET, ...SECRET6],
  };
}

/** The key by which `wg` knows a host. */
function publicKey(which: Which): string {
  return Buffer.from(publicKeyOf(Buffer.from(keys[which], "hex"))).toString("base64");
}

/** All that is known of the encrypted fabric on a host, but for what counts up and the indexes of devices. */
async function stateOf(host: LabHost): Promise<readonly string[]> {
  const script = `
    for device in swarm0e swarm0w; do
      ip -d -o link show $device
      ip -o addr show dev $device
      grep -H . /proc/sys/net/ipv4/conf/$device/rp_filter /proc/sys/net/ipv4/conf/$device/send_redirects
      grep -sH . /proc/sys/net/ipv6/conf/$device/disable_ipv6 /proc/sys/net/ipv6/conf/$device/accept_ra
    done
    ip -o -4 route show table all
    ip -o -6 route show table all
    ip rule
    ip neigh show nud permanent
    bridge fdb show dev swarm0e
    wg showconf swarm0w
    nft -s list table ip swarm0
    nft -s list table ip6 swarm0`;
  const shown = await host.run("sh", "-c", script);
  // What the kernel learnt of a path's MTU is forgotten by itself.
  const lines = shown.split("\n").filter((line) => !line.includes(" cache "));
  return lines.map((line) => line.replace(/^\d+: /, "").replace(/ probes \d+/, "")).toSorted();
}

beforeAll(async () => {
  lab = await Lab.open(2);
  first = hostOf(lab, 1);
  for (const which of [0, 1] as const) {
    const host = hostOf(lab, which + 1);
    // Somewhere for a packet to go that has no better way.
    await host.run("ip", "route", "add", "default", "via", CLIENT_ADDRESS);
    await host.ask({ do: "open", pool: POOL, local: host.address, key: keys[which] });
    containers.push(await host.serveHttp(taskOf(which), `secret${which}`));
    await host.ask({ do: "cluster", cluster: clusterOf(which) });
  }
  for (const [which, container] of containers.entries()) {
    const other = which === 0 ? 1 : 0;
    talks.push(new Talk(lab, container, [SECRET[other], SECRET6[other]]));
  }
  await expectAllHeard();
  whole = await stateOf(first);
}, 300_000);
afterAll(() => lab?.[Symbol.asyncDispose]());

async function expectAllHeard(): Promise<void> {
  expect(await Promise.all(talks.map((talk) => talk.unheard()))).toEqual([[], []]);
}

/** One look of the first host's agent: all are heard, nothing was on the wire in clear since `tap`, and all is as before. */
async function expectMended(): Promise<void> {
  const since = performance.now();
  await first.ask({ do: "reconcile" });
  await expectAllHeard();
  expect(performance.now() - since).toBeLessThan(HEALED_MS - LOOK_MS);
  expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0, other: 0 });
  expect(await stateOf(first)).toEqual(whole);
}

/** Those who answered one of five packets sent to each. */
async function answering(): Promise<readonly unknown[]> {
  return (await Promise.all(talks.map((talk) => talk.tries()))).flat();
}

const KEY_FILE = "/tmp/wireguard-key";
const peer = `peer ${publicKey(1)}`;
const secondSecret = `wg genkey > ${KEY_FILE}; wg set swarm0w ${peer} preshared-key ${KEY_FILE}`;
const restart = "ip link set swarm0w down; ip link set swarm0w up";
const impostor = `vxlan id ${fabricNumber("swarm0e")} dstport 4789 local ${address(1)} remote ${address(2)} dev wire`;

const CUTS: readonly (readonly [string, string])[] = [
  ["the tunnel and the rules are gone", "nft flush ruleset; ip link del swarm0w"],
  ["the fabric is deleted", "ip link del swarm0e"],
  ["the tunnel is taken down", "ip link set swarm0w down"],
  ["the fabric is taken down", "ip link set swarm0e down"],
  ["the other host is forgotten", `wg set swarm0w ${peer} remove`],
];
/** With `--long`. */
const MORE_CUTS: typeof CUTS = [
  ["the other host is to know a second secret", `${secondSecret}; ${restart}`],
  ["the other host may not speak for its address", `wg set swarm0w ${peer} allowed-ips 10.9.9.9/32`],
  ["the key is another", `wg genkey > ${KEY_FILE}; wg set swarm0w private-key ${KEY_FILE}`],
  ["only the rules are left", "ip route flush root 10.0.5.0/24; ip -6 route flush root fd05::/64"],
  [
    "the way to the other host is past the tunnel",
    `bridge fdb replace 02:54:c0:00:02:02 dev swarm0e dst ${address(2)} via wire`,
  ],
  [
    "another device stands for the fabric",
    `ip link del swarm0e; ip link add swarm0e type ${impostor}; ip link set swarm0e up`,
  ],
];

test.each([...CUTS, ...(LONG ? MORE_CUTS : [])])("%s: nothing passes until it is mended", async (_, damage) => {
  await tap(lab);
  await first.run("sh", "-c", damage);
  expect(await answering()).toEqual([]);
  await expectMended();
});

const HARMS: readonly (readonly [string, string, readonly string[]])[] = [
  ["devices have less of an MTU than IPv6 needs", "ip link set swarm0e mtu 1000; ip link set swarm0w mtu 1100", SECRET],
];
const MORE_HARMS: typeof HARMS = [
  ["the rules are flushed", "nft flush ruleset", [...SECRET, ...SECRET6]],
  ["the fabric's IPv6 is turned off", "busybox sysctl -qw net.ipv6.conf.swarm0e.disable_ipv6=1", SECRET],
];

test.each([...HARMS, ...(LONG ? MORE_HARMS : [])])(
  "%s: some may pass, encrypted, until it is mended",
  async (_, damage, left) => {
    await tap(lab);
    await first.run("sh", "-c", damage);
    expect((await answering()).toSorted()).toEqual(left.toSorted());
    await expectMended();
  },
);

describe("an agent that is killed", () => {
  /** One life of another agent on the first host; how many steps it took, undefined when it was killed at one. */
  async function live(dieAt?: number): Promise<number | undefined> {
    const agent = lab.again(first);
    const key = keys[0];
    try {
      await agent.ask({ do: "open", pool: POOL, local: first.address, key, ...(dieAt !== undefined && { dieAt }) });
      await agent.ask({ do: "adopt", live: [taskOf(0)] });
      await agent.ask({ do: "cluster", cluster: clusterOf(0) });
      return Number(await agent.ask({ do: "steps" }));
    } catch (reason) {
      if (!String(reason).includes("the host ended")) throw reason;
      return undefined;
    } finally {
      agent.end();
      await agent.gone();
    }
  }

  const WELL = ["while all is well: nobody notices", "true", UNNOTICED_MS] as const;
  const MAKING = [
    "while it makes the tunnel: the next one does",
    "ip link del swarm0w",
    Number.POSITIVE_INFINITY,
  ] as const;

  test.each(LONG ? [WELL, MAKING] : [WELL])(
    "%s",
    async (_, damage, silenceMs) => {
      await tap(lab);
      await Promise.all(talks.map((talk) => talk.silence()));
      let [steps, step] = [MIDDLE, MIDDLE];
      if (LONG) [steps, step] = [(await live()) ?? 0, 1];
      for (; step <= steps; step += 1 + Math.floor(step / 2)) {
        await first.run("sh", "-c", damage);
        expect(await live(step), `step ${step}`).toBeUndefined();
        expect(await live(), `after step ${step}`).toBeGreaterThan(step);
        await expectAllHeard();
        expect(await stateOf(first), `after step ${step}`).toEqual(whole);
      }
      const silences = await Promise.all(talks.map((talk) => talk.silence()));
      process.stderr.write(`longest silence while agents are killed: ${silences.map(Math.round).join(", ")} ms\n`);
      expect(Math.max(...silences)).toBeLessThan(silenceMs);
      expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0, other: 0 });
    },
    LONG ? 900_000 : 120_000,
  );
});

test("an agent that looks every five seconds mends all at once within ten", async () => {
  await tap(lab);
  await first.ask({ do: "run" });
  await first.run("sh", "-c", "ip link del swarm0w; nft flush ruleset");
  await expectAllHeard();
  expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0, other: 0 });
});
