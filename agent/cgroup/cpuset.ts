/** The cpuset controller: which processors and memory nodes; the files are named alike in cgroup v1 and v2. */
import type { OciResources } from "../runtime/oci.ts";
import type { Knob } from "./knob.ts";

/** Empty when the container may run anywhere: then it needs no cpuset cgroup at all. */
export function cpusetKnobs(cpu: NonNullable<OciResources["cpu"]>): readonly Knob[] {
  const knobs: Knob[] = [];
  if (cpu.cpus !== undefined && cpu.cpus !== "") knobs.push({ file: "cpuset.cpus", value: cpu.cpus });
  if (cpu.mems !== undefined && cpu.mems !== "") knobs.push({ file: "cpuset.mems", value: cpu.mems });
  return knobs;
}
