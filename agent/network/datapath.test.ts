/**
 * Goal: what real traffic does besides plain requests goes well too: segments out of their connection's window, fragments,
 * errors by ICMP, clients that come back to the host they came from, tasks on two networks, connections whose other end
 * vanished. Method: three network namespaces as hosts and one as a client; the tasks are Node and a helper in C.
 */
import { createInterface } from "node:readline";
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
const VIP = "10.0.1.2";
/** One task on each host; the one of the second host serves, and is on a second network. */
const ADDRESSES = ["10.0.1.11", "10.0.1.12", "10.0.1.13"] as const;
const IPV6 = ["fd00:1::11", "fd00:1::12", "fd00:1::13"] as const;
const SERVER = ADDRESSES[1];
const SERVER_SECOND = "10.0.2.12";
/** Alone with the server on the second network, on the first host. */
const OTHER = "10.0.2.11";
const PORTS = { peer: 8000, stray: 8001, large: 8002, udp: 8003, nobody: 8004, hold: 8005, late: 8006 } as const;

/** The server's: who asks, 100,000 bytes at once, whatever came by UDP, and one that says nothing until it hears something. */
const SERVE = `const { createServer } = require("net");
  const serve = (port, answer) => createServer((s) => { s.on("error", () => {}); answer(s) }).listen(port);
  serve(${PORTS.peer}, (s) => s.end(s.remoteAddress));
  serve(${PORTS.large}, (s) => s.end("x".repeat(100000)));
  serve(${PORTS.hold}, (s) => s.on("data", (data) => s.write(data)));
  createServer({ allowHalfOpen: true }, (s) => s.on("end", () => setTimeout(() => s.end("late"), 2000)).resume()).listen(${PORTS.late});
  const udp = require("dgram").createSocket({ type: "udp6" });
  udp.bind(${PORTS.udp}).on("message", (message, { port, address }) => udp.send(message, port, address));`;

let lab: Lab;
const containers: ContainerStarted[] = [];
let other: ContainerStarted;

beforeAll(async () => {
  if (!isRoot) return;
  lab = await Lab.open(3);
  for (const [index, host] of lab.hosts.entries()) {
    await host.ask({ do: "open", pool: POOL, local: host.address });
    const second = index === 1 ? [`${SERVER_SECOND}/24`] : [];
    const both = { ...task(`${ADDRESSES[index]}/24`, ...second), ipv6: [`${IPV6[index]}/64`] };
    containers.push(await host.serveHttp(both, `t${index + 1}`));
  }
  other = await lab.host.serveHttp(task(`${OTHER}/24`), "other");
  await tell();
  lab.startIn(server(), process.execPath, "-e", SERVE);
  lab.startIn(server(), lab.helper, "stray-serve", String(PORTS.stray));
  await eventually(() => lab.inContainer(server(), ...hear("127.0.0.1", PORTS.peer)));
  await eventually(() => lab.inContainer(server(), lab.helper, "stray-ask", "127.0.0.1", String(PORTS.stray)));
});
afterAll(() => lab?.[Symbol.asyncDispose]());

function task(...addresses: readonly string[]): TestTask {
  return { taskId: newId<TaskId>(systemRandom), addresses };
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new Error(`there is no ${index}`);
  return found;
}

function server(): ContainerStarted {
  return at(containers, 1);
}

/** What a host is told: what is not its own lies behind the others. */
function clusterOf(own: number, change: TestCluster = {}): TestCluster {
  const places = [...ADDRESSES.entries(), ...IPV6.entries(), [1, SERVER_SECOND] as const, [0, OTHER] as const];
  const remote = places.flatMap(([index, address]) =>
    index === own ? [] : [[address, at(lab.hosts, index).address] as const],
  );
  const [tcp, udp] = [
    Object.values(PORTS).filter((port) => port !== PORTS.udp && port !== PORTS.nobody),
    [PORTS.udp, PORTS.nobody],
  ];
  const published = (protocol: "tcp" | "udp") => (port: number) => ({
    ...{ protocol, port, targets: [SERVER, IPV6[1]].map((address) => ({ address, port })) },
  });
  return {
    networks: ["10.0.1.0/24", "10.0.2.0/24", "fd00:1::/64"].map((subnet) => ({ subnet })),
    hosts: lab.hosts.filter((_, index) => index !== own).map(({ address }) => address),
    remote: Object.fromEntries(remote),
    virtual: { [VIP]: [SERVER] },
    published: [...tcp.map(published("tcp")), ...udp.map(published("udp"))],
    served: [
      ...(own === 1 ? [...tcp.map(String), ...udp.map((port) => `${port}/udp`)] : []),
      ...(own === 2 ? [`${PORTS.udp}/udp`] : []),
    ].flatMap((port) => [at(ADDRESSES, own), at(IPV6, own)].map((address) => `${address}:${port}`)),
    ...change,
  };
}

