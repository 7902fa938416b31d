/**
 * Goal: what tasks of encrypted networks say to each other leaves a host encrypted or not at all. Method: three network
 * namespaces as hosts, two of them with keys, and a tap on each one's wire, in a kernel that has WireGuard.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fabricNumber } from "../../../agent/network/fabric.ts";
import { newId, type TaskId } from "../../../common/base/id.ts";
import { systemRandom } from "../../../common/base/random.ts";
import { eventually } from "../../eventually.ts";
import { CLIENT_ADDRESS, type ContainerStarted, Lab, type TestCluster } from "../../network-lab.ts";
import { address, hostOf, newKey, POOL, SECRET, SECRET6, tap, tapped } from "./encrypted-lab.ts";

const CLEAR = ["10.0.1.11", "10.0.1.12"] as const;
const [HTTP, ECHO] = [80, 8000];

function fetch(host: string, path = ""): readonly string[] {
  return ["timeout", "5", "busybox", "wget", "-qO-", `http://${host}:${HTTP}/${path}`];
}

/** Connects, and tells what the other side says: the address that it sees. */
function hear(host: string, port = ECHO): readonly string[] {
  return ["timeout", "5", "busybox", "nc", host, String(port)];
}

const ECHO_SERVER = `
require("net").createServer((s) => { s.on("error", () => {}); s.end(s.remoteAddress) }).listen(${ECHO}, "0.0.0.0");
const socket = require("dgram").createSocket("udp4");
socket.on("message", (message, from) => socket.send(message, from.port, from.address));
socket.bind(${ECHO});`;

/** Asks for an answer every 10 ms for some seconds, and says the longest time without one, in ms. */
const LONGEST_SILENCE = (host: string, seconds: number) => `
const socket = require("dgram").createSocket("udp4");
let [last, longest] = [0, 0];
socket.on("message", () => {
  const now = performance.now();
  if (last > 0) longest = Math.max(longest, now - last);
  else console.log("answered");
  last = now;
});
setInterval(() => socket.send("x", ${ECHO}, "${host}", () => {}), 10);
setTimeout(() => { console.log(Math.round(Math.max(longest, performance.now() - last))); process.exit() }, ${seconds * 1000});`;

