import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../../test/eventually.ts";
import { CLIENT_ADDRESS, type ContainerStarted, HOST_ADDRESS, Lab, type TestPort } from "../../test/network-lab.ts";
import { isRoot, rootTest } from "../../test/privileges.ts";
import { vethGroup, vethName } from "./attach.ts";

const POOL = "10.224.0.0/12";

function taskId(): TaskId {
  return newId<TaskId>(systemRandom);
}

function fetch(host: string, port = 80): readonly string[] {
  return ["timeout", "2", "busybox", "wget", "-qO-", `http://${host}:${port}/`];
}

function ping(address: string): readonly string[] {
  return ["busybox", "ping", "-c", "1", "-W", "2", address];
}

function web(port: number, ...addresses: readonly string[]): TestPort {
  return { protocol: "tcp", port, targets: addresses.map((address) => ({ address, port: 80 })) };
}

/** What came of a command: its output, or what it complained of. */
function outcome(command: Promise<string>): Promise<string> {
  return command.catch(String);
}

/** How many of `count` fetches each name answered. */
async function tally(count: number, ask: () => Promise<string>): Promise<Record<string, number>> {
  const answers: Record<string, number> = {};
  for (let index = 0; index < count; index++) {
    const name = await ask();
    answers[name] = (answers[name] ?? 0) + 1;
  }
  return answers;
}

