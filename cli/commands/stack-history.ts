import { timestampMs } from "../../common/model/duration.ts";
import { humanDuration } from "../../common/model/units.ts";
import type { Command, Invocation } from "../command.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, renderList } from "../output/format.ts";

export const command: Command = {
  usage: "stack history [OPTIONS] STACK",
  summary: "Show the revisions of a stack, newest first",
  flags: LIST_FLAGS,
  words: { min: 1, max: 1 },
  run,
};

const LISTING: Listing = {
  columns: { Revision: "REVISION", CreatedSince: "CREATED", Message: "MADE BY" },
  key: "Revision",
};

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const { revisions } = await (await connect()).listStackRevisions({ name: words[0] ?? "" });
  const rows = revisions.toReversed().map(({ revision, createdAt, message }) => ({
    Revision: String(revision),
    CreatedSince: `${humanDuration(Math.max(0, clock.nowMs() - (timestampMs(createdAt) ?? 0)))} ago`,
    Message: message,
  }));
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
  return 0;
}
