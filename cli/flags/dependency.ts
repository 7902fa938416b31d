/** `--depends-on db`, `db:healthy`, `migrate:completed`: what a service waits for. Pure. */
import { create } from "@bufbuild/protobuf";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import {
  type ServiceDependency,
  ServiceDependency_Condition,
  ServiceDependencySchema,
} from "../../proto/gen/swarm/v1/types_pb.js";

/** The short words, and compose's. */
const CONDITIONS: Readonly<Record<string, ServiceDependency_Condition>> = {
  started: ServiceDependency_Condition.STARTED,
  service_started: ServiceDependency_Condition.STARTED,
  healthy: ServiceDependency_Condition.HEALTHY,
  service_healthy: ServiceDependency_Condition.HEALTHY,
  completed: ServiceDependency_Condition.COMPLETED,
  service_completed_successfully: ServiceDependency_Condition.COMPLETED,
};

export function parseDependency(text: string): Parsed<ServiceDependency> {
  const [service = "", word = "started", ...more] = text.split(":");
  const condition = Object.hasOwn(CONDITIONS, word) ? CONDITIONS[word] : undefined;
  if (service === "" || more.length > 0) return bad("SERVICE or SERVICE:CONDITION");
  if (condition === undefined) return bad(`unknown condition ${JSON.stringify(word)}: started, healthy or completed`);
  return good(create(ServiceDependencySchema, { service, condition }));
}
