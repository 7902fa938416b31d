/** Container start: how long the agent's runtime takes for create, start and exit of `true` with all isolation on. */
import { type CgroupManager, openCgroups } from "../../agent/cgroup/manager.ts";
import { DEFAULT_CAPABILITIES } from "../../agent/runtime/capabilities.ts";
import { compileSeccomp } from "../../agent/runtime/seccomp.ts";
import { defaultSeccompProfile } from "../../agent/runtime/seccomp-profile.ts";
import { architectureOf } from "../../agent/runtime/syscalls.ts";
import { type ContainerOverrides, NEVER, TestContainers } from "../../agent/runtime/test-root.ts";
import { systemClock } from "../../common/base/clock.ts";
import type { Figure } from "./figure.ts";
import { percentiles, privateKib } from "./measure.ts";

/** 256 MiB and one processor: what a limited service asks for. */
const RESOURCES = { memory: { limit: 256 << 20 }, cpu: { quota: 100_000, period: 100_000 }, pids: { limit: 2048 } };

const WARM_UP = 50;

/** Starts `count` containers one after another: six namespaces, overlay, masks, filter; no network. Needs root. */
export async function measureContainerStart(count = 200): Promise<readonly Figure[]> {
  await using containers = await TestContainers.create();
  const architecture = architectureOf(process.arch) ?? "x86_64";
  const profile = defaultSeccompProfile({ architecture, capabilities: DEFAULT_CAPABILITIES });
  const base = { seccomp: { filter: compileSeccomp(profile, architecture) } };
  const cgroups = await openCgroups(systemClock, `/swarm-bench-${process.pid}`);
  try {
    // The first ones pay for cold caches, the kernel's and V8's.
    for (let index = 0; index < WARM_UP; index++) await startOne(containers, base);
    const bare: number[] = [];
    for (let index = 0; index < count; index++) bare.push(await startOne(containers, base));
    const limited: number[] = [];
    for (let index = 0; index < count; index++) limited.push(await startLimited(containers, base, cgroups));
    return [
      { name: "create, start, exit without cgroup, p50", value: percentiles(bare).p50, unit: "ms", goal: 5 },
      { name: "create, start, exit, p50", value: percentiles(limited).p50, unit: "ms", goal: 5 },
      { name: "create, start, exit, p99", value: percentiles(limited).p99, unit: "ms" },
      { name: "supervisor, private memory", value: await supervisorKib(containers, base), unit: "KiB", goal: 100 },
    ];
  } finally {
    await cgroups.removeParent();
  }
}

async function startOne(containers: TestContainers, overrides: ContainerOverrides): Promise<number> {
  const plan = await containers.plan(["true"], overrides);
  const beganMs = performance.now();
  await using supervisor = await containers.start(plan);
  await supervisor.ended;
  return performance.now() - beganMs;
}

async function startLimited(
  containers: TestContainers,
  base: ContainerOverrides,
  cgroups: CgroupManager,
): Promise<number> {
  const { hostOps, membership } = cgroups.plan("bench", RESOURCES);
  const durationMs = await startOne(containers, { ...base, cgroup: { hostOps, membership } });
  await cgroups.remove("bench", NEVER);
  return durationMs;
}

async function supervisorKib(containers: TestContainers, base: ContainerOverrides): Promise<number> {
  await using supervisor = await containers.start(await containers.plan(["sleep", "1000"], base));
  const { supervisorPid } = await supervisor.state(NEVER);
  const kib = privateKib(supervisorPid);
  await supervisor.signal({ number: 9, all: false }, NEVER);
  await supervisor.ended;
  return kib;
}
