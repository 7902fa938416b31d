import { SwarmError } from "../../common/base/error.ts";
import { LocalState } from "../../proto/gen/swarm/v1/local_pb.js";
import type { Command, Invocation } from "../command.ts";
import { isAbsent, LOCAL_CALL_MS_MAX, LocalPrograms, SOCKET_FLAGS } from "../local.ts";

export const command: Command = {
  usage: "swarm leave [OPTIONS]",
  summary: "Leave the swarm: this host's tasks end, and it forgets the cluster",
  flags: {
    force: { kind: "boolean", short: "f", help: "Force this node to leave the swarm, ignoring warnings" },
    ...SOCKET_FLAGS,
  },
  words: { min: 0, max: 0 },
  run,
};

async function run({ flags, io, signal }: Invocation): Promise<number> {
  await using local = new LocalPrograms(flags);
  const options = { signal, timeoutMs: LOCAL_CALL_MS_MAX };
  const manager = await stateOf(local.manager.getLocalManager({}, { signal }));
  const agent = await stateOf(local.agent.getLocalAgent({}, { signal }));
  if (manager === LocalState.IDLE && agent === LocalState.IDLE) {
    throw new SwarmError("failed_precondition", "this node is not part of a swarm");
  }
  // The manager first: it may refuse, and then nothing has changed.
  if (manager !== LocalState.IDLE) await local.manager.leaveCluster({ force: flags.on("force") }, options);
  if (agent !== LocalState.IDLE) await local.agent.leaveNode({}, options);
  io.out("Node left the swarm.\n");
  return 0;
}

/** A program that does not run is in no cluster that it could leave. */
async function stateOf(answer: Promise<{ readonly state: LocalState }>): Promise<LocalState> {
  try {
    return (await answer).state;
  } catch (reason) {
    if (isAbsent(reason)) return LocalState.IDLE;
    throw reason;
  }
}
