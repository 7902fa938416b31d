/**
 * Goal: what networks are in IPv4 they are in IPv6: reached on every host, by virtual addresses and by published ports with the
 * client's own address, and kept apart. Method: three network namespaces as hosts and one as a client, Node in containers.
 */
import { afterAll, beforeAll, describe, expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../../test/eventually.ts";
import {
  CLIENT_ADDRESS,
  type ContainerStarted,
  ipv6On,
  Lab,
  type TestCluster,
  type TestTask,
} from "../../test/network-lab.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";

const POOL = "10.224.0.0/12";
const VIP = "fd00:1::2";
const ADDRESSES = { 1: "fd00:1::11", 2: "fd00:1::12", 3: "fd00:1::13" } as const;
const OTHER = "fd00:2::11";

/** Answers each connection with its own name and the address that it came from. */
const serve = (name: string) =>
  `require("net").createServer((s) => { s.on("error", () => {}); s.end("${name} " + s.remoteAddress) }).listen(8000, "::")`;

/** Connects, and tells what the other side says. */
function hear(host: string, port = 8000): readonly string[] {
  const script = `const s = require("net").connect({ host: "${host}", port: ${port} }).setTimeout(2000, () => s.destroy(new Error("timeout")));
    s.on("error", (e) => { console.error(e.code ?? e.message); process.exit(1) }).on("data", (d) => process.stdout.write(d));`;
  return [process.execPath, "-e", script];
}

describe("hosts of a cluster whose networks have IPv6", () => {
  let lab: Lab;
  let other: ContainerStarted;
  const containers: ContainerStarted[] = [];

  function clusterOf(number: number, change: TestCluster = {}): TestCluster {
    const remote = Object.entries(ADDRESSES).filter(([host]) => Number(host) !== number);
    const targets = Object.values(ADDRESSES);
    const subnets = ["10.0.1.0/24", "10.0.2.0/24", "fd00:1::/64", "fd00:2::/64"];
    return {
      networks: subnets.map((subnet) => ({ subnet })),
      hosts: [1, 2, 3].filter((host) => host !== number).map((host) => `192.0.2.${host}`),
      remote: Object.fromEntries(remote.map(([host, address]) => [address, `192.0.2.${host}`])),
      virtual: { [VIP]: targets },
      published: [
        { protocol: "tcp", port: 8080, targets: targets.map((address) => ({ address, port: 8000 })) },
        { protocol: "tcp", port: 8082, targets: [{ address: ADDRESSES[2], port: 8000 }] },
        { protocol: "tcp", port: 8083, hostIp: ipv6On("192.0.2.1"), targets: [{ address: ADDRESSES[3], port: 8000 }] },
      ],
      served: targets.map((address) => `${address}:8000`),
      ...change,
    };
  }

  async function tell(change: TestCluster = {}): Promise<void> {
    for (const [index, host] of lab.hosts.entries()) {
      await host.ask({ do: "cluster", cluster: clusterOf(index + 1, change) });
    }
  }

  async function start(
    host: Lab["hosts"][number],
    name: string,
    ipv4: string,
    ipv6: string,
  ): Promise<ContainerStarted> {
    const task: TestTask = { taskId: newId<TaskId>(systemRandom), addresses: [`${ipv4}/24`], ipv6: [`${ipv6}/64`] };
    const command = [process.execPath, "-e", serve(name)];
    return (await host.ask({ do: "attach", task, command })) as ContainerStarted;
  }

  beforeAll(async () => {
    if (!isRoot) return;
    lab = await Lab.open(3);
    for (const [index, host] of lab.hosts.entries()) {
      await host.ask({ do: "open", pool: POOL, local: host.address });
      const address = Object.values(ADDRESSES)[index] ?? "";
      containers.push(await start(host, `t${index + 1}`, `10.0.1.1${index + 1}`, address));
    }
    other = await start(lab.host, "other", "10.0.2.11", OTHER);
    await tell();
    for (const address of Object.values(ADDRESSES)) await eventually(() => lab.inContainer(first(), ...hear(address)));
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());

  function first(): ContainerStarted {
    const [container] = containers;
    if (container === undefined) throw new Error("no container");
    return container;
  }

  rootTest("tasks reach each other by address, as themselves, on every host", async () => {
    for (const [index, from] of containers.entries()) {
      const own = Object.values(ADDRESSES)[index];
      for (const [number, address] of Object.entries(ADDRESSES)) {
        expect(await lab.inContainer(from, ...hear(address))).toBe(`t${number} ${own}`);
      }
    }
  });

  rootTest("a virtual address is dealt evenly; without tasks that serve it refuses at once", async () => {
    const answers: Record<string, number> = {};
    for (let index = 0; index < 9; index++) {
      const [name = ""] = (await lab.inContainer(first(), ...hear(VIP))).split(" ");
      answers[name] = (answers[name] ?? 0) + 1;
    }
    expect(answers).toEqual({ t1: 3, t2: 3, t3: 3 });
    await tell({ virtual: { [VIP]: [] } });
    await expect(lab.inContainer(first(), ...hear(VIP))).rejects.toThrow("ECONNREFUSED");
    await tell();
  });

  rootTest("a published port leads to tasks of all hosts, from every host, with the client's own address", async () => {
    for (const { address } of lab.hosts) {
      const client = ipv6On(CLIENT_ADDRESS);
      expect(await lab.inClient(...hear(ipv6On(address), 8082))).toBe(`t2 ${client}`);
      const heard = new Set<string>();
      for (let index = 0; index < 3; index++) heard.add(await lab.inClient(...hear(ipv6On(address), 8080)));
      expect(heard).toEqual(new Set(["t1", "t2", "t3"].map((name) => `${name} ${client}`)));
    }
    expect(await lab.inClient(...hear(ipv6On("192.0.2.1"), 8083))).toContain("t3");
    await expect(lab.inClient(...hear(ipv6On("192.0.2.2"), 8083))).rejects.toThrow("ECONNREFUSED");
    expect(await lab.host.run(...hear(ipv6On("192.0.2.1"), 8082)), "from the host itself").toContain("t2");
    expect(await lab.inContainer(other, ...hear(ipv6On("192.0.2.1"), 8082)), "from a task").toBe(`t2 ${OTHER}`);
  });

  rootTest("networks are kept apart, and nobody speaks in another's name", async () => {
    await expect(lab.inContainer(other, ...hear(ADDRESSES[1]))).rejects.toThrow(/EACCES|EHOSTUNREACH/);
    await expect(lab.inContainer(other, ...hear(ADDRESSES[2]))).rejects.toThrow(/EACCES|EHOSTUNREACH/);
    const enter = ["nsenter", `--net=/proc/${other.pid}/ns/net`];
    const spoof = [...enter, "ip", "-6", "addr", "add", `${ADDRESSES[1]}/128`, "dev", "eth0", "nodad"];
    await lab.host.run(...spoof);
    const script = `const s = require("net").connect({ host: "${ADDRESSES[2]}", port: 8000, localAddress: "${ADDRESSES[1]}" })
      .setTimeout(1500, () => { console.error("silence"); process.exit(1) });
      s.on("error", (e) => { console.error(e.code); process.exit(1) }).on("data", () => process.exit());`;
    await expect(lab.inContainer(other, process.execPath, "-e", script)).rejects.toThrow("silence");
    await lab.host.run(...spoof.map((word) => (word === "add" ? "del" : word)).filter((word) => word !== "nodad"));
    await lab.inClient("ip", "-6", "route", "add", "fd00:1::/64", "via", ipv6On("192.0.2.1"));
    await expect(lab.inClient(...hear(ADDRESSES[1])), "by a route into the network").rejects.toThrow("timeout");
    await lab.inClient("ip", "-6", "route", "del", "fd00:1::/64");
  });

  rootTest("the way out is the host's, and a host with router advertisements goes on hearing them", async () => {
    lab.start(lab.clientNamespace, process.execPath, "-e", serve("client"));
    const client = ipv6On(CLIENT_ADDRESS);
    await eventually(() => lab.host.run(...hear(client)));
    expect(await lab.inContainer(first(), ...hear(client))).toBe(`client ${ipv6On("192.0.2.1")}`);
    expect((await lab.host.run("cat", "/proc/sys/net/ipv6/conf/wire/accept_ra")).trim()).toBe("2");
    const links = await lab.inContainer(first(), "ip", "-6", "addr", "show", "dev", "eth0");
    expect(links.match(/inet6 \S+/g), "an address that nobody gave").toEqual([`inet6 ${ADDRESSES[1]}/64`]);
  });

  rootTest(
    "a flushed table, deleted device and deleted routes heal; a network without IPv6 leaves no table",
    async () => {
      await lab.host.run("nft", "flush", "ruleset");
      await lab.host.run("ip", "link", "del", "swarm0");
      await lab.host.ask({ do: "reconcile" });
      expect(await lab.inContainer(first(), ...hear(ADDRESSES[2]))).toContain("t2");
      expect(await lab.inClient(...hear(ipv6On("192.0.2.1"), 8082))).toContain("t2");
      await lab.host.run("ip", "-6", "route", "flush", "proto", "83");
      await lab.host.ask({ do: "reconcile" });
      expect(await lab.inContainer(first(), ...hear(ADDRESSES[3]))).toContain("t3");
      await lab.host.ask({ do: "cluster", cluster: { networks: [{ subnet: "10.0.1.0/24" }] } });
      expect(await lab.host.run("nft", "list", "tables")).toBe("table ip swarm0\n");
      expect(await lab.host.run("ip", "-6", "rule")).not.toContain("0x5357");
      await lab.host.ask({ do: "cluster", cluster: clusterOf(1) });
      expect(await lab.inContainer(first(), ...hear(ADDRESSES[3]))).toContain("t3");
      await lab.host.ask({ do: "removeAll" });
      expect(await lab.host.run("nft", "list", "tables")).toBe("");
      expect(await lab.host.run("ip", "-6", "route", "show", "table", "all", "proto", "83")).toBe("");
    },
  );
});
