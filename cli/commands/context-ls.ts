import type { Command, Invocation } from "../command.ts";
import { ContextStore, configFolder, DEFAULT_CONTEXT } from "../contexts.ts";
import { contextName, defaultHosts } from "../endpoint.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";

export const command: Command = {
  usage: "context ls [OPTIONS]",
  summary: "List contexts",
  flags: LIST_FLAGS,
  words: { min: 0, max: 0 },
  run,
};

const LISTING: Listing = {
  columns: { Name: "NAME", Description: "DESCRIPTION", DockerEndpoint: "ENDPOINT", Error: "ERROR" },
  more: { Current: "CURRENT" },
  key: "Name",
};

async function run({ flags, globals, io }: Invocation): Promise<number> {
  const contexts = new ContextStore(configFolder(io));
  const current = contextName(globals, { ...io, contexts });
  const quiet = flags.on("quiet");
  const row = (name: string, description: string, endpoint: string, error = ""): Row => ({
    Name: name === current && !quiet && !flags.has("format") ? `${name} *` : name,
    Description: description,
    DockerEndpoint: endpoint,
    Error: error,
    Current: String(name === current),
  });
  const rows = [
    row(DEFAULT_CONTEXT, "What holds without a context", defaultHosts(globals, io).join(",")),
    ...contexts.list().map(({ name, description, host }) => row(name, description, host)),
  ];
  if (current !== DEFAULT_CONTEXT && !contexts.has(current)) rows.push(row(current, "", "", "context not found"));
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet }));
  return 0;
}
