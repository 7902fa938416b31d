/**
 * Goal: services on networks find each other by name on any node, reach each other, and nobody else. Method: five hosts,
 * and Debian's nginx and redis with curl, dig and redis-cli as a user would have them: in tasks of their own.
 */
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { eventually } from "../eventually.ts";
import { isRoot, rootTest } from "../privileges.ts";
import { SoftwareImages } from "../software.ts";
import { type Host, TestCluster } from "./cluster.ts";

let cluster: TestCluster;

beforeAll(async () => {
  if (!isRoot) return;
  cluster = await TestCluster.start({ nodes: 5 });
  const images = new SoftwareImages((name) => cluster.folder(name));
  for (const archive of [images.nginx("one"), images.redis()]) await cluster.swarmctl("image", "load", archive);
  for (const name of ["front", "back"]) await cluster.swarmctl("network", "create", "-d", "overlay", name);
  await cluster.swarmctl("network", "create", "-d", "overlay", "--internal", "vault");
  await cluster.swarmctl("network", "create", "-d", "overlay", "--ipv6", "six");
  // A first process that is no init hears no SIGTERM: each stop would take its whole grace time.
  const idle = ["--stop-signal", "SIGKILL", "--entrypoint", "sleep", "debian/nginx:one", "100000"];
  await Promise.all([
    create("web", ["--network", "front", "--replicas", "5"], "debian/nginx:one"),
    create("cache", ["--network", "name=back,alias=store"], "debian/redis:7"),
    create("rr", ["--network", "front", "--endpoint-mode", "dnsrr", "--replicas", "3"], "debian/nginx:one"),
    create("hidden", ["--network", "vault", "--replicas", "2"], "debian/nginx:one"),
    create("sixes", ["--network", "six", "--replicas", "5", "-p", "8106:80"], "debian/nginx:one"),
    // Those that ask: on each set of networks one.
    create("onsix", ["--network", "six"], ...idle),
    create("onfront", ["--network", "front"], ...idle),
    create("onboth", ["--network", "front", "--network", "back"], ...idle),
    create("invault", ["--network", "vault"], ...idle),
  ]);
});
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function create(name: string, flags: readonly string[], ...image: readonly string[]): Promise<void> {
  await cluster.swarmctl("service", "create", "--name", name, ...flags, ...image);
}

const processes = new Map<string, string>();

/** The first process of a service's only task. */
async function processOf(service: string): Promise<string> {
  const known = processes.get(service);
  if (known !== undefined && existsSync(`/proc/${known}/ns/net`)) return known;
  const [place = ""] = await cluster.tasks(service);
  const ids = await cluster.swarmctl("service", "ps", service, "--filter", "desired-state=running", "--no-trunc", "-q");
  const lines = await cluster.containers(place.split(" ")[1] ?? "");
  const own = lines.map((line) => line.split(" ")[0] ?? "").find((pid) => environ(pid).includes(ids.trim()));
  if (own === undefined) throw new Error(`${service} has no process`);
  processes.set(service, own);
  return own;
}

function environ(pid: string): string {
  return readFileSync(`/proc/${pid}/environ`, "utf8");
}

/** Runs a command of Debian's where a service's task is on the network, with its resolv.conf; its output and what went wrong. */
async function inside(service: string, command: string): Promise<string> {
  const pid = await processOf(service);
  const own = join(cluster.directory, `resolv-${pid}`);
  copyFileSync(`/proc/${pid}/root/etc/resolv.conf`, own);
  const script = `mount --bind ${own} /etc/resolv.conf && ${command}`;
  const words = [`--net=/proc/${pid}/ns/net`, "unshare", "--mount", "bash", "-c", script];
  const { stdout, stderr, code } = await cluster.exec("nsenter", ...words);
  return code === 0 ? stdout.trim() : `exit ${code}: ${stdout}${stderr}`.trim();
}

const FETCH = "curl -sS -m 3";

