/**
 * Goal: what somebody breaks of a host's network is whole again at the next look, and a host whose address or MTU changes
 * is followed. Method: three network namespaces as hosts; their tasks' namespaces before and after are compared as `ip`
 * shows them.
 */
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../../test/eventually.ts";
import { type ContainerStarted, Lab, type LabHost, type TestCluster, type TestTask } from "../../test/network-lab.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { vethName } from "./attach.ts";

const POOL = "10.224.0.0/12";
/** A task on each host, by its host's number; the first is on two networks. */
const ADDRESSES = ["10.0.1.11", "10.0.1.12", "10.0.1.13"] as const;
const SECOND = "10.0.2.11";

/** With `--long` an agent is killed at each of its steps, else at some of them. */
const LONG = process.env.SWARM_TEST_LONG !== undefined;

/** Asks a URL, a connection for each request, until its input ends; then says how often, and how often in vain. */
const ASKER = `const { get } = require("http");
  let asked = 0;
  let failed = 0;
  let over = false;
  process.stdin.resume().on("end", () => { over = true });
  const next = () => {
    if (over) return console.log(JSON.stringify({ asked, failed }));
    asked++;
    get(process.argv[1], { agent: false, timeout: 2000 }, (answer) => answer.resume().on("end", () => setTimeout(next, 5)))
      .on("timeout", function () { this.destroy() })
      .on("error", () => { failed++; setTimeout(next, 5) });
  };
  next();`;

let lab: Lab;
const containers: ContainerStarted[] = [];
const tasks: TestTask[] = [];

beforeAll(async () => {
  if (!isRoot) return;
  lab = await Lab.open(3);
  for (const [index, host] of lab.hosts.entries()) {
    await host.ask({ do: "open", pool: POOL, local: host.address });
    const addresses = [`${ADDRESSES[index]}/24`, ...(index === 0 ? [`${SECOND}/24`] : [])];
    const task = { taskId: newId<TaskId>(systemRandom), addresses, ipv6: [`fd00:1::1${index + 1}/64`] };
    tasks.push(task);
    containers.push(await host.serveHttp(task, `t${index + 1}`));
  }
  await tell();
  await eventually(allReachAll);
});
afterAll(() => lab?.[Symbol.asyncDispose]());

/** What a host is told: what is not its own lies behind the others, which are at `places`. */
function clusterOf(own: number, places: readonly string[] = lab.hosts.map(({ address }) => address)): TestCluster {
  const others = places.flatMap((place, index) => {
    const addresses = [at(ADDRESSES, index), `fd00:1::1${index + 1}`];
    return index === own ? [] : addresses.map((address) => [address, place] as const);
  });
  return {
    networks: ["10.0.1.0/24", "10.0.2.0/24", "fd00:1::/64"].map((subnet) => ({ subnet })),
    hosts: [...new Set(others.map(([, place]) => place))],
    remote: Object.fromEntries(others),
    published: [{ protocol: "tcp", port: 8080, targets: [{ address: ADDRESSES[1], port: 80 }] }],
    served: own === 1 ? [`${ADDRESSES[1]}:80`] : [],
  };
}

async function tell(places?: readonly string[]): Promise<void> {
  for (const [own, host] of lab.hosts.entries()) await host.ask({ do: "cluster", cluster: clusterOf(own, places) });
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new Error(`there is no ${index}`);
  return found;
}

function fetch(host: string, port = 80): readonly string[] {
  return ["timeout", "2", "busybox", "wget", "-qO-", `http://${host}:${port}/`];
}

async function allReachAll(): Promise<void> {
  for (const from of containers) {
    for (const [index, address] of ADDRESSES.entries()) {
      expect(await lab.inContainer(from, ...fetch(address))).toBe(`t${index + 1}`);
    }
  }
  expect(await lab.inContainer(at(containers, 1), ...fetch("[fd00:1::11]"))).toBe("t1");
  expect(await lab.inContainer(at(containers, 0), ...fetch("[fd00:1::13]"))).toBe("t3");
  for (const { address } of lab.hosts) expect(await lab.inClient(...fetch(address, 8080))).toBe("t2");
}

/** All that a namespace's kernel knows of its network, but for what counts up. */
async function stateOf(container: ContainerStarted): Promise<readonly string[]> {
  const shown = await Promise.all([
    lab.inContainer(container, "ip", "-d", "-o", "link", "show", "type", "veth"),
    lab.inContainer(container, "ip", "-o", "addr"),
    lab.inContainer(container, "ip", "route", "show", "table", "all"),
    lab.inContainer(container, "ip", "neigh"),
    lab.inContainer(container, "sh", "-c", "grep -sH . /proc/sys/net/ipv*/conf/eth*/* || true"),
  ]);
  return shown.flatMap((text) => text.replaceAll(/@if\d+|link-netnsid \d+/g, "").split("\n")).toSorted();
}

