/** A node's coming and going as the store keeps it: its Node object, and the session key on this manager's lease. */
import { create, equals, toBinary } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Peer } from "../../common/rpc/service.ts";
import type { OpenSessionRequest } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { type Node, NodeSchema, SessionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  type NodeDescription,
  NodeDescriptionSchema,
  NodeSpec_Availability,
  NodeSpec_Role,
  NodeStatus_State,
  NodeStatusSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { LeaseId } from "../store/kv.ts";
import type { Proposal } from "../store/proposal.ts";
import type { Store } from "../store/store.ts";
import type { AgentSession } from "./sessions.ts";
import { checkWireguardKey } from "./wireguard-key.ts";

/** What registering needs. */
export interface RegistrationContext {
  readonly store: Store;
  readonly clock: Clock;
  readonly managerId: string;
  readonly lease: LeaseId;
}

/** A description lies in the store and travels in every node listing: a node must not fill either. */
const DESCRIPTION_BYTES_MAX = 64 * 1024;
/** The node monitor or a user may write the node meanwhile; more often than this is a bug somewhere. */
const ATTEMPTS_MAX = 10;
const RETRY_MS = 5;

/**
 * Refuses an agent that had a session before, when another one with the same identity has a newer one: else they would take it
 * from each other for ever. An agent that begins wins.
 * @throws already_exists
 */
export function refuseSuperseded(
  { store: { view } }: Pick<RegistrationContext, "store">,
  request: OpenSessionRequest,
): void {
  const { nodeId, previousSessionId, instanceId } = request;
  const held = view.sessions.get(nodeId)?.instanceId ?? "";
  if (held === "" || instanceId === "" || previousSessionId === "" || held === instanceId) return;
  const address = view.nodes.get(nodeId)?.status?.address ?? "";
  throw new SwarmError("already_exists", `another agent has the identity of node ${nodeId}, at ${address}`);
}

/**
 * Writes the node (new: an active worker; known: its newest description and address) and its session, together. The
 * newest session wins, wherever the former one was.
 * @throws invalid_argument for a bad description, already_exists as `refuseSuperseded`, unavailable while the store is away; not_found when this manager's lease is gone.
 */
export async function registerSession(
  context: RegistrationContext,
  agent: { readonly request: OpenSessionRequest; readonly session: AgentSession; readonly peer: Peer },
  signal: AbortSignal,
): Promise<void> {
  const { store, managerId, clock, lease } = context;
  const { nodeId, id: sessionId } = agent.session;
  const description = checkDescription(agent.request.description);
  checkWireguardKey(store, nodeId, description.wireguardKey);
  const address = hostOf(agent.peer.address);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    refuseSuperseded(context, agent.request);
    const { instanceId } = agent.request;
    const object = create(SessionSchema, { nodeId, sessionId, managerId, instanceId });
    const version = store.view.version("session", nodeId);
    const group: Proposal[] = [
      version === undefined
        ? { type: "create", kind: "session", object, lease }
        : { type: "update", kind: "session", object, version, lease },
    ];
    const node = describedNode(store.view.nodes.get(nodeId), { nodeId, description, address });
    if (node) group.push({ type: node.meta ? "update" : "create", kind: "node", object: node });
    const { conflicts } = await store.commit([group], { signal });
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY_MS, signal);
  }
  throw new SwarmError("aborted", `register node ${nodeId}: the store keeps changing`);
}

/** Deletes a session's key unless a newer one stands there. */
export async function forgetSession(
  { store, clock }: RegistrationContext,
  { nodeId, id }: AgentSession,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const version = store.view.version("session", nodeId);
    if (version === undefined || store.view.sessions.get(nodeId)?.sessionId !== id) return;
    const { conflicts } = await store.commit([{ type: "delete", kind: "session", id: nodeId, version }], { signal });
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY_MS, signal);
  }
}

/** The node as it should be stored; undefined when it is already. */
function describedNode(
  known: Node | undefined,
  seen: { readonly nodeId: string; readonly description: NodeDescription; readonly address: string },
): Node | undefined {
  const { nodeId, description, address } = seen;
  if (!known) {
    return create(NodeSchema, {
      id: nodeId,
      spec: { availability: NodeSpec_Availability.ACTIVE, desiredRole: NodeSpec_Role.WORKER },
      description,
      // READY is the node monitor's word, once it sees the session.
      status: { state: NodeStatus_State.UNKNOWN, address },
    });
  }
  const same = known.description && equals(NodeDescriptionSchema, known.description, description);
  if (same && known.status?.address === address) return undefined;
  const status = known.status ? { ...known.status, address } : create(NodeStatusSchema, { address });
  return { ...known, description, status };
}

/** Throws `invalid_argument` for what a node may not say of itself. */
export function checkDescription(description: NodeDescription | undefined): NodeDescription {
  if (!description?.hostname) throw new SwarmError("invalid_argument", "description.hostname: is missing");
  if (description.hostname.length > 253 || !/^[\x21-\x7e]+$/.test(description.hostname)) {
    throw new SwarmError("invalid_argument", "description.hostname: is not a host's name");
  }
  if (toBinary(NodeDescriptionSchema, description).length > DESCRIPTION_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `description: larger than ${DESCRIPTION_BYTES_MAX} bytes`);
  }
  return description;
}

/** The host of a peer's address: "10.0.0.7:4123" and "ipv4:10.0.0.7:4123" are 10.0.0.7; other forms stay. */
function hostOf(address: string): string {
  const bare = address.replace(/^ipv[46]:/, "");
  const match = /^\[?([0-9a-fA-F.:]+)\]?:\d+$/.exec(bare);
  return match?.[1]?.replace(/^::ffff:/, "") ?? bare;
}
