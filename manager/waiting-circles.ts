import type { FieldProblem } from "../common/base/error.ts";
import { findCycle } from "../common/model/dependency-cycle.ts";
import type { ServiceSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { View } from "./store/view.ts";

/** Services that would wait for one another for ever, were `specs` written beside what there is. Pure. */
export function circleProblems(
  view: Pick<View, "services" | "specVersion">,
  specs: readonly ServiceSpec[],
): readonly FieldProblem[] {
  if (specs.every(({ dependsOn }) => dependsOn.length === 0)) return [];
  const waitsFor = new Map<string, readonly string[]>();
  for (const { id, name, specVersion } of view.services.values()) {
    waitsFor.set(name, namesOf(view.specVersion(id, specVersion)?.spec));
  }
  for (const spec of specs) waitsFor.set(spec.name, namesOf(spec));
  const circle = findCycle(waitsFor);
  return circle ? [{ field: "depends_on", problem: `services wait for one another: ${circle.join(" -> ")}` }] : [];
}

function namesOf(spec: ServiceSpec | undefined): readonly string[] {
  return spec?.dependsOn.map(({ service }) => service) ?? [];
}
