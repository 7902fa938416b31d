/** What nodes tell of their hosts' settings that are in the way of traffic, for people who ask for the node. */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { EngineDescriptionSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Store } from "../store/store.ts";
import { changeDescription } from "./change-description.ts";
import { checkDescription } from "./registration.ts";

/** Stores it as the fact `network`; empty: there is none. Throws as `changeDescription`, `invalid_argument` when it is too long. */
export async function storeNetworkFact(
  parts: { readonly store: Store; readonly clock: Clock },
  nodeId: string,
  network: string,
  signal: AbortSignal,
): Promise<void> {
  await changeDescription(
    parts,
    nodeId,
    (description) => {
      const engine = description.engine ?? create(EngineDescriptionSchema);
      const { network: before = "", ...others } = engine.facts;
      if (before === network) return undefined;
      const facts = network === "" ? others : { ...others, network };
      return checkDescription({ ...description, engine: { ...engine, facts } });
    },
    signal,
  );
}