describe("encrypted networks", () => {
  let lab: Lab;
  const keys = [newKey(), newKey()];
  const secret: ContainerStarted[] = [];
  const clear: ContainerStarted[] = [];

  const host = (number: number) => hostOf(lab, number);

  function container(of: readonly ContainerStarted[], number: number): ContainerStarted {
    const found = of[number - 1];
    if (found === undefined) throw new Error(`no container ${number}`);
    return found;
  }

  /** What host `number` is told; the third has no task, and knows the others' by their published port. */
  function clusterOf(number: number, known = keys): TestCluster {
    const others = [1, 2].filter((each) => each !== number);
    const remote = others.flatMap((each) =>
      [SECRET[each - 1], SECRET6[each - 1], CLEAR[each - 1]].map((to) => [to, address(each)]),
    );
    const secret = ["10.0.5.0/24", "fd05::/64"].map((subnet) => ({ subnet, encrypted: true }));
    return {
      networks: number === 3 ? [] : [...secret, { subnet: "10.0.1.0/24" }],
      hosts: [1, 2, 3].filter((each) => each !== number).map(address),
      keys: Object.fromEntries(others.map((each) => [address(each), known[each - 1] ?? ""])),
      remote: Object.fromEntries(remote),
      encrypted: [...SECRET, ...SECRET6],
      published: [{ protocol: "tcp", port: 8080, targets: [{ address: SECRET[1], port: ECHO }] }],
      served: SECRET.map((each) => `${each}:${ECHO}`),
    };
  }

  async function tell(known = keys): Promise<void> {
    for (const number of [1, 2, 3]) await host(number).ask({ do: "cluster", cluster: clusterOf(number, known) });
  }

  beforeAll(async () => {
    lab = await Lab.open(3);
    for (const [index, each] of lab.hosts.entries()) {
      // Somewhere for a packet to go that has no better way.
      await each.run("ip", "route", "add", "default", "via", CLIENT_ADDRESS);
      const key = keys[index];
      await each.ask({ do: "open", pool: POOL, local: each.address, ...(key !== undefined && { key }) });
    }
    for (const number of [1, 2]) {
      const at = `${SECRET[number - 1]}/24`;
      const task = {
        taskId: newId<TaskId>(systemRandom),
        addresses: [at],
        ipv6: [`${SECRET6[number - 1]}/64`],
        encrypted: [at],
      };
      secret.push(await host(number).serveHttp(task, `secret${number}`));
      await writeFile(join(lab.directory, `secret${number}`, "big"), "x".repeat(200_000));
      const open = { taskId: newId<TaskId>(systemRandom), addresses: [`${CLEAR[number - 1]}/24`] };
      clear.push(await host(number).serveHttp(open, `clear${number}`));
      lab.startIn(container(secret, number), process.execPath, "-e", ECHO_SERVER);
    }
    await tell();
    await eventually(() => lab.inContainer(container(secret, 1), ...fetch(SECRET[1])));
    await eventually(() => lab.inContainer(container(secret, 1), ...hear(SECRET[1])));
    await eventually(() => lab.inContainer(container(secret, 2), ...hear(SECRET[0])));
  }, 300_000);
  afterAll(() => lab?.[Symbol.asyncDispose]());

  test("tasks of two hosts talk, in packets of any size, and nothing of it is seen on the wire", async () => {
    await tap(lab);
    expect(await lab.inContainer(container(secret, 1), ...fetch(SECRET[1]))).toBe("secret2");
    expect(await lab.inContainer(container(secret, 2), ...fetch(SECRET[0]))).toBe("secret1");
    expect(await lab.inContainer(container(secret, 1), ...fetch(SECRET[1], "big"))).toHaveLength(200_000);
    expect(await lab.inContainer(container(secret, 1), ...fetch(`[${SECRET6[1]}]`))).toBe("secret2");
    const seen = await tapped(lab);
    expect(seen).toMatchObject({ vxlan: 0, secret: 0 });
    expect(seen.sealed).toBeGreaterThan(200);
    expect(await lab.inContainer(container(clear, 1), ...fetch(CLEAR[1]))).toBe("clear2");
    expect((await tapped(lab)).vxlan).toBeGreaterThan(5);
    await expect(lab.inContainer(container(clear, 1), ...fetch(SECRET[1]))).rejects.toThrow();
  });

  test("a packet that fills the task's link fits through all headers unbroken", async () => {
    expect(await lab.inContainer(container(secret, 1), "ip", "link", "show", "eth0")).toContain("mtu 1390");
    expect(await lab.inContainer(container(clear, 1), "ip", "link", "show", "eth0")).toContain("mtu 1450");
    const send = (bytes: number) => `
      const socket = require("dgram").createSocket("udp4");
      socket.on("message", ({ length }) => { console.log(length); process.exit() });
      socket.send(Buffer.alloc(${bytes}), ${ECHO}, "${SECRET[1]}");`;
    await tap(lab);
    const sent = await lab.inContainer(container(secret, 1), "timeout", "5", process.execPath, "-e", send(1390 - 28));
    expect(sent).toBe("1362\n");
    expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0, broken: 0 });
  });

  test("a published port leads there from another host and back, with the client's address", async () => {
    await tap(lab);
    for (const number of [1, 2]) expect(await lab.inClient(...hear(address(number), 8080))).toBe(CLIENT_ADDRESS);
    expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0 });
    expect((await tapped(lab)).sealed).toBeGreaterThan(3);
  });

  test("a host without a key takes no part: it refuses, and sends nothing", async () => {
    await tap(lab);
    await expect(lab.inClient(...hear(address(3), 8080))).rejects.toThrow();
    await expect(host(3).run(...fetch(SECRET[1]))).rejects.toThrow();
    expect(await tapped(lab)).toMatchObject({ vxlan: 0, sealed: 0, secret: 0, broken: 0 });
    const links = await host(3).run("ip", "-o", "link");
    expect(links).toContain("swarm0:");
    expect(links).not.toMatch(/swarm0[ew]:/);
  });

  test("what comes in clear under the encrypted network's number is dropped, from hosts of the cluster too", async () => {
    const number = String(fabricNumber("swarm0e"));
    const forged = ["id", number, "dstport", "4789", "local", address(3), "remote", address(1)];
    await host(3).run("ip", "link", "add", "forged", "type", "vxlan", ...forged);
    await host(3).run("ip", "link", "set", "forged", "address", "02:54:c0:00:02:02", "mtu", "1390", "up");
    await host(3).run("ip", "addr", "add", "10.0.5.12/32", "dev", "forged");
    await host(3).run("ip", "route", "replace", "10.0.5.11/32", "dev", "forged", "src", "10.0.5.12");
    const mac = /link\/ether (\S+)/.exec(await host(1).run("ip", "link", "show", "swarm0e"))?.[1] ?? "";
    await host(3).run("ip", "neigh", "replace", SECRET[0], "lladdr", mac, "dev", "forged");
    // Nothing but the rule of its receiver stands in the way.
    await host(3).run("nft", "flush", "ruleset");
    await tap(lab);
    const heard = async () => JSON.parse(await host(1).run("ip", "-s", "-j", "link", "show", "swarm0e"))[0].stats64.rx;
    const before = await heard();
    await expect(host(3).run("timeout", "2", "busybox", "wget", "-qO-", `http://${SECRET[0]}/`)).rejects.toThrow();
    expect((await tapped(lab)).vxlan).toBeGreaterThan(0);
    expect(await heard()).toEqual(before);
    await host(3).run("ip", "link", "del", "forged");
    await host(3).ask({ do: "reconcile" });
  });

  test("a wrong key is no key", async () => {
    await host(1).ask({ do: "cluster", cluster: clusterOf(1, [keys[0] ?? "", newKey()]) });
    await tap(lab);
    await expect(lab.inContainer(container(secret, 1), ...fetch(SECRET[1]))).rejects.toThrow();
    expect(await tapped(lab)).toMatchObject({ vxlan: 0, secret: 0 });
    await tell();
    expect(await lab.inContainer(container(secret, 1), ...fetch(SECRET[1]))).toBe("secret2");
  });

  test("a host's key is replaced while its tasks talk; whoever hears of it first waits for the other, and no longer", async () => {
    const silences: number[] = [];
    for (const first of ["itself", "other"] as const) {
      const renewed = [keys[0] ?? "", newKey()];
      const script = LONGEST_SILENCE(SECRET[1], 5);
      const talking = lab.startIn(container(secret, 1), process.execPath, "-e", script);
      const talk = createInterface({ input: talking.stdout })[Symbol.asyncIterator]();
      expect((await talk.next()).value).toBe("answered");
      const steps = [
        () => host(2).ask({ do: "key", key: renewed[1] ?? "" }),
        () => host(1).ask({ do: "cluster", cluster: clusterOf(1, renewed) }),
      ];
      for (const step of first === "itself" ? steps : steps.toReversed()) await step();
      silences.push(Number((await talk.next()).value));
      keys[1] = renewed[1] ?? "";
      expect(await lab.inContainer(container(secret, 2), ...fetch(SECRET[0]))).toBe("secret1");
    }
    process.stderr.write(`longest silence while a key is replaced: ${silences.join(", ")} ms\n`);
    for (const silence of silences) expect(silence).toBeLessThan(4_000);
  });

  test("the devices go when nothing is encrypted any more", async () => {
    await host(1).ask({ do: "cluster", cluster: { networks: [{ subnet: "10.0.1.0/24" }] } });
    expect(await host(1).run("ip", "-o", "link")).not.toMatch(/swarm0[ew]:/);
    expect(await host(1).run("ip", "route")).not.toContain("unreachable");
    await host(2).ask({ do: "removeAll" });
    expect(await host(2).run("ip", "-o", "link")).not.toMatch(/swarm0/);
  });
});