/** What a host's kernel was told by us of where addresses are. */
async function told(host: LabHost): Promise<readonly string[]> {
  const commands = [
    "ip -4 route show table all proto 83",
    "ip -6 route show table all proto 83",
    "ip neigh show nud permanent",
    "bridge fdb show dev swarm0",
  ];
  const shown = await Promise.all(commands.map((command) => host.run(...command.split(" "))));
  return shown.flatMap((text) => text.split("\n")).toSorted();
}

describe("a running task's link", () => {
  rootTest.each([
    ["deleted", (link: string) => ["ip", "link", "del", link]],
    [
      "deleted with its second",
      (link: string) => ["sh", "-c", `ip link del ${link}; ip link del ${link.slice(0, -1)}1`],
    ],
    ["taken down", (link: string) => ["ip", "link", "set", link, "down"]],
    ["renamed", (link: string) => ["sh", "-c", `ip link set ${link} down; ip link set ${link} name gone0 up`]],
  ])("that was %s is made again, and the task has what it had", async (_, damage) => {
    const host = lab.host;
    const before = [await stateOf(at(containers, 0)), await told(host)];
    await host.run(...damage(vethName(at(tasks, 0).taskId)));
    await expect(lab.inHost(...fetch(ADDRESSES[0]))).rejects.toThrow();
    await host.ask({ do: "reconcile" });
    await allReachAll();
    expect([await stateOf(at(containers, 0)), await told(host)]).toEqual(before);
  });

  rootTest("that is as it should be stays the same link", async () => {
    const look = () => lab.inHost("ip", "-o", "link", "show", "type", "veth");
    const before = await look();
    await lab.ask({ do: "reconcile" });
    expect(await look()).toBe(before);
  });

  rootTest("of a task that has ended is not made again", async () => {
    const task = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.50/24"] };
    await lab.host.serveHttp(task, "brief");
    await lab.ask({ do: "detach", task });
    await lab.ask({ do: "reconcile" });
    expect(await lab.inHost("ip", "-o", "link")).not.toContain(vethName(task.taskId));
  });
});

rootTest("a second task with an address of another's is refused, and both are told of", async () => {
  const task = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.60/24", `${SECOND}/24`] };
  const { taskId } = at(tasks, 0);
  await expect(lab.host.serveHttp(task, "twin")).rejects.toThrow(
    `address ${SECOND}: task ${taskId} of this node has it`,
  );
  expect(await lab.inHost("ip", "-o", "link")).not.toContain(vethName(task.taskId));
  // What it asked for beside that stays free.
  const other = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.60/24"] };
  await lab.host.serveHttp(other, "other");
  await lab.ask({ do: "detach", task: other });
  await allReachAll();
});

rootTest(
  "an address of a task that ended before the agent started is free, of one that runs on it is not",
  async () => {
    const agent = lab.again(lab.host);
    await agent.ask({ do: "open", pool: POOL, local: lab.host.address });
    const over = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.65/24"] };
    await agent.ask({ do: "adopt", live: [at(tasks, 0), over] });
    const taskOf = (address: string) => ({ taskId: newId<TaskId>(systemRandom), addresses: [address] });
    await agent.serveHttp(taskOf("10.0.1.65/24"), "next");
    await expect(agent.serveHttp(taskOf(`${SECOND}/24`), "twin")).rejects.toThrow(at(tasks, 0).taskId);
    agent.end();
    await agent.gone();
  },
);

rootTest("a host that moved to another address is reached there, and only there", async () => {
  const moved = "192.0.2.77";
  const [one, two] = [at(lab.hosts, 0), at(lab.hosts, 1)];
  const says = await converse(at(containers, 1), at(containers, 0), ADDRESSES[0]);
  expect(await says("before")).toBe("before");
  await two.run("ip", "addr", "add", `${moved}/24`, "dev", "wire");
  await two.run("ip", "addr", "del", `${two.address}/24`, "dev", "wire");
  // The second address of a subnet goes with the first.
  await two.run("ip", "addr", "replace", `${moved}/24`, "dev", "wire");
  await two.ask({ do: "move", local: moved });
  const places = [one.address, moved, at(lab.hosts, 2).address];
  await tell(places);
  for (const from of containers) expect(await lab.inContainer(from, ...fetch(ADDRESSES[1]))).toBe("t2");
  for (const address of places) expect(await lab.inClient(...fetch(address, 8080))).toBe("t2");
  expect((await told(one)).join("\n")).not.toMatch(/192\.0\.2\.2\b/);
  expect(await says("after"), "over a connection that was open").toBe("after");
  await two.run("ip", "addr", "replace", `${two.address}/24`, "dev", "wire");
  await two.run("ip", "addr", "del", `${moved}/24`, "dev", "wire");
  await two.run("ip", "addr", "replace", `${two.address}/24`, "dev", "wire");
  await two.ask({ do: "move", local: two.address });
  await tell();
  await allReachAll();
});

