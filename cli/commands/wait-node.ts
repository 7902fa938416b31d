import { SwarmError } from "../../common/base/error.ts";
import { NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Command, Invocation } from "../command.ts";
import { choiceFlag } from "../flags/values.ts";
import { waitForFlags } from "../flags/wait-flags.ts";
import { nodeStateName } from "../output/node-words.ts";
import { beforeDeadline } from "../wait-for.ts";

const CONDITIONS = ["ready", "down", "removed"] as const;

export const command: Command = {
  usage: "wait node [OPTIONS] NODE",
  summary: "Block until a node is as wanted; exit codes as of wait service",
  flags: waitForFlags(CONDITIONS, "ready"),
  words: { min: 1, max: 1 },
  run,
};

/** A node's state changes seldom, and at its manager's pace. */
const POLL_MS = 250;

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, clock, connect } = invocation;
  const [reference = ""] = words;
  const choices = Object.fromEntries(CONDITIONS.map((name) => [name, name]));
  const condition = choiceFlag<(typeof CONDITIONS)[number]>(flags, "for", choices) ?? "ready";
  const client = await connect();
  let state = "unknown";
  return await beforeDeadline(invocation, {
    why: () => `node ${reference} is ${state}`,
    run: async (signal) => {
      while (true) {
        try {
          const { nodes } = await client.listNodes({ references: [reference] }, { signal });
          const [node] = nodes;
          if (node) state = nodeStateName(node).toLowerCase();
          const reached = node?.status?.state;
          if (condition === "ready" && reached === NodeStatus_State.READY) return 0;
          if (condition === "down" && reached === NodeStatus_State.DOWN) return 0;
        } catch (reason) {
          const gone = reason instanceof SwarmError && reason.code === "not_found";
          if (!gone || condition !== "removed") throw reason;
          return 0;
        }
        await clock.sleep(POLL_MS, signal);
      }
    },
  });
}
