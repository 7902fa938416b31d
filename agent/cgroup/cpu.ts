/**
 * The cpu controller: shares and quota as knobs of cgroup v1 and v2.
 * Sources: Documentation/scheduler/sched-bwc.rst and cgroup-v2.rst "CPU Interface Files".
 */
import type { OciResources } from "../runtime/oci.ts";
import { type Knob, limitKnob } from "./knob.ts";

type Cpu = NonNullable<OciResources["cpu"]>;

/** The kernel's default period, µs. Shorter ones throttle more smoothly and cost more timer interrupts. */
export const CPU_PERIOD_US = 100_000;

/** The period must be there before a quota that only fits the longer one. */
export function cpuKnobsV1(cpu: Cpu): readonly Knob[] {
  const knobs: Knob[] = [];
  if (cpu.shares !== undefined) knobs.push({ file: "cpu.shares", value: String(cpu.shares) });
  if (cpu.period !== undefined) knobs.push({ file: "cpu.cfs_period_us", value: String(cpu.period) });
  if (cpu.quota !== undefined) knobs.push(limitKnob("cpu.cfs_quota_us", cpu.quota, "-1"));
  return knobs;
}

/** Quota and period share a file there, and shares become a weight. */
export function cpuKnobsV2(cpu: Cpu): readonly Knob[] {
  const knobs: Knob[] = [];
  if (cpu.shares !== undefined) knobs.push({ file: "cpu.weight", value: String(weightOfShares(cpu.shares)) });
  if (cpu.quota !== undefined || cpu.period !== undefined) {
    const quota = cpu.quota === undefined || cpu.quota < 0 ? "max" : String(cpu.quota);
    knobs.push({ file: "cpu.max", value: `${quota} ${cpu.period ?? CPU_PERIOD_US}` });
  }
  return knobs;
}

/** Shares 2…262144 (default 1024) onto weights 1…10000, linearly as the OCI runtimes and systemd do. */
function weightOfShares(shares: number): number {
  const clamped = Math.min(262_144, Math.max(2, shares));
  return 1 + Math.floor(((clamped - 2) * 9999) / 262_142);
}
