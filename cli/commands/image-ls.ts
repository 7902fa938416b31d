import { timestampMs } from "../../common/model/duration.ts";
import { familiarRepository, parseImageReference } from "../../common/model/image-reference.ts";
import { formatBytesDecimal, humanDuration } from "../../common/model/units.ts";
import type { Image } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Command, Invocation } from "../command.ts";
import { filterFlag, parseFilters, passes } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { shortId } from "../output/words.ts";

const FILTERS = ["reference"];

export const command: Command = {
  usage: "image ls [OPTIONS] [IMAGE...]",
  summary: "List the cluster's images",
  flags: {
    ...LIST_FLAGS,
    digests: { kind: "boolean", help: "Show digests" },
    filter: filterFlag(FILTERS),
    "no-trunc": { kind: "boolean", help: "Don't truncate output" },
  },
  words: { min: 0, max: Number.POSITIVE_INFINITY },
  run,
};

const LISTING: Listing = {
  columns: { Repository: "REPOSITORY", Tag: "TAG", ID: "IMAGE ID", CreatedSince: "LOADED", Size: "SIZE" },
  more: { Digest: "DIGEST", Platform: "PLATFORM", CreatedAt: "CREATED AT" },
  key: "ID",
};

const WITH_DIGESTS: Listing = {
  ...LISTING,
  columns: {
    Repository: "REPOSITORY",
    Tag: "TAG",
    Digest: "DIGEST",
    ID: "IMAGE ID",
    CreatedSince: "LOADED",
    Size: "SIZE",
  },
};

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const filters = parseFilters(flags.list("filter"), FILTERS);
  const client = await connect();
  const { images } = await client.listImages({ references: [...words] });
  const full = flags.on("no-trunc");
  const all = images.flatMap((image) => rowsOf(image, { full, nowMs: clock.nowMs() }));
  const rows = all.filter(({ Repository = "", Tag = "" }) =>
    passes(filters, "reference", (pattern) => {
      const matches = globOf(pattern);
      return matches.test(Repository) || matches.test(`${Repository}:${Tag}`);
    }),
  );
  const quiet = flags.on("quiet");
  const shown = quiet ? [...new Map(rows.map((row) => [row.ID, row])).values()] : rows;
  io.out(renderList(flags.on("digests") ? WITH_DIGESTS : LISTING, shown, { format: flags.text("format"), quiet }));
  return 0;
}

/** Docker's patterns (Go's path.Match): `*` and `?` stand for what is no slash. */
function globOf(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll(/\*+/g, "[^/]*")
    .replaceAll("?", "[^/]");
  return new RegExp(`^${source}$`);
}

/** One row per name, as `docker image ls` has it. */
function rowsOf(image: Image, { full, nowMs }: { readonly full: boolean; readonly nowMs: number }): readonly Row[] {
  const createdMs = timestampMs(image.meta?.createdAt) ?? nowMs;
  const common = {
    ID: full ? image.manifestDigest : shortId(image.id),
    CreatedSince: `${humanDuration(nowMs - createdMs)} ago`,
    CreatedAt: new Date(createdMs).toISOString(),
    Size: formatBytesDecimal(Number(image.sizeBytes)),
    Digest: image.manifestDigest,
    Platform: `${image.platform?.os ?? ""}/${image.platform?.architecture ?? ""}`,
  };
  if (image.names.length === 0) return [{ Repository: "<none>", Tag: "<none>", ...common }];
  return image.names.map((name) => {
    const parsed = parseImageReference(name);
    const [repository, tag] = parsed.ok
      ? [familiarRepository(parsed.reference), parsed.reference.tag ?? "<none>"]
      : [name, "<none>"];
    return { Repository: repository, Tag: tag, ...common };
  });
}
