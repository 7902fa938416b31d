import { roleOf } from "../../common/model/constraints.ts";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Command, Invocation } from "../command.ts";
import { type Filters, filterFlag, parseFilters, passes, passesLabels } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type ClusterAuthorities, readAuthorities } from "../output/cluster-authorities.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { availabilityName, managerStatusName, nodeStateName, tlsStatusName } from "../output/node-words.ts";

const FILTERS = ["id", "label", "node.label", "membership", "name", "role"];
const FILTER_WORDS = { membership: ["accepted", "pending"], role: ["manager", "worker"] };

export const command: Command = {
  usage: "node ls [OPTIONS]",
  summary: "List nodes in the swarm",
  flags: { ...LIST_FLAGS, filter: filterFlag(FILTERS) },
  words: { min: 0, max: 0 },
  run,
};

const LISTING: Listing = {
  columns: {
    ID: "ID",
    Hostname: "HOSTNAME",
    Status: "STATUS",
    Availability: "AVAILABILITY",
    ManagerStatus: "MANAGER STATUS",
    EngineVersion: "ENGINE VERSION",
  },
  more: { Self: "SELF", TLSStatus: "TLS STATUS" },
  key: "ID",
};

async function run({ flags, io, connect }: Invocation): Promise<number> {
  const filters = parseFilters(flags.list("filter"), FILTERS, FILTER_WORDS);
  const client = await connect();
  // Only a format can show what it takes to tell.
  const ca = flags.has("format") ? client.getCa({}).then(readAuthorities) : undefined;
  const [{ nodes }, authorities] = await Promise.all([client.listNodes({}), ca]);
  const rows = nodes.filter((node) => isWanted(node, filters)).map((node) => rowOf(node, authorities));
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
  return 0;
}

function isWanted(node: Node, filters: Filters): boolean {
  return (
    passes(filters, "id", (value) => node.id.startsWith(value)) &&
    passes(filters, "name", (value) => (node.description?.hostname ?? "").startsWith(value)) &&
    passes(filters, "role", (value) => roleOf(node) === value.toLowerCase()) &&
    passes(filters, "membership", (value) => value.toLowerCase() === "accepted") &&
    passesLabels(filters, "label", node.description?.engine?.labels) &&
    passesLabels(filters, "node.label", node.spec?.labels)
  );
}

function rowOf(node: Node, authorities: ClusterAuthorities | undefined): Row {
  return {
    ID: node.id,
    Hostname: node.description?.hostname ?? "",
    Status: nodeStateName(node),
    Availability: availabilityName(node),
    ManagerStatus: managerStatusName(node),
    EngineVersion: node.description?.engine?.version ?? "",
    Self: "false",
    TLSStatus: tlsStatusName(node, authorities),
  };
}
