import { clone } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { type ServiceSpec, ServiceSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { findNetwork } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { waitAsAsked } from "../wait.ts";
import { changeService } from "./service-update.ts";

export const command: Command = {
  usage: "network disconnect [OPTIONS] NETWORK SERVICE",
  summary: "Take a service off a network: its tasks are replaced, as its update policy says",
  flags: {
    force: { kind: "boolean", short: "f", help: "A service that is not on the network is fine" },
    ...WAIT_FLAGS,
  },
  words: { min: 2, max: 2 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, connect } = invocation;
  const [networkName = "", serviceName = ""] = words;
  const client = await connect();
  const { name } = await findNetwork(client, networkName);
  const change = (present: ServiceSpec): ServiceSpec => {
    const spec = clone(ServiceSpecSchema, present);
    const kept = spec.task?.networks.filter(({ target }) => target !== name) ?? [];
    if (kept.length === (spec.task?.networks.length ?? 0) && !flags.on("force")) {
      throw new SwarmError("failed_precondition", `service ${spec.name} is not on network ${name}`);
    }
    if (spec.task) spec.task.networks = kept;
    return spec;
  };
  const changed = await changeService(client, serviceName, change);
  return await waitAsAsked(invocation, [changed.target], changed.before);
}