describe("names", () => {
  rootTest("a service's name is its virtual address, which all of its tasks answer for", async () => {
    expect(await inside("onfront", `${FETCH} http://web/`)).toBe("nginx one");
    const inspected = await cluster.swarmctl("service", "inspect", "web", "-f", "{{json .Endpoint.VirtualIPs}}");
    const address = /"Addr":"([\d.]+)\/24"/.exec(inspected)?.[1] ?? "none";
    expect(await inside("onfront", "getent ahostsv4 web")).toContain(address);
    expect(await inside("onfront", "dig +short web.front")).toBe(address);
    expect(await inside("onfront", `dig +short -x ${address}`)).toBe("web.front.");
  });

  rootTest("dnsrr, tasks.NAME, SLOT.NAME and aliases name tasks", async () => {
    const addresses = async (name: string) => {
      return (await inside("onboth", `dig +short ${name}`)).split("\n").toSorted();
    };
    expect(await addresses("rr")).toHaveLength(3);
    expect(await addresses("tasks.web")).toHaveLength(5);
    expect(await addresses("3.web")).toHaveLength(1);
    expect(await addresses("tasks.web")).toContain((await addresses("3.web"))[0]);
    expect(await addresses("store")).toEqual(await addresses("cache"));
  });

  rootTest("no name of another network is known", async () => {
    // Its question is passed on, to nobody who answers here; that of an internal network's task is not.
    expect(await inside("onfront", "dig cache")).toContain("status: SERVFAIL");
    expect(await inside("invault", "dig web")).toContain("status: NXDOMAIN");
    expect(await inside("invault", `${FETCH} http://hidden/`)).toBe("nginx one");
  });

  rootTest("redis answers by its alias to a task on its network, and to no other", async () => {
    const ping = (service: string) => cluster.swarmctl("service", "exec", service, "redis-cli", "-h", "store", "ping");
    expect(await ping("cache")).toBe("PONG\n");
    expect(await inside("onboth", "exec 3<>/dev/tcp/store/6379; printf 'PING\\r\\n' >&3; head -1 <&3")).toContain(
      "PONG",
    );
    expect(await inside("onfront", "exec 3<>/dev/tcp/store/6379")).toContain("exit 1");
  });
});

describe("IPv6", () => {
  rootTest("names, virtual addresses and tasks have it; a published port leads to it; check tries it", async () => {
    const address = /"Addr":"(fd[0-9a-f:]+)\/64"/.exec(await virtual("sixes"))?.[1] ?? "none";
    expect(await inside("onsix", "dig +short AAAA sixes")).toBe(address);
    expect(await inside("onsix", `dig +short -x ${address}`)).toBe("sixes.six.");
    expect((await inside("onsix", "dig +short AAAA tasks.sixes")).split("\n")).toHaveLength(5);
    expect(await inside("onsix", `${FETCH} -6 http://sixes/`)).toBe("nginx one");
    for (let slot = 1; slot <= 5; slot++) {
      expect(await inside("onsix", `${FETCH} -6 http://${slot}.sixes/`), `slot ${slot}`).toBe("nginx one");
    }
    expect(await inside("onfront", `${FETCH} -6 http://[${address}]/`), "from another network").toContain("exit");
    // A node's own IPv6 address stands for any that it has.
    const host = cluster.host("node-2");
    await cluster.execOn(host, "ip", "addr", "add", "fd99::1/128", "dev", "lo");
    const asked = await cluster.execOn(host, "curl", "-sS", "-m", "3", "http://[fd99::1]:8106/");
    expect(asked.stdout.trim(), asked.stderr).toBe("nginx one");
    await cluster.execOn(host, "ip", "addr", "del", "fd99::1/128", "dev", "lo");
    // By either family: each service has two virtual addresses.
    expect(await cluster.swarmctl("network", "check", "six")).toMatch(/^node-\d( +[\d.]+ ms){5} +4\/4 +2\/2$/m);
  });
});

describe("isolation", () => {
  rootTest("an address of another network is out of reach", async () => {
    const [, address = "none"] = /Addr":"([\d.]+)/.exec(await virtual("cache")) ?? [];
    expect(await inside("onboth", `exec 3<>/dev/tcp/${address}/6379 && echo open`)).toBe("open");
    expect(await inside("onfront", `exec 3<>/dev/tcp/${address}/6379 && echo open`)).toContain("exit 1");
  });

  rootTest("from an internal network there is no way out; from others there is", async () => {
    const listener = cluster.startProgram("outside", cluster.fabric, "busybox", "httpd", "-f", "-p", "8100");
    const out = `${FETCH} -o /dev/null -w '%{http_code}' http://${cluster.fabric.address}:8100/`;
    await eventually(async () => expect(await inside("onfront", out)).toBe("404"));
    expect(await inside("invault", out)).toContain("exit 7");
    await cluster.end(listener, "SIGKILL");
  });
});

async function virtual(service: string): Promise<string> {
  return await cluster.swarmctl("service", "inspect", service, "-f", "{{json .Endpoint.VirtualIPs}}");
}

