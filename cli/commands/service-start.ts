import { findService, present } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { endedTasks, type WaitTarget, waitAsAsked } from "../wait.ts";

export const command: Command = {
  usage: "service start [OPTIONS] SERVICE [SERVICE...]",
  summary: "Run the tasks of stopped services again",
  flags: WAIT_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { words, io, connect } = invocation;
  const client = await connect();
  const targets: WaitTarget[] = [];
  const before = new Set<string>();
  for (const reference of words) {
    const { service } = await findService(client, reference);
    for (const id of await endedTasks(client, service.id)) before.add(id);
    const answer = await client.setServiceStopped({ serviceId: service.id, stopped: false });
    const { id: serviceId, name, specVersion } = present(answer.service?.service, "service");
    io.out(`${reference}\n`);
    // A rollback that was done before counts as done: it is not this change's failure.
    targets.push({ serviceId, name, specVersion, rollback: true });
  }
  return await waitAsAsked(invocation, targets, before);
}
