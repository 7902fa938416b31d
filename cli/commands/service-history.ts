import { timestampMs } from "../../common/model/duration.ts";
import { humanDuration } from "../../common/model/units.ts";
import { findService } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { timeJson } from "../output/json-parts.ts";
import { specChanges } from "../output/spec-diff.ts";
import { ellipsis } from "../output/table.ts";
import { shortImage } from "../output/words.ts";

export const command: Command = {
  usage: "service history [OPTIONS] SERVICE",
  summary: "List the versions of a service's spec, the newest first, and what each changed",
  flags: { ...LIST_FLAGS, "no-trunc": { kind: "boolean", help: "Don't truncate output" } },
  words: { min: 1, max: 1 },
  run,
};

const LISTING: Listing = {
  columns: { Version: "VERSION", CreatedSince: "CREATED", Image: "IMAGE", Changes: "CHANGES" },
  more: { CreatedAt: "CREATED AT", Current: "CURRENT" },
  key: "Version",
};
const CHANGES_LENGTH_MAX = 100;

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const client = await connect();
  const { service } = await findService(client, words[0] ?? "");
  const { versions } = await client.listSpecVersions({ serviceId: service.id });
  const sorted = versions.toSorted((left, right) => Number(left.version - right.version));
  const quiet = flags.on("quiet");
  const plain = quiet || flags.has("format");
  const rows = sorted.map(({ version, spec, createdAt }, index): Row => {
    const before = sorted[index - 1]?.spec;
    // The oldest kept version may have had forerunners that nobody remembers.
    const changes = before && spec ? specChanges(before, spec).join("; ") : version === 1n ? "created" : "";
    const image = spec?.task?.container?.image ?? "";
    const current = version === service.specVersion;
    return {
      Version: current && !plain ? `${version} *` : String(version),
      CreatedSince: `${humanDuration(Math.max(0, clock.nowMs() - (timestampMs(createdAt) ?? 0)))} ago`,
      CreatedAt: timeJson(createdAt) ?? "",
      Image: flags.on("no-trunc") ? image : shortImage(image),
      Changes: flags.on("no-trunc") ? changes : ellipsis(changes, CHANGES_LENGTH_MAX),
      Current: String(current),
    };
  });
  io.out(renderList(LISTING, rows.toReversed(), { format: flags.text("format"), quiet }));
  return 0;
}
