/** Whether tasks of all nodes reach each other: every node that has some tries, and says what came of it. */
import { create } from "@bufbuild/protobuf";
import { withTimeout } from "../../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../../common/base/error.ts";
import {
  type CheckNetworkRequest,
  type CheckNetworkResponse,
  CheckNetworkResponseSchema,
  type NodeProbes,
  NodeProbesSchema,
  type ProbeResult,
  UnreachableNodeSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { ManagerFrameSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { whyUnreachable } from "../why-unreachable.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { networkLookup } from "./lookups.ts";
import { resolveReference } from "./references.ts";

/** A node's tries take at most some seconds for each few dozen of them. */
const ANSWER_MS_MAX = 60_000;
/** Nodes that try at the same time: each holds a stream. */
const NODES_AT_ONCE = 64;

/** @throws not_found: the network. */
export async function checkNetwork(
  dependencies: ControlDependencies,
  { networkId: reference }: CheckNetworkRequest,
  signal: AbortSignal,
): Promise<CheckNetworkResponse> {
  const { view } = dependencies.store;
  const networkId = reference === undefined ? "" : resolveReference(networkLookup(view), reference).id;
  const nodeIds = new Set(
    (networkId === "" ? [...view.networks.keys()] : [networkId]).flatMap((id) => [...view.nodesOnNetwork(id)]),
  );
  const response = create(CheckNetworkResponseSchema);
  const waiting = [...nodeIds].sort();
  const work = async () => {
    for (let nodeId = waiting.shift(); nodeId !== undefined; nodeId = waiting.shift()) {
      const hostname = view.nodes.get(nodeId)?.description?.hostname ?? "";
      const found = await tryNode(dependencies, { nodeId, hostname, networkId }, signal);
      if (typeof found === "string") {
        response.unreachable.push(create(UnreachableNodeSchema, { hostname: hostname || nodeId, reason: found }));
      } else {
        response.nodes.push(found);
      }
    }
  };
  await Promise.all(Array.from({ length: NODES_AT_ONCE }, work));
  response.nodes.sort((left, right) => (left.hostname < right.hostname ? -1 : 1));
  return response;
}

/** What a node found, or why it could not be asked. */
async function tryNode(
  { store, clock, streams }: ControlDependencies,
  { nodeId, hostname, networkId }: { readonly nodeId: string; readonly hostname: string; readonly networkId: string },
  signal: AbortSignal,
): Promise<NodeProbes | string> {
  const reason = whyUnreachable(store.view, nodeId);
  if (reason !== undefined) return reason;
  try {
    const limits = { clock, timeoutMs: ANSWER_MS_MAX, operation: "the node" };
    const results = await withTimeout(limits, signal, async (inner): Promise<ProbeResult[]> => {
      for await (const { content } of streams.open({ nodeId }, question(networkId), inner)) {
        if (content.case === "probe") return content.value.results;
      }
      throw new SwarmError("unavailable", "the node's stream ended");
    });
    return create(NodeProbesSchema, { nodeId, hostname, results });
  } catch (failure) {
    if (signal.aborted || failure instanceof AssertionFailure) throw failure;
    return SwarmError.from(failure).message;
  }
}

async function* question(networkId: string) {
  yield create(ManagerFrameSchema, { content: { case: "probe", value: { networkId } } });
}
