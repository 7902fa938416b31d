import type { Command, Invocation } from "../command.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, renderList } from "../output/format.ts";

export const command: Command = {
  usage: "stack ls [OPTIONS]",
  summary: "List stacks",
  flags: { format: LIST_FLAGS.format, quiet: { ...LIST_FLAGS.quiet, help: "Only display names" } },
  words: { min: 0, max: 0 },
  run,
};

const LISTING: Listing = { columns: { Name: "NAME", Services: "SERVICES" }, key: "Name" };

async function run({ flags, io, connect }: Invocation): Promise<number> {
  const { stacks } = await (await connect()).listStacks({});
  const rows = stacks.map(({ name, services }) => ({ Name: name, Services: String(services) }));
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
  return 0;
}
