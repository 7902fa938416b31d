import { clone, create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import {
  NetworkAttachmentConfigSchema,
  type ServiceSpec,
  ServiceSpecSchema,
  TaskSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { findNetwork } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { NETWORK_CONNECT_REFUSED, refuseFlags } from "../refused.ts";
import { waitAsAsked } from "../wait.ts";
import { changeService } from "./service-update.ts";

export const command: Command = {
  usage: "network connect [OPTIONS] NETWORK SERVICE",
  summary: "Attach a service to a network: its tasks are replaced, as its update policy says",
  flags: {
    alias: { kind: "list", value: "strings", help: "Add a name that the service has on the network" },
    ip: { kind: "text", value: "ip", help: "IPv4 address of the service's only task (e.g., 172.30.100.104)" },
    ip6: { kind: "text", value: "ip", help: "IPv6 address of the service's only task (e.g., 2001:db8::33)" },
    ...WAIT_FLAGS,
    ...NETWORK_CONNECT_REFUSED.flags,
  },
  words: { min: 2, max: 2 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, connect } = invocation;
  refuseFlags(flags, NETWORK_CONNECT_REFUSED);
  const [networkName = "", serviceName = ""] = words;
  const client = await connect();
  const { name: target } = await findNetwork(client, networkName);
  const addresses = [flags.text("ip"), flags.text("ip6")].filter((address) => address !== undefined);
  const attachment = create(NetworkAttachmentConfigSchema, { target, aliases: [...flags.list("alias")], addresses });
  const change = (present: ServiceSpec): ServiceSpec => {
    const spec = clone(ServiceSpecSchema, present);
    spec.task ??= create(TaskSpecSchema);
    if (spec.task.networks.some((each) => each.target === target)) {
      throw new SwarmError("already_exists", `service ${spec.name} is already on network ${target}`);
    }
    spec.task.networks.push(attachment);
    return spec;
  };
  const changed = await changeService(client, serviceName, change);
  return await waitAsAsked(invocation, [changed.target], changed.before);
}
