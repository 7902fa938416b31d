/** `node promote`, `node demote`: the role that a node is to have; its host's programs follow. */
import { create } from "@bufbuild/protobuf";
import { NodeSpec_Role, NodeSpecSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { findNode, forEachWord, retryAborted } from "./calls.ts";
import type { Command } from "./command.ts";
import { warnOfManagers } from "./manager-warnings.ts";

const WORDS = {
  promote: { role: NodeSpec_Role.MANAGER, summary: "Promote one or more nodes to manager in the swarm" },
  demote: { role: NodeSpec_Role.WORKER, summary: "Demote one or more nodes from manager in the swarm" },
} as const;

export function roleCommand(verb: keyof typeof WORDS): Command {
  const { role, summary } = WORDS[verb];
  return {
    usage: `node ${verb} NODE [NODE...]`,
    summary,
    flags: {},
    words: { min: 1, max: Number.POSITIVE_INFINITY },
    async run({ words, io, connect }) {
      const client = await connect();
      const code = await forEachWord(words, io, async (reference) => {
        const changed = await retryAborted(async () => {
          const { id, spec, meta } = await findNode(client, reference);
          if ((spec?.desiredRole ?? NodeSpec_Role.WORKER) === role) return false;
          const wanted = { ...(spec ?? create(NodeSpecSchema)), desiredRole: role };
          await client.updateNode({ nodeId: id, version: meta?.version ?? 0n, spec: wanted });
          return true;
        });
        if (verb === "promote")
          return `Node ${reference} ${changed ? "promoted to" : "is already"} a manager${changed ? " in the swarm" : ""}.`;
        return `${changed ? "Manager" : "Node"} ${reference} ${changed ? "demoted in the swarm" : "is already a worker"}.`;
      });
      await warnOfManagers(client, io);
      return code;
    },
  };
}