/** Connects one container to an echo in another; what it returns says something, and tells what comes back. */
async function converse(from: ContainerStarted, to: ContainerStarted, address: string) {
  const port = 9100;
  const serve = `require("net").createServer((s) => s.on("error", () => {}).pipe(s)).listen(${port}, () => console.log())`;
  await once(lab.startIn(to, process.execPath, "-e", serve).stdout, "data");
  const ask = `const s = require("net").connect(${port}, "${address}");
    s.on("data", (data) => console.log(String(data))).on("error", ({ code }) => console.log(code));
    process.stdin.on("data", (data) => s.write(data))`;
  const child = lab.startIn(from, process.execPath, "-e", ask);
  return async (word: string) => {
    const heard = once(child.stdout, "data", { signal: AbortSignal.timeout(5_000) });
    child.stdin.write(word);
    return String((await heard)[0]).trim();
  };
}

describe("a smaller MTU between hosts", () => {
  const MTUS = [500, 1000];
  /** More than fits a packet, and an answer as large. */
  const SEND = `const { connect } = require("net");
    const size = 300_000;
    const socket = connect(9000, process.argv[1], () => socket.end(Buffer.alloc(size)));
    let back = 0;
    socket.on("data", (part) => { back += part.length });
    socket.on("end", () => console.log(back === size ? "whole" : back)).on("error", (e) => console.log(e.code));
    setTimeout(() => process.exit(), 5_000).unref()`;
  const REFLECT = `require("net").createServer({ allowHalfOpen: true }, (s) => s.on("error", () => {}).pipe(s)).listen(9000)`;

  const send = (from: ContainerStarted, to: string) => lab.inContainer(from, process.execPath, "-e", SEND, to);

  async function setMtu(mtu: number): Promise<void> {
    for (const host of lab.hosts) {
      await host.run("ip", "link", "set", "wire", "mtu", String(mtu));
      await host.ask({ do: "reconcile" });
    }
  }

  rootTest.each(MTUS)("%i: tasks that ran before go on, and new ones get links that fit", async (mtu) => {
    if (mtu === MTUS[0]) lab.startIn(at(containers, 2), process.execPath, "-e", REFLECT);
    await eventually(async () => expect(await send(at(containers, 0), ADDRESSES[2])).toBe("whole\n"));
    await setMtu(mtu);
    expect(await send(at(containers, 0), ADDRESSES[2])).toBe("whole\n");
    const task = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.70/24"] };
    const late = await lab.host.serveHttp(task, `mtu${mtu}`);
    // RFC 791: less than 576 no host need take; what is larger than the wire goes in fragments.
    const fits = Math.max(576, mtu - 50);
    expect(await lab.inContainer(late, "ip", "-o", "link", "show", "eth0")).toContain(`mtu ${fits} `);
    expect(await send(late, ADDRESSES[2])).toBe("whole\n");
    await lab.ask({ do: "detach", task });
    await setMtu(1500);
    // The kernel took IPv6 from the device and gave it back as if that were new: with an address of its own making.
    expect(await lab.inHost("ip", "-6", "-o", "addr", "show", "dev", "swarm0")).toBe("");
    expect(await send(at(containers, 0), ADDRESSES[2])).toBe("whole\n");
    await allReachAll();
  });
});

