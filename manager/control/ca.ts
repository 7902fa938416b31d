/** The cluster's certificate authority, as people see it. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GetCaResponseSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ControlDependencies } from "./dependencies.ts";

export async function getCa(
  { authority }: ControlDependencies,
  signal: AbortSignal,
): Promise<MessageInitShape<typeof GetCaResponseSchema>> {
  await authority.ensure(signal);
  return { root: authority.root };
}
