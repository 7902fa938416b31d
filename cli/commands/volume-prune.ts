import { SwarmError } from "../../common/base/error.ts";
import { formatBytesDecimal } from "../../common/model/units.ts";
import type { VolumeView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { confirm } from "../confirm.ts";
import { longFilterFlag, parseFilters, passesLabels } from "../filters.ts";
import { labelsOf } from "../output/volume-words.ts";

const FILTERS = ["label", "label!"];

export const command: Command = {
  usage: "volume prune [OPTIONS]",
  summary: "Remove unused volumes, with their data on every node",
  flags: {
    all: { kind: "boolean", short: "a", help: "Remove all unused volumes, not just anonymous ones" },
    filter: longFilterFlag(FILTERS),
    force: { kind: "boolean", short: "f", help: "Do not prompt for confirmation" },
  },
  words: { min: 0, max: 0 },
  async run({ flags, io, connect }) {
    const filters = parseFilters(flags.list("filter"), FILTERS);
    if (!flags.on("all")) {
      // Docker's default is about anonymous volumes, which here go with their tasks.
      io.err("swarmctl: anonymous volumes go with their tasks: --all removes unused volumes that have a name\n");
      io.out("Total reclaimed space: 0B\n");
      return 0;
    }
    const warning = "WARNING! This will remove all local volumes not used by at least one service, with their data.";
    if (!flags.on("force") && !(await confirm(io, warning))) return 1;
    const client = await connect();
    const { volumes } = await client.listVolumes({});
    const unused = volumes.filter((volume) => volume.serviceNames.length === 0);
    const deleted: string[] = [];
    let reclaimed = 0;
    let code = 0;
    for (const volume of unused.filter((each) => passesLabels(filters, "label", labelsOf(each)))) {
      try {
        await client.removeVolume({ name: volume.name });
        deleted.push(volume.name);
        reclaimed += sizeOf(volume);
      } catch (reason) {
        // Used since, or on a node that is down: the others are none the worse for it.
        if (!(reason instanceof SwarmError) || reason.code !== "failed_precondition") throw reason;
        io.err(`swarmctl: ${reason.message}\n`);
        code = 1;
      }
    }
    if (deleted.length > 0) io.out(`Deleted Volumes:\n${deleted.join("\n")}\n\n`);
    io.out(`Total reclaimed space: ${formatBytesDecimal(reclaimed)}\n`);
    return code;
  },
};

function sizeOf({ copies }: VolumeView): number {
  return copies.reduce((sum, { volume }) => sum + Number(volume?.sizeBytes ?? 0n), 0);
}