async function tell(): Promise<void> {
  for (const [own, host] of lab.hosts.entries()) await host.ask({ do: "cluster", cluster: clusterOf(own) });
}

/** Connects, and tells what the other side says. */
function hear(host: string, port: number): readonly string[] {
  return ["timeout", "3", "busybox", "nc", host, String(port)];
}

/**
 * Sends so many bytes by UDP from one connected socket, and tells how many come back, or the error's code. Told that a packet
 * was too large for the way, it sends once more, as IPv6 has it.
 */
function echo(host: string, port: number, size: number): readonly string[] {
  const script = `const s = require("dgram").createSocket("${host.includes(":") ? "udp6" : "udp4"}");
    const end = (text) => { console.log(text); process.exit() };
    const send = () => s.send("x".repeat(${size}));
    s.on("error", ({ code }) => code === "EMSGSIZE" ? send() : end(code)).on("message", ({ length }) => end(length));
    s.connect(${port}, "${host}", send);
    setTimeout(() => end("silence"), 2000)`;
  return [process.execPath, "-e", script];
}

describe("segments that are out of their connection's window", () => {
  rootTest("from a task behind a virtual address, do not cut the connection", async () => {
    const ask = [lab.helper, "stray-ask", VIP, String(PORTS.stray)];
    for (const from of [at(containers, 0), at(containers, 2)])
      expect(await lab.inContainer(from, ...ask)).toBe("whole");
  });

  rootTest("from either side of a published port, do not cut the connection", async () => {
    for (const { address } of lab.hosts) {
      expect(await lab.inClient(lab.helper, "stray-ask", address, String(PORTS.stray))).toBe("whole");
    }
  });
});

describe("a published port asked on another host than the task's", () => {
  rootTest("by the task's own host, or a task of that", async () => {
    const [one, two] = lab.hosts;
    expect(await two?.run(...hear("192.0.2.1", PORTS.peer))).toContain("192.0.2.1");
    expect(await lab.inContainer(server(), ...hear("192.0.2.1", PORTS.peer))).toContain("192.0.2.1");
    expect(await one?.run(...hear("192.0.2.3", PORTS.peer))).toContain("192.0.2.1");
  });

  rootTest("by UDP, with what takes several packets each way", async () => {
    for (const address of wires()) expect(await lab.inClient(...echo(address, PORTS.udp, 5_000))).toBe("5000\n");
  });

  rootTest("by UDP by way of several hosts from one port, is answered by each", async () => {
    for (const hosts of [lab.hosts.map(({ address }) => address), lab.hosts.map(({ address }) => ipv6On(address))]) {
      const script = `const s = require("dgram").createSocket("${hosts[0]?.includes(":") ? "udp6" : "udp4"}").bind(6000);
        const heard = [];
        const end = () => { console.log(heard.sort().join()); process.exit() };
        s.on("message", (_, { address }) => { if (heard.push(address) === ${hosts.length}) end() });
        for (const host of ${JSON.stringify(hosts)}) s.send("?", ${PORTS.udp}, host);
        setTimeout(end, 2000)`;
      expect(await lab.inClient(process.execPath, "-e", script)).toBe(`${hosts.join()}\n`);
    }
  });

  rootTest("where nobody listens in the task, tells so", async () => {
    for (const address of wires()) expect(await lab.inClient(...echo(address, PORTS.nobody, 9))).toBe("ECONNREFUSED\n");
  });

  rootTest("by UDP on the host's second address, is answered from that", async () => {
    await lab.inHost("ip", "addr", "add", "192.0.2.77/24", "dev", "wire");
    expect(await lab.inClient(...echo("192.0.2.77", PORTS.udp, 9))).toBe("9\n");
  });

  rootTest.each([
    ["IPv4", "198.51.100.9", 900, (address: string) => address],
    ["IPv6", "2001:db8:9::9", 1_300, ipv6On],
  ])("over a way that takes small packets only, by %s", async (_, far, mtu, on) => {
    const [one, , three] = lab.hosts;
    await lab.inClient("ip", "addr", "add", far, "dev", "wire", ...(far.includes(":") ? ["nodad"] : []));
    await one?.run("ip", "route", "add", far, "via", on("192.0.2.3"));
    await three?.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1");
    await three?.run("ip", "route", "add", far, "via", on(CLIENT_ADDRESS), "mtu", "lock", String(mtu));
    const ask = ["curl", "-sSg", "-m", "5", "--http0.9", "--interface", far];
    const host = new URL(`http://${far.includes(":") ? `[${on("192.0.2.1")}]` : "192.0.2.1"}:${PORTS.large}/`);
    expect(await lab.inClient(...ask, host.href)).toHaveLength(100_000);
  });
});

