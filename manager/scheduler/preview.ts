/** Where tasks would go that nobody has asked for yet: the placement of the loop, over a picture of the cluster. Pure. */
import { parseImageReference } from "../../common/model/image-reference.ts";
import type { PortConfig, ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { loadedImage } from "../store/loaded-image.ts";
import type { View } from "../store/view.ts";
import { ClusterState } from "./cluster-state.ts";
import { occupancyOf } from "./occupancy.ts";
import { fitsOn, placeGroup } from "./place.ts";
import { isEncrypted, type Requirements, requirementsOf } from "./requirements.ts";

/** New tasks of one service. */
export interface WantedTasks {
  /** The service's id, or any word of its own for one that does not exist yet. */
  readonly serviceId: string;
  readonly spec: ServiceSpec;
  /** How many; for a global service one on each of `nodeIds`. */
  readonly count: number;
  readonly nodeIds?: readonly string[];
  /** Whether the service's present tasks make room first. */
  readonly replaces: boolean;
}

export interface PreviewedPlacement {
  /** Node ids, once per task. */
  readonly nodeIds: readonly string[];
  readonly unplaced: number;
  readonly explanation: string;
}

/** Places all of `wanted`, one service after the other, as if they were asked for now. */
export function previewPlacement(view: View, wanted: readonly WantedTasks[], nowMs: number): PreviewedPlacement[] {
  const state = pictureOf(view);
  for (const { serviceId, replaces } of wanted) {
    if (replaces) for (const { id } of view.tasksOfService(serviceId)) state.setTask(id, undefined);
  }
  return wanted.map((tasks) => {
    const ports = tasks.spec.endpoint?.ports ?? [];
    const requirements = requirementsIn(view, tasks.serviceId, tasks.spec, ports);
    return tasks.nodeIds === undefined
      ? spread(state, requirements, tasks.count, nowMs)
      : bound(state, requirements, tasks.nodeIds);
  });
}

function spread(state: ClusterState, requirements: Requirements, count: number, nowMs: number): PreviewedPlacement {
  const taskIds = Array.from({ length: count }, (_, index) => `${requirements.serviceId} ${index}`);
  const { placed, unplaced, explanation } = placeGroup(state, { requirements, taskIds }, nowMs);
  return { nodeIds: placed.map(({ nodeId }) => nodeId), unplaced: unplaced.length, explanation };
}

function bound(state: ClusterState, requirements: Requirements, nodeIds: readonly string[]): PreviewedPlacement {
  const fitting: string[] = [];
  let explanation = "";
  for (const nodeId of nodeIds) {
    const answer = fitsOn(state, nodeId, requirements);
    if (answer.fits) {
      fitting.push(nodeId);
      state.setTask(`${requirements.serviceId} ${nodeId}`, { nodeId, requirements, counted: true });
    } else explanation = answer.explanation;
  }
  return { nodeIds: fitting, unplaced: nodeIds.length - fitting.length, explanation };
}

function pictureOf(view: View): ClusterState {
  const state = new ClusterState();
  const known = new Map<string, Requirements | undefined>();
  for (const node of view.nodes.values()) state.setNode(node);
  for (const task of view.tasks.values()) {
    const key = `${task.serviceId}/${task.specVersion}`;
    if (!known.has(key)) {
      const spec = view.specVersion(task.serviceId, task.specVersion)?.spec;
      const ports = view.services.get(task.serviceId)?.ports ?? [];
      known.set(key, spec && requirementsIn(view, task.serviceId, spec, ports));
    }
    const requirements = known.get(key);
    state.setTask(task.id, requirements && occupancyOf(task, requirements));
  }
  return state;
}

function requirementsIn(view: View, serviceId: string, spec: ServiceSpec, ports: readonly PortConfig[]): Requirements {
  const image = parseImageReference(spec.task?.container?.image ?? "");
  const loaded = image.ok ? loadedImage(view, image.reference) : undefined;
  const platforms = loaded?.platform ? [loaded.platform] : [];
  return requirementsOf({ serviceId, spec, ports, platforms, encrypted: isEncrypted(view, spec) });
}
