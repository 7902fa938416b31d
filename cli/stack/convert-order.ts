/** `depends_on` → what a service waits for. Docker's stacks ignore it, so a list that cannot be kept is passed over with a warning. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ServiceDependency_Condition, type ServiceDependencySchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ServiceSite } from "./site.ts";
import { child, entriesOf, flagOf, itemsOf, type Tree, textOf } from "./tree.ts";

type DependencyInit = MessageInitShape<typeof ServiceDependencySchema>;

const CONDITIONS: Readonly<Record<string, ServiceDependency_Condition>> = {
  service_started: ServiceDependency_Condition.STARTED,
  service_healthy: ServiceDependency_Condition.HEALTHY,
  service_completed_successfully: ServiceDependency_Condition.COMPLETED,
};

interface Edge {
  readonly to: string;
  readonly node: Tree;
  readonly path: string;
  /** Whether the file states a condition: then the author means it. */
  readonly meant: boolean;
  readonly condition: ServiceDependency_Condition;
  readonly optional: boolean;
}

/** The dependencies of every service, by its key. */
export function convertOrder(sites: readonly ServiceSite[]): ReadonlyMap<string, readonly DependencyInit[]> {
  const edges = new Map(sites.map((site) => [site.key, edgesOf(site)] as const));
  const known = new Map(sites.map((site) => [site.key, site] as const));
  const result = new Map<string, readonly DependencyInit[]>();
  for (const site of sites) {
    const kept = (edges.get(site.key) ?? []).filter((edge) => {
      if (!known.has(edge.to)) return missing(site, edge);
      const circle = wayBack(edge.to, site.key, edges);
      if (circle === undefined) return true;
      const shown = `circular: ${[site.key, ...circle].join(" → ")}`;
      if (edge.meant) site.refuse(edge.node, edge.path, shown);
      else site.warn(edge.node, edge.path, `${shown}: the order is not kept`);
      return false;
    });
    const dependencies = kept.map(({ to, condition, optional }) => ({
      service: `${site.context.stack}_${to}`,
      condition,
      optional,
    }));
    result.set(site.key, dependencies);
  }
  return result;
}

function edgesOf(site: ServiceSite): readonly Edge[] {
  const node = site.at("depends_on");
  const listed = itemsOf(node).map((item, index) => ({
    to: textOf(item) ?? "",
    node: item,
    path: `depends_on[${index}]`,
    meant: false,
    condition: ServiceDependency_Condition.STARTED,
    optional: false,
  }));
  const mapped = entriesOf(node).map(([to, value]) => {
    const restart = child(value, "restart");
    if (restart !== undefined && !["false", "no"].includes(textOf(restart) ?? "")) {
      site.refuse(restart, `depends_on.${to}.restart`, "is not supported: services are updated one by one");
    }
    const condition = textOf(child(value, "condition")) ?? "service_started";
    return {
      to,
      node: value,
      path: `depends_on.${to}`,
      meant: true,
      condition: CONDITIONS[condition] ?? ServiceDependency_Condition.STARTED,
      optional: flagOf(child(value, "required")) === false,
    };
  });
  return [...listed, ...mapped];
}

/** What to do about a service that the stack does not have: never an edge that would wait for ever. */
function missing(site: ServiceSite, { to, node, path, meant, optional }: Edge): false {
  const message = `the stack has no service ${JSON.stringify(to)}`;
  if (meant && !optional) site.refuse(node, path, message);
  else if (!optional) site.warn(node, path, `${message}: it is not waited for`);
  return false;
}

/** The services from `from` to `goal`, both named, along dependencies; undefined when there is no way. */
function wayBack(
  from: string,
  goal: string,
  edges: ReadonlyMap<string, readonly Edge[]>,
): readonly string[] | undefined {
  const cameFrom = new Map<string, string | undefined>([[from, undefined]]);
  const queue = [from];
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    if (at === goal) {
      const way: string[] = [];
      for (let step: string | undefined = at; step !== undefined; step = cameFrom.get(step)) way.unshift(step);
      return way;
    }
    for (const { to } of edges.get(at) ?? []) {
      if (cameFrom.has(to)) continue;
      cameFrom.set(to, at);
      queue.push(to);
    }
  }
  return undefined;
}
