/** What managers have written down of changes. */

import { create } from "@bufbuild/protobuf";
import { invalidFields } from "../../common/base/error.ts";
import type { ReadAuditRequest } from "../../proto/gen/swarm/v1/audit_pb.js";
import { type ListAuditResponse, ListAuditResponseSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ControlDependencies } from "./dependencies.ts";

const RECORDS_MAX = 10_000;

export async function listAudit(
  { audits }: ControlDependencies,
  request: ReadAuditRequest,
  signal: AbortSignal,
): Promise<ListAuditResponse> {
  if (request.limit < 1 || request.limit > RECORDS_MAX) {
    throw invalidFields([{ field: "limit", problem: `must be from 1 to ${RECORDS_MAX}` }]);
  }
  const { records, unreachable } = await audits.read(request, signal);
  return create(ListAuditResponseSchema, { records: [...records], unreachable: [...unreachable] });
}