describe("the network of a host", () => {
  const A = "10.224.0.7";
  const B = "10.224.0.8";
  const tasks = { a: taskId(), b: taskId() };
  let lab: Lab;
  let a: ContainerStarted;
  let b: ContainerStarted;

  beforeAll(async () => {
    if (!isRoot) return;
    lab = await Lab.open();
    await lab.ask({ do: "open", pool: POOL });
    a = await lab.host.serveHttp({ taskId: tasks.a, addresses: [`${A}/12`] }, "a");
    b = await lab.host.serveHttp({ taskId: tasks.b, addresses: [`${B}/12`] }, "b");
    for (const address of [A, B]) await eventually(() => lab.inHost(...fetch(address)));
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());

  rootTest("containers reach each other and their gateway", async () => {
    expect(await lab.inContainer(a, ...fetch(B))).toBe("b");
    expect(await lab.inContainer(b, ...ping(A))).toContain("1 packets received");
    expect(await lab.inContainer(b, ...ping("10.224.0.1"))).toContain("1 packets received");
  });

  rootTest("a container has its address, its MAC and no IPv6 but its own loopback's", async () => {
    expect(await lab.inContainer(a, "ip", "-o", "link", "show", "eth0")).toContain("02:42:0a:e0:00:07");
    const addresses = await lab.inContainer(a, "ip", "-o", "addr");
    expect(addresses).toContain(`${A}/12`);
    expect(addresses.match(/inet6 \S+/g)).toEqual(["inet6 ::1/128"]);
    expect(await lab.inHost("ip", "-6", "-o", "addr", "show", "dev", "swarm0")).toBe("");
    expect(await lab.inHost("ip", "-6", "-o", "addr", "show", "dev", vethName(tasks.a))).toBe("");
  });

  rootTest("a cloud's metadata server is out of reach, unless the host's options say otherwise", async () => {
    const metadata = "169.254.169.254";
    // In what busybox says of an answer; a number alone may be in the command's own words.
    const answered = "404 Not Found";
    await lab.inHost("ip", "addr", "add", `${metadata}/32`, "dev", "lo");
    lab.start(lab.hostNamespace, "busybox", "httpd", "-f", "-p", `${metadata}:80`, "-h", lab.directory);
    await eventually(async () => expect(await outcome(lab.inHost(...fetch(metadata)))).toContain(answered));
    expect(await outcome(lab.inContainer(a, ...fetch(metadata)))).not.toContain(answered);
    await lab.ask({ do: "open", pool: POOL, linkLocal: true });
    await lab.ask({ do: "cluster", cluster: {} });
    expect(await outcome(lab.inContainer(a, ...fetch(metadata)))).toContain(answered);
    await lab.ask({ do: "open", pool: POOL });
    const live = [
      { taskId: tasks.a, addresses: [`${A}/12`] },
      { taskId: tasks.b, addresses: [`${B}/12`] },
    ];
    await lab.ask({ do: "adopt", live });
    await lab.ask({ do: "cluster", cluster: {} });
    expect(await outcome(lab.inContainer(a, ...fetch(metadata)))).not.toContain(answered);
    await lab.inHost("ip", "addr", "del", `${metadata}/32`, "dev", "lo");
  });

  rootTest("a published port is dealt to its targets evenly, whoever asks", async () => {
    await lab.ask({ do: "publish", ports: [web(8080, A, B)] });
    const even = { a: 5, b: 5 };
    expect(await tally(10, () => lab.inClient(...fetch(HOST_ADDRESS, 8080)))).toEqual(even);
    expect(await tally(10, () => lab.inHost(...fetch(HOST_ADDRESS, 8080)))).toEqual(even);
    expect(await tally(10, () => lab.inHost(...fetch("127.0.0.1", 8080)))).toEqual(even);
    expect(await tally(10, () => lab.inHost(...fetch("[::1]", 8080)))).toEqual(even);
    // From a container: half of these come back to the one that asked.
    expect(await tally(10, () => lab.inContainer(a, ...fetch(HOST_ADDRESS, 8080)))).toEqual(even);
    expect(await tally(10, () => lab.inContainer(a, ...fetch("10.224.0.1", 8080)))).toEqual(even);
  });

  rootTest("a change of targets, and a withdrawn port, count at once", async () => {
    await lab.ask({ do: "publish", ports: [web(8081, A), web(8082, A, B)] });
    expect(await lab.inClient(...fetch(HOST_ADDRESS, 8081))).toBe("a");
    await lab.ask({ do: "publish", ports: [web(8081, B)] });
    expect(await lab.inClient(...fetch(HOST_ADDRESS, 8081))).toBe("b");
    expect(await lab.inHost(...fetch("127.0.0.1", 8081))).toBe("b");
    await lab.ask({ do: "publish", ports: [] });
    await expect(lab.inClient(...fetch(HOST_ADDRESS, 8081))).rejects.toThrow("refused");
    await expect(lab.inHost(...fetch("127.0.0.1", 8081))).rejects.toThrow("refused");
    expect(await lab.inHost("nft", "list", "map", "ip", "swarm0", "published")).not.toContain("elements");
  });

  rootTest("a port that somebody holds is reported, left to him, and taken once he lets go", async () => {
    const holder = lab.start(lab.hostNamespace, "busybox", "httpd", "-f", "-p", `${HOST_ADDRESS}:8083`);
    await eventually(async () => expect(await lab.inHost("ss", "-ltnH", "sport = 8083")).toContain("LISTEN"));
    const problem = { protocol: "tcp", port: 8083, message: "published port 8083/tcp: already in use on this node" };
    expect(await lab.ask({ do: "publish", ports: [web(8083, A), web(8084, A)] })).toEqual([problem]);
    expect(await lab.inClient(...fetch(HOST_ADDRESS, 8084))).toBe("a");
    holder.kill("SIGKILL");
    await eventually(async () => {
      await lab.ask({ do: "reconcile" });
      expect(await lab.inClient(...fetch(HOST_ADDRESS, 8083))).toBe("a");
    });
  });

  rootTest("a port that connections of the host's own came from is nobody's", async () => {
    const serve = `require("net").createServer(() => {}).listen(9100, "${CLIENT_ADDRESS}", () => console.log())`;
    await once(lab.start(lab.clientNamespace, process.execPath, "-e", serve).stdout, "data");
    const ask = `require("net").connect({ port: 9100, host: "${CLIENT_ADDRESS}", localPort: 40000 }, () => console.log());
      const s = require("dgram").createSocket("udp4").bind(40000, () => s.connect(9100, "${CLIENT_ADDRESS}"))`;
    await once(lab.start(lab.hostNamespace, process.execPath, "-e", ask).stdout, "data");
    const port = { port: 40_000, targets: [{ address: A, port: 80 }] };
    const ports: TestPort[] = [
      { ...port, protocol: "tcp" },
      { ...port, protocol: "udp" },
    ];
    expect(await lab.ask({ do: "publish", ports })).toEqual([]);
    expect(await lab.inClient(...fetch(HOST_ADDRESS, 40_000))).toBe("a");
    await lab.ask({ do: "publish", ports: [] });
  });

  rootTest("a port on one address is reached there alone, and may move to all addresses and back", async () => {
    const at = (hostIp: string, port = 8085): TestPort => ({ ...web(port, A), hostIp });
    await lab.inHost("ip", "addr", "add", "192.0.2.77/32", "dev", "lo");
    const ask = (host: string) => lab.inHost(...fetch(host, 8085));
    expect(await lab.ask({ do: "publish", ports: [at(HOST_ADDRESS)] })).toEqual([]);
    expect([await lab.inClient(...fetch(HOST_ADDRESS, 8085)), await ask(HOST_ADDRESS)]).toEqual(["a", "a"]);
    for (const other of ["192.0.2.77", "127.0.0.1", "[::1]"]) await expect(ask(other)).rejects.toThrow("refused");
    expect(await lab.ask({ do: "publish", ports: [web(8085, A)] })).toEqual([]);
    expect([await ask("192.0.2.77"), await ask("127.0.0.1")]).toEqual(["a", "a"]);
    expect(await lab.ask({ do: "publish", ports: [at("127.0.0.1"), at("127.0.0.2"), at("192.0.2.77")] })).toEqual([]);
    expect([await ask("127.0.0.1"), await ask("127.0.0.2"), await ask("192.0.2.77")]).toEqual(["a", "a", "a"]);
    for (const other of [HOST_ADDRESS, "127.0.0.3", "[::1]"]) await expect(ask(other)).rejects.toThrow("refused");
    await expect(lab.inClient(...fetch(HOST_ADDRESS, 8085))).rejects.toThrow("refused");
  });

  rootTest("an address that the node does not have is a problem until it has it", async () => {
    const ports = [{ ...web(8086, A), hostIp: "192.0.2.88" }];
    const message = "published port 192.0.2.88:8086/tcp: this node does not have the address";
    const problem = { protocol: "tcp", port: 8086, hostIp: expect.any(Number), message };
    expect(await lab.ask({ do: "publish", ports })).toEqual([problem]);
    await lab.inHost("ip", "addr", "add", "192.0.2.88/32", "dev", "lo");
    await lab.ask({ do: "reconcile" });
    expect(await lab.inHost(...fetch("192.0.2.88", 8086))).toBe("a");
    await lab.inHost("ip", "addr", "del", "192.0.2.88/32", "dev", "lo");
    expect(await lab.ask({ do: "publish", ports })).toEqual([problem]);
  });

  rootTest("udp flows move to a living target when theirs leaves", async () => {
    const udp = (address: string): TestPort => ({ protocol: "udp", port: 5353, targets: [{ address, port: 53 }] });
    for (const [name, container] of Object.entries({ a, b })) {
      const serve = `const s = require("dgram").createSocket("udp4").bind(53);
        s.on("message", (_, from) => s.send(${JSON.stringify(name)}, from.port, from.address))`;
      lab.startIn(container, process.execPath, "-e", serve);
      await eventually(async () => expect(await lab.inContainer(container, "ss", "-lnuH")).toContain(":53"));
    }
    // One source port, so that all of it is one flow to the kernel.
    const asked = `const s = require("dgram").createSocket("udp4").bind(4000, () => s.send("?", 5353, "${HOST_ADDRESS}"));
      s.on("message", (name) => { console.log(String(name)); process.exit() }).on("error", () => process.exit());
      setTimeout(() => process.exit(), 300)`;
    const ask = () => lab.inClient(process.execPath, "-e", asked);
    await ask();
    await lab.ask({ do: "publish", ports: [udp(A)] });
    expect(await ask()).toBe("a\n");
    await lab.ask({ do: "publish", ports: [udp(B)] });
    expect(await ask()).toBe("b\n");
    const ownLoopback = asked.replace(HOST_ADDRESS, "127.0.0.1");
    expect(await lab.inHost(process.execPath, "-e", ownLoopback), "on the host's loopback").toBe("b\n");
  });

  rootTest("containers reach the outside by the host's address, and the outside not them", async () => {
    const serve = `require("net").createServer((s) => s.end(s.remoteAddress)).listen(80, "${CLIENT_ADDRESS}")`;
    lab.start(lab.clientNamespace, process.execPath, "-e", serve);
    await eventually(async () => {
      expect(await lab.inContainer(a, "busybox", "nc", CLIENT_ADDRESS, "80")).toBe(HOST_ADDRESS);
    });
    await lab.inClient("ip", "route", "add", POOL, "via", HOST_ADDRESS);
    await expect(lab.inClient(...fetch(A))).rejects.toThrow();
    await expect(lab.inClient(...ping(A))).rejects.toThrow();
  });

  rootTest("the host's loopback is out of a container's reach, even with route_localnet", async () => {
    lab.start(lab.hostNamespace, "busybox", "httpd", "-f", "-p", "127.0.0.1:8090", "-h", lab.directory);
    await eventually(async () => expect(await lab.inHost("ss", "-ltnH", "sport = 8090")).toContain("LISTEN"));
    await lab.inHost("busybox", "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1");
    await lab.inContainer(a, "busybox", "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1");
    await lab.inContainer(a, "ip", "route", "add", "127.0.0.2", "via", "10.224.0.1", "dev", "eth0", "onlink");
    await expect(lab.inContainer(a, ...fetch("127.0.0.2", 8090))).rejects.toThrow();
    await lab.inHost("busybox", "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=0");
  });

  rootTest("flushed rules and a deleted device are back within ten seconds", async () => {
    await lab.ask({ do: "publish", ports: [web(8080, A, B)] });
    await lab.ask({ do: "run" });
    await lab.inHost("nft", "flush", "ruleset");
    await lab.inHost("ip", "link", "del", "swarm0");
    await expect(lab.inClient(...fetch(HOST_ADDRESS, 8080))).rejects.toThrow();
    expect(await eventually(() => lab.inClient(...fetch(HOST_ADDRESS, 8080)))).toMatch(/a|b/);
    expect(await lab.inContainer(a, ...fetch(B))).toBe("b");
  });

  rootTest("an agent that starts again leaves what serves as it is", async () => {
    await lab.ask({ do: "publish", ports: [web(8080, A, B)] });
    await lab.ask({ do: "open", pool: POOL });
    expect(await tally(4, () => lab.inClient(...fetch(HOST_ADDRESS, 8080)))).toEqual({ a: 2, b: 2 });
    expect(await lab.ask({ do: "publish", ports: [web(8080, A, B)] })).toEqual([]);
    expect(await tally(4, () => lab.inHost(...fetch("127.0.0.1", 8080)))).toEqual({ a: 2, b: 2 });
  });

  rootTest("one that finds the rules as the last one left them touches none; else it loads them again", async () => {
    const again = () => lab.ask({ do: "open", pool: POOL, record: join(lab.directory, "rules.bin") });
    // Handles: whoever loads a table again gives its parts new ones.
    const look = () => lab.inHost("nft", "-a", "list", "table", "ip", "swarm0");
    const handle = async () => /chain prerouting \{ # handle (\d+)/.exec(await look())?.[1];
    await again();
    await lab.ask({ do: "publish", ports: [web(8080, A, B), web(8081, A)] });
    await lab.ask({ do: "publish", ports: [web(8080, B), web(8081, A)] });
    const before = await look();
    await again();
    await lab.ask({ do: "publish", ports: [web(8080, B), web(8081, A)] });
    expect(await look()).toBe(before);
    const first = await handle();
    await again();
    await lab.ask({ do: "publish", ports: [web(8080, A, B)] });
    expect(await handle()).toBe(first);
    expect(await tally(4, () => lab.inClient(...fetch(HOST_ADDRESS, 8080)))).toEqual({ a: 2, b: 2 });
    await lab.inHost("nft", "flush", "chain", "ip", "swarm0", "publish");
    await again();
    await lab.ask({ do: "publish", ports: [web(8080, A, B)] });
    expect(await handle()).not.toBe(first);
    expect(await tally(4, () => lab.inClient(...fetch(HOST_ADDRESS, 8080)))).toEqual({ a: 2, b: 2 });
  });

  rootTest("links of dead tasks go, those of live ones stay", async () => {
    const dead = taskId();
    const task = { taskId: dead, addresses: ["10.224.0.9/12"] };
    await lab.ask({ do: "attach", task, command: ["busybox", "sleep", "600"] });
    await lab.ask({ do: "detach", task });
    await lab.ask({ do: "detach", task });
    await expect(lab.inHost("ip", "link", "show", vethName(dead))).rejects.toThrow("does not exist");
    const forgotten = taskId();
    const left = { taskId: forgotten, addresses: ["10.224.0.10/12"] };
    await lab.ask({ do: "attach", task: left, command: ["busybox", "sleep", "600"] });
    await lab.inHost("ip", "link", "add", "veth01234567", "type", "veth", "peer", "name", "other");
    // Left by one who was killed while he deleted it.
    const doomed = { taskId: taskId(), addresses: ["10.224.0.12/12"] };
    await lab.ask({ do: "attach", task: doomed, command: ["busybox", "sleep", "600"] });
    await lab.inHost("ip", "link", "set", vethName(doomed.taskId), "group", String(vethGroup("swarm0") ^ 0x1_0000));
    await lab.ask({ do: "open", pool: POOL });
    const live = [
      { taskId: tasks.a, addresses: [`${A}/12`] },
      { taskId: tasks.b, addresses: [`${B}/12`] },
    ];
    const deleted = (await lab.ask({ do: "adopt", live })) as string[];
    expect(deleted.toSorted()).toEqual([vethName(forgotten), vethName(doomed.taskId)].toSorted());
    for (const name of deleted) await expect(lab.inHost("ip", "link", "show", name)).rejects.toThrow("does not exist");
    expect(await lab.inContainer(a, ...fetch(B))).toBe("b");
    expect(await lab.inHost("ip", "-o", "link", "show", "veth01234567")).toContain("veth01234567");
  });

  rootTest("connections to a task that has ended are forgotten, however many, and no others", async () => {
    const ended = { taskId: taskId(), addresses: ["10.224.0.9/12"] };
    const track = (source: string, target: string, timeout = "600") =>
      `-I -p tcp --orig-src ${source} --orig-dst ${HOST_ADDRESS} --sport 4000 --dport 8080 --reply-src ${target} --reply-dst ${source} --reply-port-src 80 --reply-port-dst 4000 --state ESTABLISHED -u ASSURED -t ${timeout}`;
    const lines = Array.from({ length: 25_000 }, (_, at) => track(`100.64.${at >> 8}.${at & 255}`, "10.224.0.9"));
    const batch = join(lab.directory, "connections");
    await writeFile(batch, [...lines, track("100.127.0.1", "10.224.0.99")].join("\n"));
    await lab.inHost("conntrack", "-R", batch);
    const count = async (target: string) =>
      Number(/(\d+) flow/.exec(await lab.inHost("sh", "-c", `conntrack -L -r ${target} 2>&1 >/dev/null`))?.[1]);
    expect(await count("10.224.0.9")).toBe(25_000);
    // One flow of UDP among them, to a virtual address that the task then serves no more: the others' number must not hide it.
    const virtual = (...targets: readonly string[]) => ({ hosts: [], remote: {}, virtual: { "10.224.0.50": targets } });
    await lab.ask({ do: "cluster", cluster: virtual("10.224.0.9", A) });
    const flow = "--orig-src 100.127.0.2 --orig-dst 10.224.0.50 --sport 4000 --dport 53 --reply-src 10.224.0.9";
    const back = "--reply-dst 100.127.0.2 --reply-port-src 53 --reply-port-dst 4000 -t 600";
    await lab.inHost("sh", "-c", `conntrack -I -p udp ${flow} ${back}`);
    expect(await count("10.224.0.9")).toBe(25_001);
    await lab.ask({ do: "cluster", cluster: virtual(A) });
    expect(await count("10.224.0.9")).toBe(25_000);
    await lab.ask({ do: "detach", task: ended });
    expect(await count("10.224.0.9")).toBe(0);
    expect(await count("10.224.0.99")).toBe(1);
  });

  rootTest("removal leaves no link and no table", async () => {
    await lab.ask({ do: "removeAll" });
    const links = await lab.inHost("ip", "-o", "link");
    expect(links).not.toContain("swarm0");
    expect(links).not.toContain(vethName(tasks.a));
    expect(await lab.inHost("nft", "list", "ruleset")).toBe("");
    expect(await lab.inHost("ss", "-ltnH", "sport = 8080")).toBe("");
    await lab.ask({ do: "removeAll" });
  });

  rootTest("a pool that overlaps a route of the host is refused, and both are named", async () => {
    await lab.inHost("ip", "route", "add", "10.230.1.0/24", "via", CLIENT_ADDRESS);
    const message = "address pool 10.224.0.0/12 overlaps the host's route 10.230.1.0/24 dev wire";
    await expect(lab.ask({ do: "open", pool: POOL })).rejects.toThrow(message);
    await expect(lab.ask({ do: "open", pool: "192.0.2.0/28" })).rejects.toThrow("overlaps the host's route 192.0.2");
    expect(await lab.inHost("ip", "-o", "link")).not.toContain("swarm0");
  });
});