/** All that the hosts have on the wire. */
function wires(): readonly string[] {
  return lab.hosts.flatMap(({ address }) => [address, ipv6On(address)]);
}

rootTest(
  "a task on two networks is asked by a neighbour on the second, over a port published on the first",
  async () => {
    for (const { address } of lab.hosts) await lab.inContainer(other, ...hear(address, PORTS.peer));
  },
);

rootTest("udp flows move when their target leaves, and no others on the same port", async () => {
  const [one] = lab.hosts;
  const tracked = () => lab.inHost("conntrack", "-L", "-p", "udp", "--dport", String(PORTS.udp), "-d", CLIENT_ADDRESS);
  await lab.inContainer(at(containers, 0), ...echo(CLIENT_ADDRESS, PORTS.udp, 9));
  expect(await lab.inClient(...echo("192.0.2.1", PORTS.udp, 9))).toBe("9\n");
  expect(await tracked()).toContain(`dst=${CLIENT_ADDRESS}`);
  const published = [{ protocol: "udp" as const, port: PORTS.udp, targets: [{ address: ADDRESSES[2], port: 80 }] }];
  await one?.ask({ do: "cluster", cluster: clusterOf(0, { published }) });
  expect(await tracked()).toContain(`dst=${CLIENT_ADDRESS}`);
  expect(await lab.inHost("conntrack", "-L", "-p", "udp", "--reply-src", SERVER)).toBe("");
  await tell();
});

rootTest(
  "a udp flow to a virtual address moves when its target leaves, one that a task has with it directly stays",
  async () => {
    const [one] = lab.hosts;
    const tracked = (to: string) => lab.inHost("conntrack", "-L", "-p", "udp", "--dport", String(PORTS.udp), "-d", to);
    for (const to of [VIP, SERVER])
      expect(await lab.inContainer(at(containers, 0), ...echo(to, PORTS.udp, 9))).toBe("9\n");
    await one?.ask({ do: "cluster", cluster: clusterOf(0, { virtual: { [VIP]: [ADDRESSES[2]] } }) });
    expect(await tracked(VIP)).toBe("");
    expect(await tracked(SERVER)).toContain(`dst=${SERVER}`);
    await tell();
  },
);

rootTest("what a gone task answered is forgotten, by whichever host it came, one task or many", async () => {
  const [, two] = lab.hosts;
  const answered = async () => (await two?.run("conntrack", "-L", "--reply-src", ADDRESSES[2])) ?? "";
  // Passed on from the second host: only there somebody answers in place of the one who was asked.
  const passing = clusterOf(1, { leaving: { [SERVER]: [ADDRESSES[2]] } });
  for (const others of [[], Array.from({ length: 9 }, (_, index) => `10.0.1.${100 + index}`)]) {
    const more = Object.fromEntries(others.map((address) => [address, "192.0.2.3"]));
    await two?.ask({ do: "cluster", cluster: { ...passing, remote: { ...passing.remote, ...more } } });
    // Nobody listens there, which is an answer too.
    for (const host of ["192.0.2.1", "192.0.2.3"])
      expect(await lab.inClient(...echo(host, PORTS.udp, 9))).toBe("ECONNREFUSED\n");
    expect(new Set((await answered()).match(/zone-orig=\d+/g)).size).toBe(2);
    await two?.ask({ do: "cluster", cluster: clusterOf(1, { remote: {} }) });
    await eventually(async () => expect(await answered()).toBe(""));
  }
  await tell();
});

