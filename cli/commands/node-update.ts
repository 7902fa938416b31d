import { clone, create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import {
  type NodeSpec,
  NodeSpec_Availability,
  NodeSpec_Role,
  NodeSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { findNode, retryAborted } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { nameOf, parsePair } from "../flags/lists.ts";
import type { Flags } from "../flags/parse.ts";
import { choiceFlag, parsedOrThrow } from "../flags/values.ts";

export const command: Command = {
  usage: "node update [OPTIONS] NODE",
  summary: "Update a node",
  flags: {
    availability: { kind: "text", value: "string", help: 'Availability of the node ("active", "pause", "drain")' },
    "label-add": { kind: "list", value: "list", help: "Add or update a node label (key=value)" },
    "label-rm": { kind: "list", value: "list", help: "Remove a node label if exists" },
    role: { kind: "text", value: "string", help: 'Role of the node ("worker", "manager")' },
  },
  words: { min: 1, max: 1 },
  run,
};

async function run({ flags, words, io, connect }: Invocation): Promise<number> {
  const [reference = ""] = words;
  changed(create(NodeSpecSchema), flags, reference, true);
  const client = await connect();
  await retryAborted(async () => {
    const node = await findNode(client, reference);
    const spec = changed(node.spec ?? create(NodeSpecSchema), flags, reference, false);
    await client.updateNode({ nodeId: node.id, version: node.meta?.version ?? 0n, spec });
  });
  io.out(`${reference}\n`);
  return 0;
}

/** The spec after the flags; `dry` only checks them, before anything is asked of the manager. */
function changed(present: NodeSpec, flags: Flags, reference: string, dry: boolean): NodeSpec {
  const spec = clone(NodeSpecSchema, present);
  spec.availability =
    choiceFlag(flags, "availability", {
      active: NodeSpec_Availability.ACTIVE,
      pause: NodeSpec_Availability.PAUSE,
      drain: NodeSpec_Availability.DRAIN,
    }) ?? spec.availability;
  spec.desiredRole =
    choiceFlag(flags, "role", { worker: NodeSpec_Role.WORKER, manager: NodeSpec_Role.MANAGER }) ?? spec.desiredRole;
  const added = flags.list("label-add").map((text) => parsedOrThrow("label-add", text, parsePair));
  if (dry) return spec;
  for (const text of flags.list("label-rm")) {
    const key = nameOf(text);
    if (!Object.hasOwn(spec.labels, key)) {
      throw new SwarmError("failed_precondition", `node ${reference}: key ${key} doesn't exist in its labels`);
    }
    delete spec.labels[key];
  }
  spec.labels = { ...spec.labels, ...Object.fromEntries(added) };
  return spec;
}
