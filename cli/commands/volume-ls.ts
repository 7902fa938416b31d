import { formatBytesDecimal } from "../../common/model/units.ts";
import type { VolumeView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { BOOLEAN_WORDS, type Filters, filterFlag, isYes, parseFilters, passes, passesLabels } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { LABELS, type Listing, type Row, renderList } from "../output/format.ts";
import { labelsOf } from "../output/volume-words.ts";

const FILTERS = ["dangling", "driver", "label", "name", "node"];

/** Docker's columns, then ours: where the data is, and how much. */
const LISTING: Listing = {
  columns: { Driver: "DRIVER", Name: "VOLUME NAME", Nodes: "NODES", Size: "SIZE" },
  key: "Name",
};

export const command: Command = {
  usage: "volume ls [OPTIONS]",
  summary: "List the volumes of all nodes",
  flags: { ...LIST_FLAGS, filter: filterFlag(FILTERS) },
  words: { min: 0, max: 0 },
  async run({ flags, io, connect }) {
    const filters = parseFilters(flags.list("filter"), FILTERS, { dangling: BOOLEAN_WORDS });
    const { volumes } = await (await connect()).listVolumes({});
    const rows = volumes.filter((volume) => isWanted(volume, filters)).map(rowOf);
    io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
    return 0;
  },
};

function isWanted(view: VolumeView, filters: Filters): boolean {
  const { name, copies, serviceNames } = view;
  const isDangling = serviceNames.length === 0;
  return (
    passes(filters, "dangling", (value) => isYes(value) === isDangling) &&
    passes(filters, "driver", (value) => value === "local") &&
    passesLabels(filters, "label", labelsOf(view)) &&
    passes(filters, "name", (value) => name.includes(value)) &&
    passes(filters, "node", (value) => copies.some(({ nodeId, hostname }) => hostname === value || nodeId === value))
  );
}

function rowOf(view: VolumeView): Row {
  const { name, copies, serviceNames } = view;
  const sizes = copies.map(({ volume }) => volume?.sizeBytes);
  const known = sizes.filter((size) => size !== undefined);
  const total = known.reduce((sum, size) => sum + Number(size), 0);
  return {
    Driver: "local",
    Name: name,
    Nodes: copies.map(({ nodeId, hostname }) => hostname || nodeId).join(","),
    // As Docker says of a size that it does not know.
    Size: known.length < sizes.length ? "N/A" : formatBytesDecimal(total),
    Labels: Object.entries(labelsOf(view))
      .map(([key, value]) => `${key}=${value}`)
      .join(","),
    [LABELS]: labelsOf(view),
    Services: serviceNames.join(","),
    Scope: "local",
  };
}
