/** Two services cannot have the same published port: the second is refused by name (SwarmKit: checkPortConflicts). Pure. */
import type { FieldProblem } from "../../common/base/error.ts";
import { isIngress, samePublishedPort } from "../../common/model/ports.ts";
import type { PortConfig, ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** The first of `held` that `port` cannot stand beside in the cluster. */
export function clashingPort(port: PortConfig, held: readonly PortConfig[]): PortConfig | undefined {
  return port.publishedPort === 0 ? undefined : held.find((other) => clashes(port, other));
}

/** Ports of `spec` that another service has. A host-mode port clashes with ingress ports only: nodes settle the rest. */
export function portConflicts(view: View, spec: ServiceSpec, ownId: string | undefined): readonly FieldProblem[] {
  const wanted = spec.endpoint?.ports.filter(({ publishedPort }) => publishedPort !== 0) ?? [];
  if (wanted.length === 0) return [];
  const problems: FieldProblem[] = [];
  for (const service of view.services.values()) {
    if (service.id === ownId) continue;
    const held = heldPorts(view, service.id);
    if (held.length === 0) continue;
    wanted.forEach((port, index) => {
      const clash = held.find((other) => clashes(port, other));
      if (clash === undefined) return;
      const mode = isIngress(clash) ? "an ingress" : "a host-published";
      problems.push({
        field: `ports[${index}]`,
        problem: `port '${port.publishedPort}' is already in use by service '${service.name}' (${service.id}) as ${mode} port`,
      });
    });
  }
  return problems;
}

/** What a service has been given, and what its newest spec asks for and will be given. */
export function heldPorts(view: View, serviceId: string): readonly PortConfig[] {
  const service = view.services.get(serviceId);
  const asked = view.specVersion(serviceId, service?.specVersion ?? 0n)?.spec?.endpoint?.ports ?? [];
  return [...(service?.ports ?? []), ...asked];
}

function clashes(left: PortConfig, right: PortConfig): boolean {
  return samePublishedPort(left, right) && (isIngress(left) || isIngress(right));
}
