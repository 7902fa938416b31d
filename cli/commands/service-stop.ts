import { findService } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { waitForServices } from "../wait-for.ts";

export const command: Command = {
  usage: "service stop [OPTIONS] SERVICE [SERVICE...]",
  summary: "End the tasks of one or more services; the services stay, with their replicas, for 'service start'",
  flags: { detach: WAIT_FLAGS.detach, timeout: WAIT_FLAGS.timeout },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const client = await connect();
  const serviceIds: string[] = [];
  for (const reference of words) {
    const { service } = await findService(client, reference);
    await client.setServiceStopped({ serviceId: service.id, stopped: true });
    serviceIds.push(service.id);
    io.out(`${reference}\n`);
  }
  return flags.on("detach") ? 0 : await waitForServices(invocation, { serviceIds, condition: "stopped" });
}
