/** The records of every manager: each keeps those of the changes that came through it. */
import { type Clock, withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { timestampMs } from "../../common/model/duration.ts";
import type { AuditRecord, ReadAuditRequest } from "../../proto/gen/swarm/v1/audit_pb.js";
import type { AuditLogs } from "../control/dependencies.ts";
import type { View } from "../store/view.ts";
import type { Audit } from "./audit.ts";

/** What another manager answers. */
export type AuditPeers = (
  address: string,
  request: ReadAuditRequest,
  signal: AbortSignal,
) => Promise<readonly AuditRecord[]>;

/** What gathering stands on. */
export interface GatheringOptions {
  readonly view: Pick<View, "managers">;
  readonly clock: Clock;
  readonly managerId: string;
  /** This manager's. */
  readonly audit: Pick<Audit, "read">;
  /** The others'. */
  readonly peers: AuditPeers | undefined;
}

/** Within the 5 s that a caller waits. */
const PEER_MS_MAX = 3_000;

export function gatheredAudits({ view, clock, managerId, audit, peers }: GatheringOptions): AuditLogs {
  return {
    async read(request, signal) {
      const own = await audit.read(request);
      const others = peers ? [...view.managers.values()].filter(({ id }) => id !== managerId) : [];
      const unreachable: string[] = [];
      const theirs = await Promise.all(
        others.map(async ({ address, hostname }) => {
          const options = { clock, timeoutMs: PEER_MS_MAX, operation: "read the audit log" };
          try {
            return (await withTimeout(options, signal, async (inner) => peers?.(address, request, inner))) ?? [];
          } catch (reason) {
            if (signal.aborted) throw reason;
            unreachable.push(`${hostname} (${address}): ${SwarmError.from(reason).message}`);
            return [];
          }
        }),
      );
      const records = [own, ...theirs].flat().sort((left, right) => atMs(left) - atMs(right));
      return { records: records.slice(-request.limit), unreachable };
    },
  };
}

function atMs({ at }: AuditRecord): number {
  return timestampMs(at) ?? 0;
}
