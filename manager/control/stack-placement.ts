/** Where a plan's new tasks would go, shown by the hosts' names. Pure. */
import { create } from "@bufbuild/protobuf";
import { isGlobal } from "../../common/model/service-mode.ts";
import {
  type ObjectPlan,
  ObjectPlan_Action,
  ObjectPlanSchema,
  PlacementPreviewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { UpdateConfig_Order } from "../../proto/gen/swarm/v1/types_pb.js";
import { eligibleNodes } from "../eligible-nodes.ts";
import { type PreviewedPlacement, previewPlacement, type WantedTasks } from "../scheduler/preview.ts";
import type { PlannedService, PlannedStack } from "../stacks/plan.ts";
import type { View } from "../store/view.ts";
import { desiredTasks } from "./views.ts";

/** The plan's objects; each service that gets tasks has its placement. */
export function withPlacements(view: View, planned: PlannedStack, nowMs: number): ObjectPlan[] {
  const wanted = planned.services.flatMap((service) => wantedTasks(view, service));
  const placements = previewPlacement(view, wanted, nowMs);
  const byName = new Map(wanted.map(({ spec }, index) => [spec.name, placements[index]] as const));
  return planned.objects.map((object) => {
    const placement = object.kind === "service" ? byName.get(object.name) : undefined;
    return placement ? create(ObjectPlanSchema, { ...object, placement: shown(view, placement) }) : object;
  });
}

function wantedTasks(view: View, { spec, present, action }: PlannedService): WantedTasks[] {
  if (action === ObjectPlan_Action.UNCHANGED || present?.service.stopped) return [];
  const replaces = action === ObjectPlan_Action.REPLACE_TASKS;
  const fresh = present === undefined || replaces;
  const ran = fresh ? undefined : present.service;
  const count = desiredTasks(view, ran, spec) - (fresh ? 0 : desiredTasks(view, ran, present.spec));
  if (count <= 0) return [];
  const nodeIds = isGlobal(spec) ? eligibleNodes(view, spec) : undefined;
  return [
    {
      serviceId: present?.service.id ?? spec.name,
      spec,
      count,
      replaces: replaces && spec.update?.order !== UpdateConfig_Order.START_FIRST,
      ...(nodeIds && fresh ? { nodeIds } : {}),
    },
  ];
}

function shown(view: View, { nodeIds, unplaced, explanation }: PreviewedPlacement) {
  const counts = new Map<string, number>();
  for (const id of nodeIds) {
    const name = view.nodes.get(id)?.description?.hostname || id;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return create(PlacementPreviewSchema, {
    nodes: [...counts]
      .sort(([left], [right]) => (left < right ? -1 : 1))
      .map(([nodeHostname, tasks]) => ({ nodeHostname, tasks: BigInt(tasks) })),
    unplaced: BigInt(unplaced),
    explanation,
  });
}
