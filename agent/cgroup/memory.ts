/**
 * The memory controller: OCI memory resources as knobs of cgroup v1 and v2.
 * Sources: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst "Memory Interface Files".
 */
import type { OciResources } from "../runtime/oci.ts";
import { type Knob, limitKnob } from "./knob.ts";

type Memory = NonNullable<OciResources["memory"]>;

/** Order matters: a new cgroup's memsw limit is infinite and must never lie below the memory limit. */
export function memoryKnobsV1(memory: Memory): readonly Knob[] {
  const knobs: Knob[] = [];
  if (memory.limit !== undefined) knobs.push(limitKnob("memory.limit_in_bytes", memory.limit, "-1"));
  if (memory.swap !== undefined) {
    // A kernel without swap accounting has no memsw files; what was asked for beyond "none beside memory" cannot be had there.
    knobs.push(
      limitKnob("memory.memsw.limit_in_bytes", memory.swap, "-1", {
        optional: memory.swap < 0 || memory.swap === memory.limit,
      }),
    );
  }
  if (memory.reservation !== undefined) {
    knobs.push(limitKnob("memory.soft_limit_in_bytes", memory.reservation, "-1", { optional: true }));
  }
  if (memory.swappiness !== undefined) knobs.push({ file: "memory.swappiness", value: String(memory.swappiness) });
  if (memory.disableOOMKiller === true) knobs.push({ file: "memory.oom_control", value: "1" });
  return knobs;
}

/** v2 counts swap alone where OCI and v1 count memory plus swap. Swappiness and the OOM switch do not exist there (see `plan`). */
export function memoryKnobsV2(memory: Memory): readonly Knob[] {
  const knobs: Knob[] = [];
  if (memory.limit !== undefined) knobs.push(limitKnob("memory.max", memory.limit, "max"));
  if (memory.swap !== undefined) {
    const swap = memory.swap < 0 || memory.limit === undefined ? -1 : Math.max(0, memory.swap - memory.limit);
    knobs.push(limitKnob("memory.swap.max", swap, "max", { optional: swap <= 0 }));
  }
  if (memory.reservation !== undefined) knobs.push(limitKnob("memory.low", memory.reservation, "max"));
  return knobs;
}