describe("changes", () => {
  rootTest("new tasks are found, old ones are not, while requests go on", async () => {
    const loop = `{ for i in $(seq 300); do ${FETCH} http://web/ >/dev/null || echo lost; done; echo done; }`;
    const asking = inside("onfront", loop);
    await cluster.swarmctl("service", "scale", "web=2");
    await cluster.swarmctl("service", "scale", "web=4");
    expect(await asking).toBe("done");
  });

  rootTest("a service comes to a network and leaves it", async () => {
    await cluster.swarmctl("service", "update", "--update-monitor", "0s", "--network-add", "back", "onfront");
    await eventually(async () => expect(await inside("onfront", "dig +short store")).toMatch(/^10\./));
    await cluster.swarmctl("service", "update", "--network-rm", "back", "onfront");
    await eventually(async () => expect(await inside("onfront", "dig +short store")).not.toMatch(/^10\./));
  });

  rootTest("an agent that was killed and comes back finds its network as it was", async () => {
    const [place = ""] = await cluster.tasks("onfront");
    const node = place.split(" ")[1] ?? "";
    await cluster.end(cluster.agent(node), "SIGKILL");
    // Without the agent there are no names; virtual addresses are the kernel's.
    const [, address = "none"] = /Addr":"([\d.]+)/.exec(await virtual("web")) ?? [];
    expect(await inside("onfront", `${FETCH} http://${address}/`)).toBe("nginx one");
    cluster.startAgent(cluster.host(node));
    await cluster.nodesReady(5);
    await eventually(async () => expect(await inside("onfront", `${FETCH} http://web/`)).toBe("nginx one"));
  });
});

describe("what breaks is mended within ten seconds", () => {
  /** What a user would look at: from every node to every node, each service and each name. */
  async function allGreen(): Promise<void> {
    const { stdout, stderr, code } = await cluster.swarmctlAt(0, "network", "check", "front");
    expect(code, stdout + stderr).toBe(0);
    expect(await inside("onfront", `${FETCH} http://web/`)).toBe("nginx one");
  }

  async function hostOf(service: string): Promise<Host> {
    const [place = ""] = await cluster.tasks(service);
    return cluster.host(place.split(" ")[1] ?? "");
  }

  rootTest("nothing is broken", async () => {
    const shown = await cluster.swarmctl("network", "check");
    expect(shown).toMatch(/^NETWORK front( +TO node-\d){2,5} +SERVICES +NAMES$/m);
    expect(shown).toMatch(/^node-\d( +[\d.]+ ms){2,5} +3\/3 +4\/4$/m);
    expect(shown).not.toContain("FAILED");
    const unknown = await cluster.swarmctlAt(0, "network", "check", "nope");
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining("nope") });
  });

  rootTest.each([
    ["rules", "nft flush ruleset"],
    ["the device to other hosts", "ip link delete swarm0"],
    ["routes and neighbours", "ip route flush proto 83; ip neigh flush dev swarm0 nud permanent"],
    ["routing rules", "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default"],
    ["tracked connections", "conntrack -F"],
    ["forwarding", "sysctl -w net.ipv4.ip_forward=0"],
    [
      "what hosts are behind it",
      "bridge fdb flush dev swarm0 || bridge fdb show dev swarm0 | while read -r mac _ host _; do bridge fdb del $mac dev swarm0; done",
    ],
  ])("%s", async (_, damage) => {
    const host = await hostOf("onfront");
    const done = await cluster.execOn(host, "sh", "-c", damage);
    expect(done.code, done.stderr).toBe(0);
    await eventually(allGreen, { timeoutMs: 10_000 });
  });

  rootTest("a node that is cut off drops out, and is back when it is", async () => {
    const onfront = (await hostOf("onfront")).name;
    const far = (await cluster.tasks("web")).map((task) => task.split(" ")[1]).find((node) => node !== onfront) ?? "";
    cluster.setLink(cluster.host(far), "down");
    const loop = `{ for i in $(seq 8); do curl -sS -m 1 http://web/ >/dev/null || echo lost; done; echo done; }`;
    await eventually(async () => expect(await inside("onfront", loop)).toBe("done"), { timeoutMs: 15_000 });
    cluster.setLink(cluster.host(far), "up");
    await cluster.nodesReady(5);
    await eventually(allGreen, { timeoutMs: 20_000 });
  });
});

rootTest("a network without free addresses says so; tasks on others go on", async () => {
  // Six addresses, of which one is the gateway's and one the service's own.
  await cluster.swarmctl("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/29", "small");
  await create("crowd", ["--network", "small", "--replicas", "6", "--detach"], "debian/nginx:one");
  await eventually(async () => {
    const shown = await cluster.swarmctl(
      "service",
      "ps",
      "crowd",
      "--no-trunc",
      "--format",
      "{{.CurrentState}} {{.Error}}",
    );
    expect(shown).toMatch(/10\.77\.0\.0\/29/);
    expect(shown.match(/^Running/gm)?.length).toBe(4);
  });
  await create("elsewhere", ["--network", "front"], "debian/nginx:one");
  await cluster.swarmctl("service", "rm", "crowd", "elsewhere");
});

rootTest("a network in use is not removed; one that is not is, and its addresses come back", async () => {
  const refused = await cluster.swarmctlAt(0, "network", "rm", "front");
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain("web");
  await cluster.swarmctl("service", "rm", "hidden", "invault");
  await eventually(async () => expect((await cluster.swarmctlAt(0, "network", "rm", "vault")).code).toBe(0));
});