rootTest("a client that has closed its side is answered however late", async () => {
  // A second stands for the kernel's minute, until the agent looks.
  const name = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
  for (const host of lab.hosts) {
    await host.run("sysctl", "-qw", `${name}=1`);
    await host.ask({ do: "reconcile" });
    expect(await host.run("sysctl", "-n", name)).toBe("3600\n");
  }
  const ask = `const s = require("net").connect({ port: ${PORTS.late}, host: process.argv[1], allowHalfOpen: true });
    s.on("data", (data) => console.log(String(data))).on("error", ({ code }) => console.log(code)).end("?");
    setTimeout(() => process.exit(), 5000).unref()`;
  expect(await lab.inClient(process.execPath, "-e", ask, "192.0.2.1")).toBe("late\n");
});

rootTest("what is open goes on while rules are loaded again, and while agents start again", async () => {
  const held = [await hold(VIP), await hold(at(lab.hosts, 0).address, other), await hold(at(lab.hosts, 2).address)];
  for (const each of held) await each.says("1");
  for (const host of lab.hosts) {
    await host.run("nft", "delete", "table", "ip", "swarm0");
    await host.ask({ do: "reconcile" });
  }
  for (const each of held) await each.says("2");
  for (const host of lab.hosts) await host.ask({ do: "open", pool: POOL, local: host.address });
  for (const each of held) await each.says("3");
  await tell();
  for (const each of held) await each.says("4");
});

rootTest(
  "a connection to a task that vanished ends at the next word, with nobody left and over an agent's restart",
  async () => {
    const [one] = lab.hosts;
    const gone = clusterOf(0, { virtual: { [VIP]: [] }, remote: {} });
    const held = await hold(VIP);
    await held.says("1");
    await one?.ask({ do: "cluster", cluster: gone });
    await held.ends();
    await tell();
    const again = await hold(VIP);
    await again.says("1");
    await one?.ask({ do: "open", pool: POOL, local: one.address });
    await one?.ask({ do: "cluster", cluster: gone });
    await again.ends();
    await tell();
  },
);

rootTest("a connection goes on when its client's network comes to the task's host, and goes from there", async () => {
  const [, two] = lab.hosts;
  const networks = ["10.0.1.0/24", "fd00:1::/64"].map((subnet) => ({ subnet }));
  for (const change of [{}, { networks }]) {
    await two?.ask({ do: "cluster", cluster: clusterOf(1, "networks" in change ? {} : { networks }) });
    const held = await hold(at(lab.hosts, 0).address, other);
    await held.says("1");
    await two?.ask({ do: "cluster", cluster: clusterOf(1, change) });
    await held.says("2");
  }
  await tell();
});

/** A connection from a task of the first host that stays open. */
async function hold(host: string, from = at(containers, 0)) {
  const script = `const s = require("net").connect(${PORTS.hold}, "${host}", () => console.log("open"));
    s.on("data", (data) => console.log(String(data))).on("error", ({ code }) => console.log(code));
    s.on("close", () => process.exit());
    process.stdin.on("data", (data) => s.write(data))`;
  const child = lab.startIn(from, process.execPath, "-e", script);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const late = new Promise<string>((resolve) => void setTimeout(resolve, 3_000, "silence"));
    return Promise.race([lines.next().then(({ value }) => String(value)), late]);
  };
  expect(await next()).toBe("open");
  return {
    async says(word: string) {
      child.stdin.write(word);
      expect(await next()).toBe(word);
    },
    async ends() {
      child.stdin.write("?");
      expect(await next()).toMatch(/ECONNRESET|EPIPE/);
    },
  };
}
