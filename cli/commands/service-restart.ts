import { clone, create } from "@bufbuild/protobuf";
import { type ServiceSpec, ServiceSpecSchema, TaskSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { findService } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { type WaitTarget, waitAsAsked } from "../wait.ts";
import { changeService } from "./service-update.ts";

export const command: Command = {
  usage: "service restart [OPTIONS] SERVICE [SERVICE...]",
  summary: "Replace every task of one or more services, as their update policy says (service update --force)",
  flags: WAIT_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

/** All services are looked at before any is restarted. */
async function run(invocation: Invocation): Promise<number> {
  const { words, io, connect } = invocation;
  const client = await connect();
  for (const reference of words) await findService(client, reference);
  const targets: WaitTarget[] = [];
  const before = new Set<string>();
  for (const reference of words) {
    const changed = await changeService(client, reference, forced);
    io.out(`${reference}\n`);
    targets.push(changed.target);
    for (const id of changed.before) before.add(id);
  }
  return await waitAsAsked(invocation, targets, before);
}

function forced(present: ServiceSpec): ServiceSpec {
  const spec = clone(ServiceSpecSchema, present);
  spec.task ??= create(TaskSpecSchema);
  spec.task.forceUpdate += 1n;
  return spec;
}
