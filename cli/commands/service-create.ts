import { create } from "@bufbuild/protobuf";
import { PullOptionsSchema, type ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { present } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { createSpec } from "../flags/service-create.ts";
import { CREATE_FLAGS } from "../flags/service-flags.ts";
import type { Io } from "../io.ts";
import { registryAuthFor } from "../registry-auth.ts";
import { pinImages } from "../resolve-images.ts";
import { waitAsAsked } from "../wait.ts";

export const command: Command = {
  usage: "service create [OPTIONS] IMAGE [COMMAND] [ARG...]",
  summary: "Create a new service",
  flags: CREATE_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  interspersed: false,
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, connect } = invocation;
  const spec = createSpec(flags, words, { environment: io.environment, readFile: io.readFile });
  if (flags.on("with-registry-auth")) addRegistryAuth(spec, io);
  const client = await connect();
  const warnings = flags.on("no-resolve-image") ? [] : await pinImages(client, [spec], io);
  const answer = await client.createService({ spec });
  io.err(warnings.join(""));
  const view = present(answer.service, "service");
  const service = present(view.service, "service");
  io.out(`${service.id}\n`);
  const { id: serviceId, name, specVersion } = service;
  return await waitAsAsked(invocation, [{ serviceId, name, specVersion, rollback: false }]);
}

/** Puts the caller's credentials for the image's registry into the spec. */
export function addRegistryAuth(spec: ServiceSpec, io: Io): void {
  const container = spec.task?.container;
  if (container === undefined) return;
  const registryAuth = registryAuthFor(container.image, io);
  if (registryAuth !== undefined) container.pullOptions = create(PullOptionsSchema, { registryAuth });
}
