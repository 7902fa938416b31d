import { formatServicePorts } from "../../common/model/ports.ts";
import { completionsOf, isJob } from "../../common/model/service-mode.ts";
import type { ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Service } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Command, ControlClient, Invocation } from "../command.ts";
import { type Filters, filterFlag, parseFilters, passes, passesLabels } from "../filters.ts";
import { LIST_FLAGS } from "../flags/list-flags.ts";
import { type Listing, type Row, renderList } from "../output/format.ts";
import { shortId, shortImage } from "../output/words.ts";

export const SERVICE_FILTERS = ["id", "label", "mode", "name"];
const FILTER_WORDS = { mode: ["replicated", "global", "replicated-job", "global-job"] };

export const command: Command = {
  usage: "service ls [OPTIONS]",
  summary: "List services",
  flags: { ...LIST_FLAGS, filter: filterFlag(SERVICE_FILTERS) },
  words: { min: 0, max: 0 },
  run: (invocation) => listServices(invocation, async (client) => (await client.listServices({})).services),
};

const LISTING: Listing = {
  columns: { ID: "ID", Name: "NAME", Mode: "MODE", Replicas: "REPLICAS", Image: "IMAGE", Ports: "PORTS" },
  key: "ID",
};

/** Lists what `select` finds, as the flags say. */
export async function listServices(
  { flags, io, connect }: Invocation,
  select: (client: ControlClient) => Promise<readonly ServiceView[]>,
): Promise<number> {
  const filters = parseFilters(flags.list("filter"), SERVICE_FILTERS, FILTER_WORDS);
  const services = await select(await connect());
  const rows = services.flatMap((view) => {
    const { service } = view;
    return service !== undefined && isWanted(view, service, filters) ? [rowOf(view, service)] : [];
  });
  io.out(renderList(LISTING, rows, { format: flags.text("format"), quiet: flags.on("quiet") }));
  return 0;
}

function isWanted(view: ServiceView, service: Service, filters: Filters): boolean {
  return (
    passes(filters, "id", (value) => service.id.startsWith(value)) &&
    passes(filters, "name", (value) => service.name.startsWith(value)) &&
    passes(filters, "mode", (value) => modeName(view).replace(" ", "-") === value.toLowerCase()) &&
    passesLabels(filters, "label", view.spec?.labels)
  );
}

function rowOf(view: ServiceView, service: Service): Row {
  return {
    ID: shortId(service.id),
    Name: service.name,
    Mode: modeName(view),
    Replicas: replicasText(view),
    Image: shortImage(view.spec?.task?.container?.image ?? ""),
    Ports: formatServicePorts(service.ports),
  };
}

const MODES = {
  replicated: "replicated",
  global: "global",
  replicatedJob: "replicated job",
  globalJob: "global job",
} as const;

function modeName({ spec }: ServiceView): string {
  const mode = spec?.mode?.mode.case;
  return mode === undefined ? "replicated" : MODES[mode];
}

function replicasText({ service, runningTasks, desiredTasks, completedTasks, spec }: ServiceView): string {
  if (service?.stopped) return `${runningTasks}/0 (stopped)`;
  const maxPerNode = spec?.task?.placement?.maxReplicas ?? 0n;
  const text = `${runningTasks}/${desiredTasks}`;
  if (isJob(spec)) {
    const total = completionsOf(spec) || Number(desiredTasks + completedTasks);
    return `${text} (${completedTasks}/${total} completed)`;
  }
  return maxPerNode > 0n ? `${text} (max ${maxPerNode} per node)` : text;
}
