/** Checks of a volume's definition: as an object of its own, and as a mount that makes one. */

import type { VolumeSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { FieldProblem } from "../base/error.ts";
import { quoted } from "./units.ts";
import { Problems } from "./validate-parts.ts";
import { readVolumeOptions } from "./volume-options.ts";

/** Docker's grammar; it becomes a directory's name. */
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

export function isVolumeName(name: string): boolean {
  return VOLUME_NAME.test(name);
}

/** Every bad field of a volume. */
export function volumeProblems(spec: VolumeSpec): readonly FieldProblem[] {
  const problems = new Problems();
  if (!isVolumeName(spec.name)) {
    problems.add("name", `invalid volume name ${quoted(spec.name)}: letters, digits and _.-, at most 255`);
  }
  problems.labels("labels", spec.labels);
  checkVolumeDriver({ driver: "driver", options: "options" }, spec, problems);
  return problems.list;
}

/** The driver and its options, under the names that the fields have where they are written. */
export function checkVolumeDriver(
  fields: { readonly driver: string; readonly options: string },
  { driver, options }: Pick<VolumeSpec, "driver" | "options">,
  problems: Problems,
): void {
  if (driver !== "" && driver !== "local") {
    problems.add(fields.driver, `${quoted(driver)}: volume drivers are not supported, only local is`);
    return;
  }
  const source = readVolumeOptions(options);
  if (!source.ok) problems.add(fields.options, source.problem);
}
