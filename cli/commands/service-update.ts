import { SwarmError } from "../../common/base/error.ts";
import { findNetwork, findService, present, retryAborted } from "../calls.ts";
import type { Command, ControlClient, Invocation } from "../command.ts";
import { UPDATE_FLAGS } from "../flags/service-flags.ts";
import { networkReferences, updatedSpec } from "../flags/service-update.ts";
import { pinImages } from "../resolve-images.ts";
import { UsageError } from "../usage-error.ts";
import { endedTasks, type WaitTarget, waitAsAsked } from "../wait.ts";
import { addRegistryAuth } from "./service-create.ts";

export const command: Command = {
  usage: "service update [OPTIONS] SERVICE",
  summary: "Update a service",
  flags: UPDATE_FLAGS,
  words: { min: 1, max: 1 },
  run,
};

/** Flags that change nothing in the spec. */
const NOT_SPEC = ["detach", "quiet", "timeout", "rollback", "no-resolve-image"];

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const [reference = ""] = words;
  if (flags.on("rollback") && flags.names().some((name) => !NOT_SPEC.includes(name))) {
    throw new UsageError("other flags may not be combined with --rollback");
  }
  const client = await connect();
  if (flags.on("rollback")) return await rollBack(invocation, client, reference);
  const references = networkReferences(flags);
  const networks = await Promise.all(references.map((each) => findNetwork(client, each)));
  const networkNames = new Map(references.map((each, index) => [each, networks[index]?.name ?? each]));
  let warnings: readonly string[] = [];
  const { target, before } = await changeService(client, reference, async (view) => {
    const spec = updatedSpec(view, flags, { environment: io.environment, readFile: io.readFile, networkNames });
    if (flags.on("with-registry-auth")) addRegistryAuth(spec, io);
    if (flags.has("image") && !flags.on("no-resolve-image")) warnings = await pinImages(client, [spec], io);
    return spec;
  });
  io.err(warnings.join(""));
  io.out(`${reference}\n`);
  return await waitAsAsked(invocation, [target], before);
}

type Spec = Parameters<typeof updatedSpec>[0];

/** Reads a service, changes its spec, writes it. Another user's change in between is an error, a loop's is not. */
export async function changeService(
  client: ControlClient,
  reference: string,
  change: (spec: Spec) => Spec | Promise<Spec>,
): Promise<{ readonly target: WaitTarget; readonly before: ReadonlySet<string> }> {
  let read: bigint | undefined;
  return await retryAborted(async () => {
    const view = await findService(client, reference);
    const { id, name, specVersion, meta } = view.service;
    read ??= specVersion;
    if (read !== specVersion) throw changedByOther(name);
    const spec = await change(present(view.spec, "spec"));
    const before = await endedTasks(client, id);
    const answer = await client.updateService({ serviceId: id, version: meta?.version ?? 0n, spec });
    const updated = present(answer.service?.service, "service");
    // A rollback before a change that was none is not this change's failure.
    const rollback = updated.specVersion === specVersion;
    return { target: { serviceId: id, name, specVersion: updated.specVersion, rollback }, before };
  });
}

/** Goes back to the spec before the present one, and waits as asked. */
export async function rollBack(invocation: Invocation, client: ControlClient, reference: string): Promise<number> {
  let read: bigint | undefined;
  const { target, before } = await retryAborted(async () => {
    const { service } = await findService(client, reference);
    read ??= service.specVersion;
    if (read !== service.specVersion) throw changedByOther(service.name);
    const ended = await endedTasks(client, service.id);
    const version = service.meta?.version ?? 0n;
    const answer = await client.updateService({ serviceId: service.id, version, rollback: true });
    const { id: serviceId, name, specVersion } = present(answer.service?.service, "service");
    return { target: { serviceId, name, specVersion, rollback: true }, before: ended };
  });
  invocation.io.out(`${reference}\n`);
  return await waitAsAsked(invocation, [target], before);
}

function changedByOther(name: string): SwarmError {
  return new SwarmError("failed_precondition", `update out of sequence: ${name} was changed by somebody else`);
}
