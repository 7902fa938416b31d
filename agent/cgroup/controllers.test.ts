// Goal: every resource lands in the right file of v1 and of v2. Method: tables of knobs.
import { describe, expect, test } from "vitest";
import type { OciResources } from "../runtime/oci.ts";
import { cpuKnobsV1, cpuKnobsV2 } from "./cpu.ts";
import { cpusetKnobs } from "./cpuset.ts";
import { DEFAULT_DEVICE_RULES, deviceKnobsV1 } from "./devices.ts";
import type { Knob } from "./knob.ts";
import { memoryKnobsV1, memoryKnobsV2 } from "./memory.ts";
import { pidsKnobs } from "./pids.ts";

function text(knobs: readonly Knob[]): string {
  return knobs.map(({ file, value, optional }) => `${file}=${value}${optional === true ? "?" : ""}`).join("; ");
}

const MiB = 2 ** 20;

describe("memory", () => {
  test.each<[NonNullable<OciResources["memory"]>, string, string]>([
    [{}, "", ""],
    [{ limit: 64 * MiB }, "memory.limit_in_bytes=67108864", "memory.max=67108864"],
    [
      { limit: 64 * MiB, swap: 64 * MiB },
      "memory.limit_in_bytes=67108864; memory.memsw.limit_in_bytes=67108864?",
      "memory.max=67108864; memory.swap.max=0?",
    ],
    [
      { limit: 64 * MiB, swap: 96 * MiB, reservation: 32 * MiB },
      "memory.limit_in_bytes=67108864; memory.memsw.limit_in_bytes=100663296; memory.soft_limit_in_bytes=33554432?",
      "memory.max=67108864; memory.swap.max=33554432; memory.low=33554432",
    ],
    [
      { limit: -1, swap: -1 },
      "memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=-1?",
      "memory.max=max; memory.swap.max=max?",
    ],
    [{ swappiness: 0, disableOOMKiller: true }, "memory.swappiness=0; memory.oom_control=1", ""],
  ])("%j", (memory, v1, v2) => {
    expect(text(memoryKnobsV1(memory))).toBe(v1);
    expect(text(memoryKnobsV2(memory))).toBe(v2);
  });
});

describe("cpu", () => {
  test.each<[NonNullable<OciResources["cpu"]>, string, string]>([
    [{}, "", ""],
    [{ quota: 50_000, period: 100_000 }, "cpu.cfs_period_us=100000; cpu.cfs_quota_us=50000", "cpu.max=50000 100000"],
    [{ quota: 25_000 }, "cpu.cfs_quota_us=25000", "cpu.max=25000 100000"],
    [{ quota: -1 }, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"],
    [{ shares: 1024 }, "cpu.shares=1024", "cpu.weight=39"],
    [{ shares: 2 }, "cpu.shares=2", "cpu.weight=1"],
    [{ shares: 262_144 }, "cpu.shares=262144", "cpu.weight=10000"],
  ])("%j", (cpu, v1, v2) => {
    expect(text(cpuKnobsV1(cpu))).toBe(v1);
    expect(text(cpuKnobsV2(cpu))).toBe(v2);
  });

  test("cpuset only when pinned", () => {
    expect(text(cpusetKnobs({ shares: 2, cpus: "", mems: "" }))).toBe("");
    expect(text(cpusetKnobs({ cpus: "0-1", mems: "0" }))).toBe("cpuset.cpus=0-1; cpuset.mems=0");
  });
});

test("pids", () => {
  expect([2048, 1, 0, -1].map((limit) => text(pidsKnobs({ limit }))).join("; ")).toBe(
    "pids.max=2048; pids.max=1; pids.max=max; pids.max=max",
  );
});

test("devices of v1", () => {
  expect(deviceKnobsV1(DEFAULT_DEVICE_RULES).map(({ file, value }) => `${file} ${value}`)).toMatchInlineSnapshot(`
    [
      "devices.deny a *:* rwm",
      "devices.allow c 1:3 rwm",
      "devices.allow c 1:5 rwm",
      "devices.allow c 1:7 rwm",
      "devices.allow c 1:8 rwm",
      "devices.allow c 1:9 rwm",
      "devices.allow c 5:0 rwm",
      "devices.allow c 5:1 rwm",
      "devices.allow c 5:2 rwm",
      "devices.allow c 136:* rwm",
    ]
  `);
});
