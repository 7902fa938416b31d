import type { Command } from "../command.ts";
import { filterFlag } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { requireStack } from "../stack/request.ts";
import { listServices, SERVICE_FILTERS } from "./service-ls.ts";

export const command: Command = {
  usage: "stack services [OPTIONS] STACK",
  summary: "List the services in the stack",
  flags: { ...LIST_FLAGS, filter: filterFlag(SERVICE_FILTERS) },
  words: { min: 1, max: 1 },
  run: (invocation) => listServices(invocation, (client) => requireStack(client, invocation.words[0] ?? "")),
};
