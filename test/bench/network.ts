/**
 * The network path: between containers of two hosts beside a bare VXLAN device between those hosts, a published port beside
 * a server on the host itself, and the resolver. Hosts are network namespaces of one kernel, so all of a packet's cost is
 * software, and every rule shows. What is compared takes turns: the machine's mood changes.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { newId, type TaskId } from "../../common/base/id.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../eventually.ts";
import { type ContainerStarted, Lab } from "../network-lab.ts";
import { DockerPublished } from "./docker-published.ts";
import type { BenchOptions, Figure } from "./figure.ts";
import { measureNames } from "./names.ts";
import { measureNetworkScale } from "./network-scale.ts";

const ROUNDS = 5;
const SECONDS = 2;
const TASKS = ["10.0.1.11", "10.0.1.12"] as const;
const HOSTS = ["192.0.2.1", "192.0.2.2"] as const;
const VIP = "10.0.1.2";
/** 1 / 0.9: nine tenths of the throughput take that much longer. */
const SHARE = 0.9;

export async function measureNetwork({ peer }: Pick<BenchOptions, "peer">): Promise<readonly Figure[]> {
  await using lab = await Lab.open(2);
  const containers = await openHosts(lab);
  return [
    ...(await measurePath(lab, containers)),
    ...(await measurePublished(lab, containers, peer)),
    ...(await measureNames(lab.directory)),
    ...(await measureNetworkScale()),
  ];
}

/** One container on each host, on one network; a bare VXLAN device beside it. */
async function openHosts(lab: Lab): Promise<readonly ContainerStarted[]> {
  const containers: ContainerStarted[] = [];
  for (const [index, host] of lab.hosts.entries()) {
    await host.ask({ do: "open", pool: "10.224.0.0/12", local: host.address });
    const task = { taskId: newId<TaskId>(systemRandom), addresses: [`${TASKS[index]}/24`] };
    containers.push((await host.ask({ do: "attach", task, command: ["sleep", "1000"] })) as ContainerStarted);
    const other = 1 - index;
    await host.ask({
      do: "cluster",
      cluster: {
        networks: [{ subnet: "10.0.1.0/24" }],
        hosts: [HOSTS[other] ?? ""],
        remote: { [TASKS[other] ?? ""]: HOSTS[other] ?? "" },
        virtual: { [VIP]: [TASKS[1]] },
        published: [
          { protocol: "tcp", port: 8081, targets: [{ address: TASKS[0], port: 81 }] },
          { protocol: "tcp", port: 8082, targets: [{ address: TASKS[1], port: 81 }] },
        ],
        served: TASKS.flatMap((address) => [`${address}:80`, `${address}:81`]),
      },
    });
    const bare = ["type", "vxlan", "id", "77", "dstport", "4789", "remote", HOSTS[other] ?? "", "local", host.address];
    await host.run("ip", "link", "add", "bare", ...bare);
    await host.run("ip", "addr", "add", `172.31.0.${index + 1}/24`, "dev", "bare");
    await host.run("ip", "link", "set", "bare", "up");
  }
  return containers;
}

async function measurePath(lab: Lab, [near, far]: readonly ContainerStarted[]): Promise<readonly Figure[]> {
  if (near === undefined || far === undefined) throw new Error("no containers");
  lab.startIn(far, "qperf");
  lab.start(lab.hosts[1]?.namespace ?? "", "qperf");
  const ways = {
    bare: (test: string) => lab.inHost(...qperf("172.31.0.2", test)),
    direct: (test: string) => lab.inContainer(near, ...qperf(TASKS[1], test)),
  };
  for (const ask of Object.values(ways)) await eventually(() => ask("tcp_lat"), { timeoutMs: 20_000 });
  const read: Record<string, number[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, ask] of Object.entries(ways)) {
      for (const test of ["tcp_lat", "udp_lat", "tcp_bw"]) {
        const key = `${name} ${test}`;
        read[key] = [...(read[key] ?? []), reading(await ask(test))];
      }
    }
  }
  const best = (key: string) => Math.min(...(read[key] ?? [Number.NaN]));
  return [
    ...["tcp", "udp"].map((kind): Figure => {
      const peer = best(`bare ${kind}_lat`);
      const name = `container to container, two hosts: ${kind} one way`;
      return { name, value: best(`direct ${kind}_lat`), unit: "µs", goal: peer * 1.1, peer };
    }),
    {
      name: "container to container, two hosts: tcp, 1 GB",
      value: best("direct tcp_bw"),
      unit: "ms",
      goal: best("bare tcp_bw") / SHARE,
      peer: best("bare tcp_bw"),
    },
  ];
}

