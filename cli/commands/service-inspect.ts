import type { Command, Invocation } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { inspectEach } from "../inspect.ts";
import { renderObjects } from "../output/format.ts";
import { serviceJson } from "../output/service-json.ts";
import { servicePretty } from "../output/service-pretty.ts";
import { UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "service inspect [OPTIONS] SERVICE [SERVICE...]",
  summary: "Display detailed information on one or more services",
  flags: INSPECT_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const pretty = flags.on("pretty");
  if (pretty && flags.has("format")) throw new UsageError("--format is incompatible with human friendly format");
  const client = await connect();
  return await inspectEach(words, io, {
    find: async (reference) => (await client.listServices({ references: [reference] })).services,
    show: (services) =>
      pretty
        ? services.map((view) => servicePretty(view, clock.nowMs())).join("\n")
        : renderObjects(services.map(serviceJson), flags.text("format")),
  });
}
