/** A heartbeat over a call of its own, for tests of who may beat, and what for. */
import type { CallOptions, Client } from "../common/rpc/service.ts";
import type { Dispatcher, HeartbeatResponse } from "../proto/gen/swarm/v1/dispatcher_pb.js";

interface Beat {
  readonly nodeId?: string;
  readonly sessionId?: string;
}

/** What the manager answers. */
export async function beatOnce(
  client: Client<typeof Dispatcher>,
  beat: Beat,
  options?: CallOptions,
): Promise<HeartbeatResponse> {
  for await (const answer of client.heartbeat(once(beat), options)) return answer;
  throw new Error("a heartbeat was not answered");
}

async function* once(beat: Beat) {
  yield beat;
}
