/**
 * Container start: what the agent's runtime takes to create, start and see the end of busybox `true` with all isolation
 * on, without and with a network, and `runc run` of the same right after it, since the machine's mood changes. It runs
 * in a network namespace of its own, where the bridge and the rules are made for real, and keeps all files on a tmpfs:
 * the disk of the moment is not what is measured (an ext4 without a journal, say, looks for a new inode among all that
 * were deleted in the last minutes, which takes three times as long as the rest).
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type CgroupManager, openCgroups } from "../../agent/cgroup/manager.ts";
import { formatIpv4, gatewayOf, parsePrefix } from "../../agent/network/address.ts";
import { VXLAN_PORT_DEFAULT } from "../../agent/network/fabric.ts";
import { NetworkManager } from "../../agent/network/network-manager.ts";
import { NftRuleLoader } from "../../agent/network/rule-loader.ts";
import { systemSysctls } from "../../agent/network/sysctl.ts";
import { DEFAULT_CAPABILITIES } from "../../agent/runtime/capabilities.ts";
import { compileSeccomp } from "../../agent/runtime/seccomp.ts";
import { defaultSeccompProfile } from "../../agent/runtime/seccomp-profile.ts";
import { architectureOf } from "../../agent/runtime/syscalls.ts";
import { type ContainerOverrides, NEVER, TestContainers } from "../../agent/runtime/test-root.ts";
import { systemClock } from "../../common/base/clock.ts";
import { newId, type TaskId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { DockerEngine, IMAGE } from "./docker-engine.ts";
import type { Figure } from "./figure.ts";
import { percentiles, timed } from "./measure.ts";

const execute = promisify(execFile);

/** 256 MiB and one processor: what a limited service asks for. */
const RESOURCES = { memory: { limit: 256 << 20 }, cpu: { quota: 100_000, period: 100_000 }, pids: { limit: 2048 } };

const ROUNDS = 200;
/** The first ones pay for cold caches, the kernel's and V8's. */
const WARM_UP_ROUNDS = 30;
/** Peers take part in every tenth round: they are slow, and more would say nothing new. */
const PEER_EVERY = 10;
const POOL = "10.224.0.0/12";
const FIRST_ADDRESS = 0x0ae00002;

