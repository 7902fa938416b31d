import type { NetworkView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { BOOLEAN_WORDS, type Filters, filterFlag, isYes, parseFilters, passes, passesLabels } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { LABELS, type Listing, type Row, renderList } from "../output/format.ts";
import { timeJson } from "../output/json-parts.ts";
import { isBuiltIn, networkDriver, networkScope } from "../output/network-json.ts";

const FILTERS = ["dangling", "driver", "id", "label", "name", "scope", "type"];
const FILTER_WORDS = {
  dangling: BOOLEAN_WORDS,
  scope: ["swarm", "local", "global"],
  type: ["builtin", "custom"],
};
/** As Docker cuts ids. */
const SHORT_ID_LENGTH = 12;

const LISTING: Listing = {
  columns: { ID: "NETWORK ID", Name: "NAME", Driver: "DRIVER", Scope: "SCOPE", Subnet: "SUBNET" },
  more: {
    Internal: "INTERNAL",
    IPv4: "IPV4",
    IPv6: "IPV6",
    CreatedAt: "CREATED AT",
    Labels: "LABELS",
    Services: "SERVICES",
  },
  key: "ID",
};

export const command: Command = {
  usage: "network ls [OPTIONS]",
  summary: "List networks",
  flags: {
    ...LIST_FLAGS,
    filter: filterFlag(FILTERS),
    "no-trunc": { kind: "boolean", help: "Do not truncate the output" },
  },
  words: { min: 0, max: 0 },
  async run({ flags, io, connect }) {
    const filters = parseFilters(flags.list("filter"), FILTERS, FILTER_WORDS);
    const { networks } = await (await connect()).listNetworks({});
    const whole = flags.on("no-trunc");
    const rows = networks.filter((network) => isWanted(network, filters)).map((network) => rowOf(network, whole));
    io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
    return 0;
  },
};

function isWanted(view: NetworkView, filters: Filters): boolean {
  const { network, serviceNames } = view;
  const isDangling = serviceNames.length === 0 && !isBuiltIn(view);
  return (
    passes(filters, "dangling", (value) => isYes(value) === isDangling) &&
    passes(filters, "driver", (value) => value === networkDriver(view)) &&
    passes(filters, "id", (value) => network?.id.startsWith(value) ?? false) &&
    passesLabels(filters, "label", network?.spec?.labels) &&
    passes(filters, "name", (value) => network?.name.includes(value) ?? false) &&
    passes(filters, "scope", (value) => value === networkScope(view)) &&
    passes(filters, "type", (value) => value === (isBuiltIn(view) ? "builtin" : "custom"))
  );
}

function rowOf(view: NetworkView, whole: boolean): Row {
  const { network, serviceNames } = view;
  const id = network?.id ?? "";
  return {
    ID: whole ? id : id.slice(0, SHORT_ID_LENGTH),
    Name: network?.name ?? "",
    Driver: networkDriver(view),
    Scope: networkScope(view),
    Subnet: network?.ipam.map(({ subnet }) => subnet).join(",") ?? "",
    Internal: String(network?.spec?.internal ?? false),
    // Every network has it, but those of nodes that are no network.
    IPv4: String(isBuiltIn(view) ? (network?.ipam.length ?? 0) > 0 : true),
    IPv6: String(network?.spec?.ipv6 ?? false),
    CreatedAt: timeJson(network?.meta?.createdAt) ?? "",
    Labels: Object.entries(network?.spec?.labels ?? {})
      .map(([key, value]) => `${key}=${value}`)
      .join(","),
    [LABELS]: network?.spec?.labels ?? {},
    Services: serviceNames.join(","),
  };
}
