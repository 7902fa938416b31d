/**
 * Who changed what: a record for each change that comes through this manager, with who, from where, on what, how it ended, and the
 * revision of the store by which it can be seen. To the manager's log, and to a file of its own that people keep.
 */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import type { Peer } from "../../common/rpc/service.ts";
import { type AuditRecord, AuditRecordSchema, type ReadAuditRequest } from "../../proto/gen/swarm/v1/audit_pb.js";
import { isKind, kinds } from "../store/kinds.ts";
import type { View } from "../store/view.ts";
import { shortened, type What } from "./changes.ts";

/** Where records are kept. */
export interface AuditStore {
  /** Never throws: a change that was made is not undone because nobody can write it down. */
  write(record: AuditRecord): void;
  /** The newest of them, oldest first. */
  read(request: Pick<ReadAuditRequest, "since" | "limit">): Promise<readonly AuditRecord[]>;
}

/** What an audit is made of. */
export interface AuditOptions {
  readonly view: Pick<View, "revision" | "byName">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly managerId: string;
  /** Absent: to the log only. */
  readonly store?: AuditStore | undefined;
}

/** How a change ended: well, badly, or not yet. */
export type Outcome = { readonly result: "ok" | "begun" } | { readonly failure: unknown };

/** Failed calls that are written down in a second: they cost the caller nothing, and must not push the rest out of the file. */
const FAILURES_PER_SECOND = 20;

export class Audit {
  readonly #options: AuditOptions;
  #failures = { sinceMs: 0, count: 0, omitted: 0 };

  constructor(options: AuditOptions) {
    this.#options = options;
  }

  /** Writes one change down. `method` is its name; `who`, where no certificate says it, in words. */
  record(
    change: { readonly peer: Peer; readonly method: string; readonly what: What; readonly who?: string },
    outcome: Outcome,
  ): void {
    const { clock, logger, managerId, view, store } = this.#options;
    if ("failure" in outcome && !this.#mayFail(clock.monotonicMs())) return;
    const { peer, method, what } = change;
    const { omitted } = this.#failures;
    this.#failures.omitted = 0;
    const record = create(AuditRecordSchema, {
      at: toTimestamp(clock.nowMs()),
      managerId,
      ...whoOf(peer, change.who),
      // Whose process it is at the other end of a socket, Node cannot tell.
      from: peer.identity?.kind === "host" ? "unix" : peer.address.replace(/^ipv[46]:/, ""),
      method,
      kind: what.kind,
      name: shortened(what.name),
      id: what.id || this.#idOf(what),
      detail: shortened(what.detail),
      ...resultOf(outcome),
      revision: BigInt(view.revision),
      omitted,
    });
    const { $typeName: _, at, revision, ...fields } = record;
    logger.info({ audit: true, ...fields, revision: Number(revision) }, "audit");
    store?.write(record);
  }

  /** What this manager has written down. */
  async read(request: Pick<ReadAuditRequest, "since" | "limit">): Promise<readonly AuditRecord[]> {
    return (await this.#options.store?.read(request)) ?? [];
  }

  #mayFail(nowMs: number): boolean {
    if (nowMs - this.#failures.sinceMs >= 1_000) this.#failures = { ...this.#failures, sinceMs: nowMs, count: 0 };
    this.#failures.count += 1;
    if (this.#failures.count <= FAILURES_PER_SECOND) return true;
    this.#failures.omitted += 1;
    return false;
  }

  /** Of what was just made by its name. */
  #idOf({ kind, name }: What): string {
    if (!isKind(kind) || !kinds[kind].namesUnique || !name) return "";
    return this.#options.view.byName(kind as Parameters<View["byName"]>[0], name)?.id ?? "";
  }
}

interface Who {
  readonly who: string;
  readonly role?: string;
  readonly serial?: string;
}

function whoOf({ identity }: Peer, said = "nobody"): Who {
  switch (identity?.kind) {
    case undefined:
      return { who: said };
    case "host":
      return { who: "host" };
    case "operator":
      return { who: shortened(`operator ${identity.name}`) };
    case "node":
      return { who: `node ${identity.nodeId}`, role: identity.role.replace(/^swarm-/, "") };
    case "user":
      return { who: `user ${identity.name}`, role: identity.role.replace(/^swarm-/, ""), serial: identity.serial };
  }
}

function resultOf(outcome: Outcome): Pick<AuditRecord, "result" | "reason"> {
  if ("result" in outcome) return { result: outcome.result, reason: "" };
  const { code, message } = SwarmError.from(outcome.failure, "internal");
  // Other messages may repeat what was sent.
  return { result: code, reason: code === "permission_denied" ? message.slice(0, 1_000) : "" };
}