/** Runs this file in a namespace of its own; needs root. runc takes part when it is there, `docker run` with `peer`. */
export async function measureContainerStart({ peer }: { readonly peer: boolean }): Promise<readonly Figure[]> {
  const directory = await mkdtemp(join(tmpdir(), "swarm-bench-"));
  try {
    const script = 'mount -t tmpfs tmpfs "$TMPDIR" && exec "$@"';
    const command = ["--net", "--mount", "--propagation", "private", "sh", "-euc", script, "sh"];
    const { stdout } = await execute("unshare", [...command, process.execPath, import.meta.filename], {
      env: { ...process.env, TMPDIR: directory },
    });
    const figures = JSON.parse(stdout) as readonly Figure[];
    return peer ? [...figures, ...(await measureDocker())] : figures;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** One way to run `true` in a container. */
interface Contender {
  readonly name: string;
  readonly goal?: number;
  /** Takes part in every so-manieth round. */
  readonly every: number;
  /** Runs it once and says how long that took; what it does before and after does not count. */
  readonly run: (round: number) => Promise<number>;
}

async function measureAll(): Promise<readonly Figure[]> {
  await using containers = await TestContainers.create();
  const cgroups = await openCgroups(systemClock, `/swarm-bench-${process.pid}`);
  try {
    await using network = await openNetwork(containers);
    const contenders = [
      { name: "container start without network", goal: 5, every: 1, run: () => startOne(containers, cgroups, []) },
      { name: "container start with network", goal: 10, every: 1, run: networked(containers, cgroups, network) },
      ...(existsSync("/usr/sbin/runc") ? [await runc(containers)] : []),
    ];
    const times = new Map(contenders.map((contender): [Contender, number[]] => [contender, []]));
    for (const [{ run, every }, values] of times) {
      for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round += every) {
        const ms = await run(round + WARM_UP_ROUNDS);
        if (round >= 0) values.push(ms);
      }
    }
    const peer = percentiles([...times].find(([{ name }]) => name.startsWith("runc"))?.[1] ?? []).p50;
    const [without, networkedOnes] = [...times.values()].map((values) => percentiles(values).p50);
    const added = (networkedOnes ?? Number.NaN) - (without ?? Number.NaN);
    return [
      ...[...times].flatMap(([contender, values]) => figuresOf(contender, values, peer)),
      { name: "  what a network adds, p50", value: added, unit: "ms", goal: 5 },
    ];
  } finally {
    await cgroups.removeParent();
  }
}

function figuresOf({ name, goal }: Contender, values: readonly number[], peerMs: number): Figure[] {
  const { p50, p99 } = percentiles(values);
  // runc makes no network: only what makes none either compares with it.
  const peer = name.endsWith("without network") && !Number.isNaN(peerMs);
  return [
    {
      name: `${name}, p50`,
      value: p50,
      unit: "ms",
      ...(goal !== undefined && { goal }),
      ...(peer && { peer: peerMs }),
    },
    { name: `${name}, p99`, value: p99, unit: "ms" },
    { name: `${name}, best`, value: Math.min(...values), unit: "ms" },
  ];
}

const filter = (() => {
  const architecture = architectureOf(process.arch) ?? "x86_64";
  const profile = defaultSeccompProfile({ architecture, capabilities: DEFAULT_CAPABILITIES });
  return compileSeccomp(profile, architecture);
})();

async function startOne(
  containers: TestContainers,
  cgroups: CgroupManager,
  network: NonNullable<ContainerOverrides["network"]>,
): Promise<number> {
  const cgroup = cgroups.plan("bench", RESOURCES);
  const plan = await containers.plan(["true"], { seccomp: { filter }, cgroup, network });
  const durationMs = await timed(async () => {
    await using supervisor = await containers.start(plan);
    const ended = await supervisor.ended;
    if (ended.kind !== "exited" || ended.record.code !== 0) throw new Error(`ended: ${JSON.stringify(ended)}`);
  });
  await cgroups.remove("bench", NEVER);
  await containers.runner.removeTree(plan.stateDirectory, NEVER);
  return durationMs;
}

function openNetwork(containers: TestContainers): Promise<NetworkManager> {
  const world = { clock: systemClock, logger: silentLogger, netlink: containers.runner };
  const network = new NetworkManager(
    { ...world, rules: new NftRuleLoader(), sysctls: systemSysctls, enter: async () => undefined },
    { pool: parsePrefix(POOL) },
  );
  return network.start({ port: VXLAN_PORT_DEFAULT }, NEVER).then(() => network);
}

/**
 * Each start has an address of its own, as tasks have. The kernel takes a link away for 10 ms and more after its
 * namespace, under the lock that a start with a network needs; another start, which does not count, spans that time.
 */
function networked(containers: TestContainers, cgroups: CgroupManager, network: NetworkManager): Contender["run"] {
  return async (round) => {
    const taskId = newId<TaskId>(systemRandom);
    const address = parsePrefix(`${formatIpv4(FIRST_ADDRESS + round)}/12`);
    const interfaces = [{ address, gateway: gatewayOf(address), internal: false }];
    const attachment = { kind: "routed", interfaces } as const;
    const { ops } = network.attach(taskId, attachment, { hostname: "bench" });
    const durationMs = await startOne(containers, cgroups, ops);
    await network.detach(taskId, attachment, NEVER);
    await startOne(containers, cgroups, []);
    return durationMs;
  };
}

/** The smallest bundle that runc itself writes: no overlay, no seccomp filter, no network. */
async function runc(containers: TestContainers): Promise<Contender> {
  const bundle = join(containers.directory, "bundle");
  await mkdir(bundle);
  await cp(containers.layer, join(bundle, "rootfs"), { recursive: true, verbatimSymlinks: true });
  await execute("runc", ["spec"], { cwd: bundle });
  const { stdout } = await execute("cat", [join(bundle, "config.json")]);
  const spec = JSON.parse(stdout) as { readonly process: object };
  const process = { ...spec.process, terminal: false, args: ["true"] };
  await writeFile(join(bundle, "config.json"), JSON.stringify({ ...spec, process }));
  const root = join(containers.directory, "runc");
  const run = (round: number) => timed(() => execute("runc", ["--root", root, "run", "-b", bundle, `bench-${round}`]));
  return { name: "runc run", every: PEER_EVERY, run };
}

/** What a whole engine takes, its client included. */
async function measureDocker(): Promise<Figure[]> {
  await using engine = await DockerEngine.start();
  const figures: Figure[] = [];
  for (const network of ["none", "bridge"]) {
    const values: number[] = [];
    for (let round = 0; round <= ROUNDS / PEER_EVERY; round++) {
      values.push(await timed(() => engine.docker("run", "--rm", "--network", network, IMAGE, "true")));
    }
    figures.push({
      name: `docker run --rm, network ${network}, p50`,
      value: percentiles(values.slice(1)).p50,
      unit: "ms",
    });
  }
  return figures;
}

if (import.meta.main) process.stdout.write(JSON.stringify(await measureAll()));
