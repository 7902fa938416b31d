/**
 * Goal: tasks of several hosts reach each other and are reached by published ports from anywhere, with the client's own
 * address. Method: three network namespaces as hosts and one as a client, busybox and Node in their containers.
 */
import { afterAll, beforeAll, describe, expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../../test/eventually.ts";
import { CLIENT_ADDRESS, type ContainerStarted, Lab, type TestCluster, type TestTask } from "../../test/network-lab.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";

const POOL = "10.224.0.0/12";
const VIP = "10.0.1.2";

/** One task on each host, on one network, by its host's number; a fourth is alone on another network. */
const ADDRESSES = { 1: "10.0.1.11", 2: "10.0.1.12", 3: "10.0.1.13" } as const;
const OTHER = "10.0.2.11";

function task(...addresses: readonly string[]): TestTask {
  return { taskId: newId<TaskId>(systemRandom), addresses };
}

function fetch(host: string, port = 80): readonly string[] {
  return ["timeout", "2", "busybox", "wget", "-qO-", `http://${host}:${port}/`];
}

/** Connects, and tells what the other side says. */
function hear(host: string, port: number): readonly string[] {
  return ["timeout", "2", "busybox", "nc", host, String(port)];
}

/** Answers each connection with the address that it came from. */
const ECHO = `require("net").createServer((s) => { s.on("error", () => {}); s.end(s.remoteAddress) }).listen(8000)`;

describe("hosts of one cluster", () => {
  let lab: Lab;
  let other: ContainerStarted;
  const containers: ContainerStarted[] = [];

  /** What host `number` is told: everything that is not its own lies behind the others. */
  function clusterOf(number: number, change: TestCluster = {}): TestCluster {
    const remote = Object.entries(ADDRESSES).filter(([host]) => Number(host) !== number);
    const targets = Object.values(ADDRESSES);
    return {
      networks: [{ subnet: "10.0.1.0/24" }, { subnet: "10.0.2.0/24" }],
      hosts: [1, 2, 3].filter((host) => host !== number).map((host) => `192.0.2.${host}`),
      remote: Object.fromEntries(remote.map(([host, address]) => [address, `192.0.2.${host}`])),
      virtual: { [VIP]: targets },
      published: [
        { protocol: "tcp", port: 8080, targets: targets.map((address) => ({ address, port: 80 })) },
        { protocol: "tcp", port: 8081, targets: [{ address: ADDRESSES[2], port: 8000 }] },
      ],
      served: targets.flatMap((address) => [`${address}:80`, `${address}:8000`]),
      ...change,
    };
  }

  async function tell(change: TestCluster = {}): Promise<void> {
    for (const [index, host] of lab.hosts.entries()) {
      await host.ask({ do: "cluster", cluster: clusterOf(index + 1, change) });
    }
  }

  beforeAll(async () => {
    if (!isRoot) return;
    lab = await Lab.open(3);
    for (const [index, host] of lab.hosts.entries()) {
      await host.ask({ do: "open", pool: POOL, local: host.address });
      const address = Object.values(ADDRESSES)[index] ?? "";
      containers.push(await host.serveHttp(task(`${address}/24`), `t${index + 1}`));
    }
    other = await lab.host.serveHttp(task(`${OTHER}/24`), "other");
    await tell();
    for (const container of containers) lab.startIn(container, process.execPath, "-e", ECHO);
    await eventually(() => lab.inContainer(first(), ...fetch(ADDRESSES[2])));
    await eventually(() => lab.inClient(...hear("192.0.2.1", 8081)));
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());

  function first(): ContainerStarted {
    const [container] = containers;
    if (container === undefined) throw new Error("no container");
    return container;
  }

  rootTest("tasks reach each other by address, on every host", async () => {
    for (const from of containers) {
      for (const [number, address] of Object.entries(ADDRESSES)) {
        expect(await lab.inContainer(from, ...fetch(address))).toBe(`t${number}`);
      }
    }
  });

  rootTest("a virtual address is dealt evenly to tasks of all hosts, the asker's own among them", async () => {
    const answers: Record<string, number> = {};
    for (let index = 0; index < 9; index++) {
      const name = await lab.inContainer(first(), ...fetch(VIP));
      answers[name] = (answers[name] ?? 0) + 1;
    }
    expect(answers).toEqual({ t1: 3, t2: 3, t3: 3 });
  });

  rootTest("a task of two networks reaches itself by the virtual address of either", async () => {
    const [one] = lab.hosts;
    const both = { ...task("10.0.1.50/24", "10.0.2.50/24"), internal: ["10.0.1.50/24"] };
    const container = (await one?.serveHttp(both, "both")) as ContainerStarted;
    await one?.ask({
      do: "cluster",
      cluster: clusterOf(1, { virtual: { "10.0.1.3": ["10.0.1.50"], "10.0.2.3": ["10.0.2.50"] } }),
    });
    await eventually(() => lab.inContainer(container, ...fetch("10.0.1.50")));
    for (const address of ["10.0.1.3", "10.0.2.3"])
      expect(await lab.inContainer(container, ...fetch(address))).toBe("both");
    await one?.ask({ do: "detach", task: both });
    await tell();
  });

  rootTest("one without tasks that serve refuses at once", async () => {
    await tell({ virtual: { [VIP]: [] } });
    await expect(lab.inContainer(first(), ...fetch(VIP))).rejects.toThrow("refused");
    await tell();
    expect(await lab.inContainer(first(), ...fetch(VIP))).toMatch(/^t[123]$/);
  });

  rootTest("with affinity a client meets the same task each time", async () => {
    await tell({ affinity: "client-ip" });
    const answers = new Set<string>();
    for (let index = 0; index < 6; index++) answers.add(await lab.inContainer(first(), ...fetch(VIP)));
    expect(answers.size).toBe(1);
    await tell();
  });

  rootTest("a client may come by several hosts from one and the same port", async () => {
    // Each connection stays open on the client's side while the next one is made.
    const hosts = JSON.stringify(lab.hosts.map(({ address }) => address));
    const script = `const net = require("net"); const heard = [];
      const next = ([host, ...others]) => host === undefined ? (console.log(heard.join()), process.exit()) :
        net.connect({ host, port: 8081, localPort: 5000, allowHalfOpen: true }, () => {})
          .on("error", (error) => heard.push(error.code)).on("data", (data) => heard.push(data))
          .on("end", () => next(others)).setTimeout(2_000, () => { heard.push("silence"); next(others) });
      next(${hosts})`;
    const answers = await lab.inClient(process.execPath, "-e", script);
    expect(answers).toBe(`${lab.hosts.map(() => `::ffff:${CLIENT_ADDRESS}`).join()}\n`);
  });

  rootTest("with affinity clients outside are spread, and each meets the same task by whichever host", async () => {
    const targets = Object.values(ADDRESSES).map((address) => ({ address, port: 80 }));
    await tell({ published: [{ protocol: "tcp", port: 8080, targets, affinity: "client-ip" }] });
    const clients = Array.from({ length: 20 }, (_, index) => `192.0.2.${100 + index}`);
    for (const client of clients) await lab.inClient("ip", "addr", "add", `${client}/32`, "dev", "wire");
    const met = new Map<string, string>();
    for (const host of lab.hosts) {
      for (const client of clients) {
        const name = await lab.inClient(
          "curl",
          "-sS",
          "-m",
          "5",
          "--interface",
          client,
          `http://${host.address}:8080/`,
        );
        expect(`${client} ${name}`).toBe(`${client} ${met.get(client) ?? name}`);
        met.set(client, name);
      }
    }
    expect(new Set(met.values())).toEqual(new Set(["t1", "t2", "t3"]));
    // One task less: few move but those who met it.
    await tell({ published: [{ protocol: "tcp", port: 8080, targets: targets.slice(1), affinity: "client-ip" }] });
    const others = clients.filter((client) => met.get(client) !== "t1");
    const moved: string[] = [];
    for (const client of others) {
      const name = await lab.inClient("curl", "-sS", "-m", "5", "--interface", client, "http://192.0.2.1:8080/");
      if (name !== met.get(client)) moved.push(client);
    }
    expect(moved.length).toBeLessThan(others.length / 4);
    for (const client of clients) await lab.inClient("ip", "addr", "del", `${client}/32`, "dev", "wire");
    await tell();
  });

  rootTest("tasks of different networks do not reach each other, by address or virtual address", async () => {
    for (const address of [...Object.values(ADDRESSES), VIP]) {
      await expect(lab.inContainer(other, ...fetch(address))).rejects.toThrow();
    }
    for (const from of containers) await expect(lab.inContainer(from, ...fetch(OTHER))).rejects.toThrow();
  });

  rootTest("a published port answers on every host, and each deals to all tasks", async () => {
    for (const host of lab.hosts) {
      const answers = new Set<string>();
      for (let index = 0; index < 3; index++) answers.add(await lab.inClient(...fetch(host.address, 8080)));
      expect([...answers].sort()).toEqual(["t1", "t2", "t3"]);
    }
  });

  rootTest("the task sees the client's own address, whichever host the client asked", async () => {
    for (const host of lab.hosts) expect(await lab.inClient(...hear(host.address, 8081))).toContain(CLIENT_ADDRESS);
  });

  rootTest(
    "connections that come late to a task which leaves are passed on, and see the client all the same",
    async () => {
      // Host 2 has heard that its task leaves, the others have not; it ends before they have.
      const leaving = { [ADDRESSES[2]]: [ADDRESSES[1], ADDRESSES[3]] };
      await lab.hosts[1]?.ask({
        do: "cluster",
        cluster: clusterOf(2, { leaving, virtual: { [VIP]: leaving[ADDRESSES[2]] ?? [] } }),
      });
      const asked = async (ask: () => Promise<string>) => {
        const answers = new Set<string>();
        for (let index = 0; index < 6; index++) answers.add(await ask());
        return [...answers].toSorted();
      };
      expect(await asked(() => lab.inClient(...fetch("192.0.2.1", 8080)))).toEqual(["t1", "t3"]);
      expect(await asked(() => lab.inContainer(first(), ...fetch(VIP)))).toEqual(["t1", "t3"]);
      // Port 8081 leads to host 2's task alone, as far as the others know.
      for (const host of lab.hosts) expect(await lab.inClient(...hear(host.address, 8081))).toContain(CLIENT_ADDRESS);
      await tell();
    },
  );

  rootTest("so does it for a client that is a host, or a task of another network", async () => {
    const [one, , three] = lab.hosts;
    expect(await one?.run(...hear("192.0.2.1", 8081))).toContain("192.0.2.1");
    expect(await one?.run(...hear("192.0.2.3", 8081))).toContain("192.0.2.1");
    expect(await three?.run(...hear("127.0.0.1", 8081))).toContain("192.0.2.3");
    expect(await lab.inContainer(other, ...hear("192.0.2.1", 8081))).toContain(OTHER);
    expect(await lab.inContainer(other, ...hear("192.0.2.3", 8081))).toContain("192.0.2.1");
  });

  rootTest("so it is among 500 hosts and 1,000 networks", async () => {
    const networks = Array.from({ length: 1_000 }, (_, index) => ({
      subnet: `10.64.${index >> 6}.${(index & 63) * 4}/30`,
    }));
    const others = Array.from({ length: 498 }, (_, index) => `198.18.${index >> 8}.${index & 255}`);
    for (const [index, host] of lab.hosts.entries()) {
      const { networks: own = [], hosts: peers = [], ...rest } = clusterOf(index + 1);
      const cluster = { ...rest, networks: [...own, ...networks], hosts: [...others, ...peers] };
      await host.ask({ do: "cluster", cluster });
    }
    expect((await lab.host.run("bridge", "fdb", "show", "dev", "swarm0")).trim().split("\n")).toHaveLength(500);
    for (const address of Object.values(ADDRESSES)) await lab.inContainer(first(), ...fetch(address));
    expect(await lab.inContainer(first(), ...fetch(VIP))).toMatch(/^t[123]$/);
    for (const host of lab.hosts) expect(await lab.inClient(...hear(host.address, 8081))).toContain(CLIENT_ADDRESS);
    await tell();
    expect((await lab.host.run("bridge", "fdb", "show", "dev", "swarm0")).trim().split("\n")).toHaveLength(2);
  });

  rootTest("a task's false source address goes nowhere", async () => {
    const forged = "10.0.1.99";
    await lab.inContainer(first(), "ip", "addr", "add", `${forged}/32`, "dev", "eth0");
    const send = ["timeout", "1", "busybox", "nc", "-s", forged, ADDRESSES[2], "8000"];
    await expect(lab.inContainer(first(), ...send)).rejects.toThrow();
    await lab.inContainer(first(), "ip", "addr", "del", `${forged}/32`, "dev", "eth0");
  });

  rootTest("packets of the fabric from somebody who is no host of the cluster are dropped", async () => {
    const [one] = lab.hosts;
    const number = (await one?.run("ip", "-d", "link", "show", "swarm0"))?.match(/vxlan id (\d+)/)?.[1] ?? "";
    const add = ["type", "vxlan", "id", number, "dstport", "4789", "remote", "192.0.2.1", "local", CLIENT_ADDRESS];
    await lab.inClient("ip", "link", "add", "evil", ...add);
    await lab.inClient("ip", "addr", "add", "10.0.1.200/32", "dev", "evil");
    await lab.inClient("ip", "link", "set", "evil", "up");
    await lab.inClient("ip", "route", "add", `${ADDRESSES[1]}/32`, "dev", "evil", "src", "10.0.1.200");
    const mac = (await one?.run("cat", "/sys/class/net/swarm0/address").catch(() => "")) || "02:53:c0:00:02:01";
    await lab.inClient("ip", "neigh", "add", ADDRESSES[1], "lladdr", mac.trim(), "dev", "evil");
    const before = await received(0);
    await expect(lab.inClient("busybox", "ping", "-c", "2", "-W", "1", ADDRESSES[1])).rejects.toThrow();
    expect(await received(0)).toBe(before);
    await lab.inClient("ip", "link", "del", "evil");
  });

  async function received(host: number): Promise<string> {
    const text = await lab.hosts[host]?.run("ip", "-s", "link", "show", "swarm0");
    return text?.split("\n")[3]?.trim().split(/\s+/)[1] ?? "";
  }

  rootTest("routes, neighbours and rules that somebody removed are back", async () => {
    const [one] = lab.hosts;
    await one?.run("ip", "route", "del", `${ADDRESSES[2]}/32`);
    await one?.run("ip", "route", "del", `${ADDRESSES[1]}/32`);
    await one?.run("ip", "neigh", "flush", "dev", "swarm0", "nud", "permanent");
    await one?.run("ip", "rule", "del", "priority", "5356");
    await one?.run("bridge", "fdb", "del", "02:53:c0:00:02:02", "dev", "swarm0", "dst", "192.0.2.2");
    await one?.ask({ do: "reconcile" });
    for (const address of Object.values(ADDRESSES)) await lab.inContainer(first(), ...fetch(address));
    expect(await lab.inClient(...hear("192.0.2.1", 8081))).toContain(CLIENT_ADDRESS);
    await one?.run("ip", "link", "del", "swarm0");
    await one?.ask({ do: "reconcile" });
    for (const address of Object.values(ADDRESSES)) await lab.inContainer(first(), ...fetch(address));
    expect(await lab.inClient(...hear("192.0.2.1", 8081))).toContain(CLIENT_ADDRESS);
  });

  rootTest("a look at what is right changes nothing", async () => {
    const [one] = lab.hosts;
    const look = async () =>
      Promise.all([
        one?.run("ip", "-d", "route", "show", "table", "all"),
        one?.run("ip", "rule"),
        one?.run("ip", "neigh"),
        one?.run("bridge", "fdb"),
      ]);
    const before = await look();
    await one?.ask({ do: "reconcile" });
    expect(await look()).toEqual(before);
  });
});
