import { toTimestamp } from "../../common/model/duration.ts";
import { escapeControls } from "../../common/model/text.ts";
import type { AuditRecord } from "../../proto/gen/swarm/v1/audit_pb.js";
import type { Command, Invocation } from "../command.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { parseSinceMs } from "../flags/since.ts";
import { flagValue, integerFlag } from "../flags/values.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { timeJson } from "../output/json-parts.ts";

const LIMIT_DEFAULT = 100;

export const command: Command = {
  usage: "audit ls [OPTIONS]",
  summary: "List who changed what, by the records of all managers",
  flags: {
    format: LIST_FLAGS.format,
    since: { kind: "text", value: "string", help: 'Only from then on (e.g. "2026-01-02T13:23:37Z" or "42m")' },
    limit: {
      kind: "text",
      short: "n",
      value: "int",
      help: "The newest so many, 1 to 10000",
      default: String(LIMIT_DEFAULT),
    },
  },
  words: { min: 0, max: 0 },
  run,
};

const LISTING: Listing = {
  columns: {
    Time: "TIME",
    Who: "WHO",
    From: "FROM",
    Method: "METHOD",
    Object: "OBJECT",
    Detail: "DETAIL",
    Result: "RESULT",
    Revision: "REVISION",
  },
  more: {
    Role: "ROLE",
    Serial: "SERIAL",
    Kind: "KIND",
    Name: "NAME",
    ID: "ID",
    Reason: "REASON",
    Manager: "MANAGER",
    Omitted: "OMITTED",
  },
  key: "Time",
};

async function run({ flags, io, clock, connect }: Invocation): Promise<number> {
  const limit = integerFlag(flags, "limit", { min: 1, max: 10_000 }) ?? LIMIT_DEFAULT;
  const sinceMs = flagValue(flags, "since", (text) => parseSinceMs(text, clock.nowMs()));
  const client = await connect();
  const since = sinceMs === undefined ? {} : { since: toTimestamp(sinceMs) };
  const { records, unreachable } = await client.listAudit({ limit, ...since });
  io.out(renderList(LISTING, records.map(rowOf), { format: flags.text("format") }));
  for (const manager of unreachable) io.err(`swarmctl: without the records of manager ${escapeControls(manager)}\n`);
  return unreachable.length === 0 ? 0 : 1;
}

function rowOf(record: AuditRecord): Row {
  const { who, from, method, kind, name, id, detail, result, reason, revision } = record;
  return {
    Time: timeJson(record.at)?.replace(/\.\d+Z$/, "Z") ?? "",
    Who: who,
    From: from,
    Method: method,
    Object: `${kind} ${name || id}`.trim(),
    Detail: detail,
    Result: result,
    Revision: String(revision),
    Role: record.role,
    Serial: record.serial,
    Kind: kind,
    Name: name,
    ID: id,
    Reason: reason,
    Manager: record.managerId,
    Omitted: String(record.omitted),
  };
}