function qperf(host: string, test: string): readonly string[] {
  return ["timeout", "15", "qperf", "-t", String(SECONDS), host, test];
}

/** Microseconds one way, or ms for a GB. */
function reading(output: string): number {
  const [, number = "NaN", unit = ""] = /(?:latency|bw)\s+=\s+([\d.]+) (\S+)/.exec(output) ?? [];
  const scale: Readonly<Record<string, number>> = { ns: 1e-3, us: 1, ms: 1e3, "GB/sec": 1, "MB/sec": 1e-3 };
  const value = Number(number) * (scale[unit] ?? Number.NaN);
  return unit.endsWith("/sec") ? 1_000 / value : value;
}

/** Where wrk asks, and from where. */
interface Place {
  readonly address: string;
  readonly run: (...command: readonly string[]) => Promise<string>;
}

/**
 * wrk on host 1: to the tasks' own addresses, and to them by published ports; with `peer`, on Docker's host by a port of it.
 * Each way has a port of the task for itself: a client's connections to two addresses have clocks of their own, and one that
 * follows the other from the same port to the same would be taken for an old one of it. What has ended is forgotten, or
 * 60,000 of each way would fill the kernel's table.
 */
async function measurePublished(
  lab: Lab,
  containers: readonly ContainerStarted[],
  peer: boolean,
): Promise<readonly Figure[]> {
  await using docker = peer ? await DockerPublished.start(8081, 81) : undefined;
  const nginx = await nginxCommand(lab.directory);
  for (const container of [...containers, ...(docker ? [docker.container] : [])]) lab.startIn(container, ...nginx);
  const inHost: Place["run"] = (...command) => lab.inHost(...command);
  const places: Record<string, Place> = {
    "direct here": { address: `${TASKS[0]}:80`, run: inHost },
    here: { address: `${HOSTS[0]}:8081`, run: inHost },
    "direct elsewhere": { address: `${TASKS[1]}:80`, run: inHost },
    elsewhere: { address: `${HOSTS[0]}:8082`, run: inHost },
    ...(docker && { docker: { address: docker.place, run: (...command) => lab.inContainer(docker.host, ...command) } }),
  };
  for (const { address, run } of Object.values(places)) {
    await run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1");
    await eventually(() => run("curl", "-sf", `http://${address}/`));
  }
  const read: Record<string, number[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, place] of Object.entries(places)) {
      for (const kind of KINDS) {
        for (const host of lab.hosts) await host.run("conntrack", "-F");
        await place.run("conntrack", "-F");
        const key = `${name} ${kind}`;
        read[key] = [...(read[key] ?? []), await askFor(place, kind)];
      }
    }
  }
  return publishedFigures((key) => Math.min(...(read[key] ?? [Number.NaN])), peer);
}

const KINDS = ["requests", "connections"] as const;

/** Microseconds for each. */
async function askFor({ address, run }: Place, kind: (typeof KINDS)[number]): Promise<number> {
  const header = kind === "connections" ? ["-H", "Connection: close"] : [];
  const command = ["wrk", "-t", "1", "-c", "16", "-d", String(SECONDS), ...header, `http://${address}/`];
  return 1e6 / Number(/Requests\/sec:\s+([\d.]+)/.exec(await run(...command))?.[1]);
}

/** Ours within a twentieth of the tasks' own addresses, and not slower than Docker's. */
function publishedFigures(best: (key: string) => number, peer: boolean): readonly Figure[] {
  return KINDS.flatMap((kind) => {
    const what = kind === "requests" ? "a request" : "a connection";
    const figures = ["here", "elsewhere"].map((place): Figure => {
      const direct = best(`direct ${place} ${kind}`);
      const name = `published port, task ${place}: ${what}`;
      return { name, value: best(`${place} ${kind}`), unit: "µs", goal: direct / 0.95, peer: direct };
    });
    if (!peer) return figures;
    const dockers = best(`docker ${kind}`);
    const name = `published port, beside Docker's: ${what}`;
    return [...figures, { name, value: best(`here ${kind}`), unit: "µs", goal: dockers, peer: dockers }];
  });
}

/** nginx that answers on two ports, in the foreground. */
async function nginxCommand(directory: string): Promise<readonly string[]> {
  const settings = join(directory, "nginx.conf");
  await writeFile(
    settings,
    `daemon off; master_process off; pid /dev/null; error_log /dev/null;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000; server { listen 80; listen 81; location / { return 200 "hello"; } } }`,
  );
  return ["nginx", "-c", settings];
}
