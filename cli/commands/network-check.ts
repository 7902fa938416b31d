import {
  type CheckNetworkResponse,
  type NodeProbes,
  type ProbeResult,
  ProbeResult_Kind,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command } from "../command.ts";
import { renderTable } from "../output/table.ts";

/** What did not work is told as a failure of the command: scripts wait for it to end. */
const EXIT_FAILED = 1;

/** What is not reached takes some seconds to be found so; nodes take turns where there are many. */
const ANSWER_MS_MAX = 120_000;

const WORDS = {
  [ProbeResult_Kind.TASK]: "task",
  [ProbeResult_Kind.MTU]: "large packets to task",
  [ProbeResult_Kind.SERVICE]: "service",
  [ProbeResult_Kind.NAME]: "name",
  [ProbeResult_Kind.HOST]: "host",
} as const;

export const command: Command = {
  usage: "network check [OPTIONS] [NETWORK]",
  summary: "Try from every node whether tasks, services and names are reached",
  flags: { quiet: { kind: "boolean", short: "q", help: "Only what is not reached" } },
  words: { min: 0, max: 1 },
  async run({ flags, words, io, connect }) {
    const client = await connect();
    const answer = await client.checkNetwork(words[0] === undefined ? {} : { networkId: words[0] }, {
      timeoutMs: ANSWER_MS_MAX,
    });
    const { networks } = await client.listNetworks({});
    const names = new Map(networks.map(({ network }) => [network?.id ?? "", network?.name ?? ""]));
    if (!flags.on("quiet")) {
      for (const [networkId, name] of networksOf(answer, names)) io.out(`${matrix(answer, networkId, name)}\n`);
    }
    for (const warning of warningsOf(answer)) io.out(`${warning}\n`);
    const failures = failuresOf(answer, names);
    for (const failure of failures) io.out(`${failure}\n`);
    if (failures.length === 0 && answer.nodes.length === 0) io.out("no network has tasks\n");
    return failures.length === 0 ? 0 : EXIT_FAILED;
  },
};

/** The networks that were tried, sorted by name. */
function networksOf(
  { nodes }: CheckNetworkResponse,
  names: ReadonlyMap<string, string>,
): readonly (readonly [string, string])[] {
  const ids = new Set(nodes.flatMap(({ results }) => results.filter(isTry).map(({ networkId }) => networkId)));
  return [...ids]
    .map((id) => [id, names.get(id) ?? id] as const)
    .sort(([, left], [, right]) => (left < right ? -1 : 1));
}

/** From each node to each: how long a connection took; then how many of the services and names are reached. */
function matrix({ nodes }: CheckNetworkResponse, networkId: string, name: string): string {
  const on = nodes.filter(({ results }) => results.some((result) => result.networkId === networkId));
  const rows = on.map(({ hostname, results }) => {
    const own = results.filter((result) => result.networkId === networkId);
    const cells = on.map(({ nodeId }) => cellOf(own.filter((result) => result.nodeId === nodeId)));
    return [hostname, ...cells, share(own, ProbeResult_Kind.SERVICE), share(own, ProbeResult_Kind.NAME)];
  });
  const heading = [`NETWORK ${name}`, ...on.map(({ hostname }) => `TO ${hostname}`), "SERVICES", "NAMES"];
  return renderTable([heading, ...rows]);
}

/** A task is reached if small and large packets come through, by each of its addresses. */
function cellOf(results: readonly ProbeResult[]): string {
  const [task, mtu] = [ProbeResult_Kind.TASK, ProbeResult_Kind.MTU].map((kind) => {
    const some = results.filter((each) => each.kind === kind);
    return some.find(({ problem }) => problem !== "") ?? some[0];
  });
  if (task === undefined) return "-";
  if (task.problem !== "") return "FAILED";
  return mtu !== undefined && mtu.problem !== "" ? "MTU FAILED" : `${(task.micros / 1_000).toFixed(1)} ms`;
}

function share(results: readonly ProbeResult[], kind: ProbeResult_Kind): string {
  const some = results.filter((result) => result.kind === kind);
  return `${some.filter(({ problem }) => problem === "").length}/${some.length}`;
}

/** What may stand in the way on a node is no failure: all may be reached nevertheless. */
function warningsOf({ nodes }: CheckNetworkResponse): readonly string[] {
  return nodes.flatMap(({ hostname, results }) =>
    results.filter((result) => !isTry(result)).map(({ problem }) => `warning: ${hostname}: ${problem}`),
  );
}

function isTry({ kind }: ProbeResult): boolean {
  return kind !== ProbeResult_Kind.HOST;
}

function failuresOf(
  { nodes, unreachable }: CheckNetworkResponse,
  names: ReadonlyMap<string, string>,
): readonly string[] {
  const hostnames = new Map(nodes.map(({ nodeId, hostname }) => [nodeId, hostname]));
  const of = ({ hostname, results }: NodeProbes) =>
    results.filter(isTry).flatMap(({ kind, networkId, target, nodeId, problem }) => {
      if (problem === "") return [];
      const place = nodeId === "" ? "" : ` on ${hostnames.get(nodeId) ?? nodeId}`;
      return [
        `from ${hostname}, network ${names.get(networkId) ?? networkId}: ${WORDS[kind]} ${target}${place}: ${problem}`,
      ];
    });
  return [
    ...nodes.flatMap(of),
    ...unreachable.map(({ hostname, reason }) => `node ${hostname} was not asked: ${reason}`),
  ];
}
