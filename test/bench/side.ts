/** A comparison's plot: a cluster of one node runs N copies of `busybox sleep`. Each side plays it in the same way. */
import type { Figure } from "./figure.ts";
import { MemoryGroup, mean, percentiles, privateKib, removeCgroups, residentMb, sum, timed, until } from "./measure.ts";

/** What the benchmark needs of a cluster, ours or a peer's. */
export interface Side extends AsyncDisposable {
  /** The program that a user types. */
  run(...args: readonly string[]): Promise<string>;
  /** The image of `busybox sleep`, which the node has already. */
  readonly image: string;
  /** Options of `service create` that only this side needs. */
  readonly createOptions: readonly string[];
  /** "51/51", what `service ls` shows, asked of the API: a process for each question would slow down what it watches. */
  replicas(service: string): Promise<string>;
  /** Containers on the node's disk, running or not. */
  containers(): Promise<number>;
  /** Process ids of the programs that run all the time, by what they are called. */
  programs(): Readonly<Record<string, readonly number[]>>;
  /** Process ids of what stands above the containers, one per container. */
  supervisors(): readonly number[];
  /** The cgroup that the containers' cgroups are in. */
  readonly cgroupParent: string;
}

const SERVICE = "sleep";

/** A step of a plot: so many copies more. */
interface Step {
  readonly from: number;
  readonly to: number;
  readonly goalMs?: number;
}

const STEPS: readonly Step[] = [
  { from: 1, to: 51, goalMs: 500 },
  { from: 51, to: 101, goalMs: 500 },
  { from: 101, to: 201, goalMs: 1_000 },
];
/** As many containers as a host should hold. */
const MANY: readonly Step[] = [{ from: 1, to: 2_500 }];
/** Docker Swarm takes 19 s for its longest step on an idle machine; 2,500 containers take minutes on a busy one. */
const TIMEOUT_MS = 600_000;
const LIST_ROUNDS = 30;
const RSS_GOALS_MB: Readonly<Record<string, { readonly idle: number; readonly busy?: number }>> = {
  manager: { idle: 70 },
  agent: { idle: 60, busy: 80 },
};

/** Starts a side, scales 1→51→101→201, reads time and memory on the way, removes the service, ends the side. */
export function measureSide(start: () => Promise<Side>): Promise<Figure[]> {
  return play(start, STEPS);
}

/** The same with 1→2,500. */
export async function measureMany(start: () => Promise<Side>): Promise<Figure[]> {
  return (await play(start, MANY)).filter(({ name }) => !name.includes(" idle, "));
}

async function play(start: () => Promise<Side>, steps: readonly Step[]): Promise<Figure[]> {
  const count = steps.at(-1)?.to ?? 1;
  const group = `swarm-bench-${process.pid}`;
  await using cleanup = new AsyncDisposableStack();
  // When the side is gone: a group can be removed once its processes have ended.
  cleanup.defer(() => removeCgroups(group));
  const side = cleanup.use(await start());
  const figures = programFigures(side, "idle");
  await create(side);
  const programs = new MemoryGroup(group);
  programs.take(Object.values(side.programs()).flat());
  const containers = new MemoryGroup(side.cgroupParent);
  const readings = () => ({ programs: programs.kib(), containers: containers.kib() });
  const before = readings();
  for (const step of steps) figures.push(await scale(side, step));
  const after = readings();
  const perContainer = (part: "programs" | "containers") => (after[part] - before[part]) / (count - 1);
  const ownKib = mean(containers.processes(), privateKib);
  const [inside, outside] = [perContainer("containers") - ownKib, perContainer("programs")];
  figures.push(
    { name: "memory per container beyond its program's own", value: inside + outside, unit: "KiB", goal: 400 },
    { name: "  of it in the container's cgroup", value: inside, unit: "KiB" },
    { name: "  of it in the programs', supervisors included", value: outside, unit: "KiB" },
    { name: "supervisor per container, RSS", value: mean(side.supervisors(), residentMb) * 1024, unit: "KiB" },
    { name: "supervisor per container, private", value: mean(side.supervisors(), privateKib), unit: "KiB", goal: 100 },
    ...programFigures(side, `with ${count} containers`),
    await listing(side),
    await remove(side, count),
  );
  return figures;
}

async function create(side: Side): Promise<void> {
  const options = ["--name", SERVICE, "--replicas", "1", "--stop-grace-period", "1s", ...side.createOptions];
  await side.run("service", "create", "-d", ...options, side.image);
  await until(async () => (await side.replicas(SERVICE)) === "1/1", TIMEOUT_MS);
}

async function scale(side: Side, { from, to, goalMs }: Step): Promise<Figure> {
  const value = await timed(async () => {
    await side.run("service", "scale", "-d", `${SERVICE}=${to}`);
    await until(async () => (await side.replicas(SERVICE)) === `${to}/${to}`, TIMEOUT_MS);
  });
  return {
    name: `scale ${from}→${to} until service ls shows it`,
    value,
    unit: "ms",
    ...(goalMs !== undefined && { goal: goalMs }),
  };
}

async function listing(side: Side): Promise<Figure> {
  const values: number[] = [];
  for (let round = 0; round < LIST_ROUNDS; round++) values.push(await timed(() => side.run("service", "ls")));
  return { name: "service ls, whole process, p50", value: percentiles(values).p50, unit: "ms", goal: 120 };
}

async function remove(side: Side, count: number): Promise<Figure> {
  const value = await timed(async () => {
    await side.run("service", "rm", SERVICE);
    await until(async () => (await side.containers()) === 0, TIMEOUT_MS);
  });
  return { name: `service rm of ${count} until no container is left`, value, unit: "ms" };
}

/** Each program's resident memory, and that of all together, which a peer with fewer programs compares with. */
function programFigures(side: Side, when: "idle" | `with ${number} containers`): Figure[] {
  const programs = Object.entries(side.programs()).map(([name, pids]) => ({ name, value: sum(pids, residentMb) }));
  const all = { name: "all programs", value: sum(programs, ({ value }) => value) };
  return [...programs, all].map(({ name, value }) => {
    const { idle, busy } = RSS_GOALS_MB[name] ?? {};
    const goal = when === "idle" ? idle : when === "with 201 containers" ? busy : undefined;
    return { name: `${name} ${when}, RSS`, value, unit: "MB", ...(goal !== undefined && { goal }) };
  });
}
