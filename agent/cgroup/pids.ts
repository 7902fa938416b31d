/** The pids controller: how many tasks (threads count too) may exist; the file is named alike in cgroup v1 and v2. */
import type { OciResources } from "../runtime/oci.ts";
import type { Knob } from "./knob.ts";

/** OCI says 0 or less for "no limit". */
export function pidsKnobs(pids: NonNullable<OciResources["pids"]>): readonly Knob[] {
  return [{ file: "pids.max", value: pids.limit > 0 ? String(pids.limit) : "max" }];
}
