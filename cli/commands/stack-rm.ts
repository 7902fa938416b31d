import { SwarmError } from "../../common/base/error.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import { escapeControls } from "../../common/model/text.ts";
import type { RemoveStackResponse, ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { forEachWord } from "../calls.ts";
import type { Command, ControlClient, Invocation } from "../command.ts";
import { servicesOfStack } from "../stack/request.ts";

export const command: Command = {
  usage: "stack rm [OPTIONS] STACK [STACK...]",
  summary: "Remove one or more stacks; their volumes stay",
  flags: {
    detach: { kind: "boolean", short: "d", help: "Do not wait for stack removal", default: "true" },
  },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

/** Looks again so often: the tasks of a removed service take as long as their stop grace period. */
const POLL_MS = 250;

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const client = await connect();
  const waits = flags.has("detach") && !flags.on("detach");
  return await forEachWord(words, { out: () => {}, err: io.err }, async (name) => {
    const services = waits ? await servicesOfStack(client, name) : [];
    const { removed, keptVolumes, keptNetworks } = await removeIfThere(client, name);
    if (removed.length + keptNetworks.length === 0) io.err(`Nothing found in stack: ${escapeControls(name)}\n`);
    for (const each of removed) io.out(`Removing ${each.kind} ${escapeControls(each.name)}\n`);
    if (keptVolumes.length > 0) {
      io.err(`volumes are kept, since they hold data: ${escapeControls(keptVolumes.join(", "))}\n`);
    }
    if (keptNetworks.length > 0) {
      io.err(`networks are kept, since other services are attached: ${escapeControls(keptNetworks.join(", "))}\n`);
    }
    if (waits) await tasksGone(invocation, client, services);
    return name;
  });
}

/** As with Docker, a stack that is not there is removed: scripts that clean up say so twice. */
async function removeIfThere(
  client: ControlClient,
  name: string,
): Promise<Pick<RemoveStackResponse, "removed" | "keptVolumes" | "keptNetworks">> {
  try {
    return await client.removeStack({ name });
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
    return { removed: [], keptVolumes: [], keptNetworks: [] };
  }
}

async function tasksGone(
  { clock, signal }: Invocation,
  client: ControlClient,
  services: readonly ServiceView[],
): Promise<void> {
  const ids = new Set(services.map(({ service }) => service?.id ?? ""));
  while (ids.size > 0) {
    const { tasks } = await client.listTasks({});
    const alive = tasks.some(
      ({ task }) => task && ids.has(task.serviceId) && !isTerminal(task.status?.state ?? TaskState.NEW),
    );
    if (!alive) return;
    await clock.sleep(POLL_MS, signal);
  }
}
