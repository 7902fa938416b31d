import { clone, create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { parseInteger } from "../../common/model/units.ts";
import { ServiceModeSchema, type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { findService, present } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { UsageError } from "../usage-error.ts";
import { type WaitTarget, waitAsAsked } from "../wait.ts";
import { changeService } from "./service-update.ts";

export const command: Command = {
  usage: "service scale [OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]",
  summary: "Scale one or multiple replicated services",
  flags: WAIT_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

/** All words are read and all services looked at before anything is scaled. */
async function run(invocation: Invocation): Promise<number> {
  const { words, io, connect } = invocation;
  const wanted = words.map(parseWord);
  const client = await connect();
  for (const { reference } of wanted)
    scaled(reference, present((await findService(client, reference)).spec, "spec"), 0);
  const targets: WaitTarget[] = [];
  const before = new Set<string>();
  for (const { reference, replicas } of wanted) {
    const changed = await changeService(client, reference, (spec) => scaled(reference, spec, replicas));
    io.out(`${reference} scaled to ${replicas}\n`);
    targets.push(changed.target);
    for (const id of changed.before) before.add(id);
  }
  return await waitAsAsked(invocation, targets, before);
}

function parseWord(word: string): { readonly reference: string; readonly replicas: number } {
  const equals = word.indexOf("=");
  if (equals <= 0) throw new UsageError(`invalid scale specifier '${word}'. Usage: SERVICE=REPLICAS`);
  const parsed = parseInteger(word.slice(equals + 1), { min: 0, max: Number.MAX_SAFE_INTEGER });
  if (!parsed.ok) throw new UsageError(`invalid replicas in '${word}': ${parsed.problem}`);
  return { reference: word.slice(0, equals), replicas: parsed.value };
}

function scaled(reference: string, present: ServiceSpec, replicas: number): ServiceSpec {
  const spec = clone(ServiceSpecSchema, present);
  spec.mode ??= create(ServiceModeSchema, { mode: { case: "replicated", value: { replicas: 1n } } });
  const { mode } = spec.mode;
  if (mode.case === "replicated") mode.value.replicas = BigInt(replicas);
  else if (mode.case === "replicatedJob") mode.value.totalCompletions = BigInt(replicas);
  else {
    throw new SwarmError(
      "invalid_argument",
      `${reference}: scale can only be used with replicated or replicated-job mode`,
    );
  }
  return spec;
}