describe("an agent that is killed", () => {
  const late = { taskId: newId<TaskId>(systemRandom), addresses: ["10.0.1.80/24"] };

  /**
   * One life of an agent on the first host: it takes up what runs there, and a task comes and goes. Returns how many
   * steps it took, undefined when it was killed.
   */
  async function live(dieAt?: number): Promise<number | undefined> {
    const agent = lab.again(lab.host);
    const cluster = clusterOf(0);
    const { remote, published = [] } = cluster;
    const more = {
      remote: { ...remote, "10.0.1.90": at(lab.hosts, 2).address },
      virtual: { "10.0.1.2": ["10.0.1.80", ADDRESSES[1]] },
      published: [
        ...published,
        { protocol: "tcp" as const, port: 8081, targets: [{ address: "10.0.1.80", port: 80 }] },
      ],
    };
    try {
      const local = lab.host.address;
      await agent.ask({ do: "open", pool: POOL, local, ...(dieAt !== undefined && { dieAt }) });
      await agent.ask({ do: "adopt", live: [at(tasks, 0)] });
      await agent.ask({ do: "cluster", cluster });
      await agent.serveHttp(late, "late");
      await agent.ask({ do: "cluster", cluster: { ...cluster, ...more } });
      await agent.ask({ do: "reconcile" });
      await agent.ask({ do: "cluster", cluster });
      await agent.ask({ do: "detach", task: late });
      return Number(await agent.ask({ do: "steps" }));
    } catch (reason) {
      if (!String(reason).includes("the host ended")) throw reason;
      return undefined;
    } finally {
      agent.end();
      await agent.gone();
    }
  }

  /** Links, addresses, rules: all that an agent could leave on its host, and the table of a life that was whole. */
  async function left(): Promise<readonly string[]> {
    const commands = ["ip -o link show type veth", "ip -o -4 addr", "ip rule", "nft -s list ruleset"];
    const shown = await Promise.all(commands.map((command) => lab.inHost(...command.split(" "))));
    return [...(await told(lab.host)), ...shown.flatMap((text) => text.split("\n"))];
  }

  rootTest(
    "at any step leaves nothing once another one runs, and no request fails",
    { timeout: LONG ? 600_000 : 120_000 },
    async () => {
      // Only one process can hold the ports.
      await lab.ask({ do: "cluster", cluster: { ...clusterOf(0), published: [] } });
      const steps = await live();
      const whole = await left();
      const client = lab.start(lab.clientNamespace, process.execPath, "-e", ASKER, `http://${lab.host.address}:8080/`);
      for (let dieAt = 1; dieAt <= (steps ?? 0); dieAt += LONG ? 1 : 1 + Math.floor(dieAt / 2)) {
        expect(await live(dieAt), `step ${dieAt}`).toBeUndefined();
        expect(await live(), `after step ${dieAt}`).toBeGreaterThan(20);
        expect(await left(), `after step ${dieAt}`).toEqual(whole);
      }
      client.stdin.end();
      const { asked, failed } = JSON.parse((await client.stdout.setEncoding("utf8").toArray()).join(""));
      process.stdout.write(`an agent of ${steps} steps killed at each, while a client asked ${asked} times\n`);
      expect(failed).toBe(0);
      expect(asked).toBeGreaterThan(100);
      await lab.ask({ do: "cluster", cluster: clusterOf(0) });
    },
  );
});

describe("what of the host stands in the way is told, with a remedy that helps", () => {
  const remedyOf = (warning: string) => warning.replace(/^.*: run /, "");
  const warnings = async () => (await lab.ask({ do: "warnings" })) as readonly string[];

  rootTest("a firewall that drops what is forwarded", async () => {
    expect(await warnings()).toEqual([]);
    const chain = "{ type filter hook forward priority 0; policy drop; }";
    await lab.inHost("nft", `add table ip filter; add chain ip filter FORWARD ${chain}`);
    await expect(lab.inContainer(at(containers, 0), ...fetch(ADDRESSES[1]))).rejects.toThrow();
    const [warning = ""] = await warnings();
    expect(warning).toContain("chain FORWARD of table ip filter drops forwarded packets");
    await lab.inHost("sh", "-c", remedyOf(warning));
    expect(await warnings()).toEqual([]);
    await allReachAll();
    await lab.inHost("nft", "delete", "table", "ip", "filter");
  });

  rootTest("a reverse path filter that drops what comes in by another host", async () => {
    const two = at(lab.hosts, 1);
    const bySecond = () => lab.inClient(...fetch(lab.host.address, 8080));
    await two.run("busybox", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1");
    const [warning = ""] = (await two.ask({ do: "warnings" })) as readonly string[];
    expect(warning).toContain("net.ipv4.conf.all.rp_filter=1 drops requests that come in by another node");
    await expect(bySecond()).rejects.toThrow();
    await two.run("busybox", ...remedyOf(warning).split(" "));
    expect(await two.ask({ do: "warnings" })).toEqual([]);
    expect(await bySecond()).toBe("t2");
  });

  rootTest("a task's false address goes nowhere with a loose reverse path filter, which needs no warning", async () => {
    await lab.inHost("busybox", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2");
    expect(await warnings()).toEqual([]);
    const from = at(containers, 0);
    await lab.inContainer(from, "ip", "addr", "add", `${ADDRESSES[2]}/32`, "dev", "eth0");
    const counted = `ip saddr ${ADDRESSES[2]} icmp type echo-request counter`;
    const chain = `{ type filter hook forward priority 0; ${counted}; }`;
    await lab.inHost("nft", `add table ip seen; add chain ip seen forward ${chain}`);
    const ping = ["busybox", "ping", "-c", "2", "-W", "1"];
    await lab.inContainer(from, ...ping, "-I", ADDRESSES[2], ADDRESSES[1]).catch(() => {});
    expect(await lab.inHost("nft", "list", "table", "ip", "seen")).toContain("counter packets 0 ");
    await lab.inHost("nft", "delete", "table", "ip", "seen");
    await lab.inContainer(from, "ip", "addr", "del", `${ADDRESSES[2]}/32`, "dev", "eth0");
    await lab.inHost("busybox", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0");
  });
});
