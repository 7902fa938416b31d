import { SwarmError } from "../../common/base/error.ts";
import { timestampMs } from "../../common/model/duration.ts";
import type { NetworkView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { confirm } from "../confirm.ts";
import { longFilterFlag, parseFilters, passesLabels } from "../filters.ts";
import { parseSinceMs } from "../flags/since.ts";
import { parsedOrThrow } from "../flags/values.ts";
import { isBuiltIn } from "../output/network-json.ts";

const FILTERS = ["label", "label!", "until"];

export const command: Command = {
  usage: "network prune [OPTIONS]",
  summary: "Remove all unused networks",
  flags: {
    filter: longFilterFlag(FILTERS),
    force: { kind: "boolean", short: "f", help: "Do not prompt for confirmation" },
  },
  words: { min: 0, max: 0 },
  async run({ flags, io, clock, connect }) {
    const filters = parseFilters(flags.list("filter"), FILTERS);
    const untilMs = (filters.get("until") ?? []).map((text) =>
      parsedOrThrow("filter", text, (each) => parseSinceMs(each, clock.nowMs())),
    );
    const isOld = (view: NetworkView) => untilMs.every((ms) => (timestampMs(view.network?.meta?.createdAt) ?? 0) < ms);
    const warning = "WARNING! This will remove all custom networks not used by at least one service.";
    if (!flags.on("force") && !(await confirm(io, warning))) return 1;
    const client = await connect();
    const { networks } = await client.listNetworks({});
    const unused = networks.filter((view) => !isBuiltIn(view) && view.serviceNames.length === 0 && isOld(view));
    const deleted: string[] = [];
    for (const { network } of unused.filter((view) => passesLabels(filters, "label", view.network?.spec?.labels))) {
      if (!network) continue;
      try {
        await client.removeNetwork({ networkId: network.id });
        deleted.push(network.name);
      } catch (reason) {
        // Used, or gone, since it was listed: that is what unused ones were asked for.
        if (!(reason instanceof SwarmError) || !["failed_precondition", "not_found"].includes(reason.code))
          throw reason;
      }
    }
    if (deleted.length > 0) io.out(`Deleted Networks:\n${deleted.join("\n")}\n\n`);
    return 0;
  },
};
