import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  AssignmentChange_Action,
  AssignmentChangeSchema,
  NetworkAssignmentSchema,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { TaskSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { TaskStatusSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { ClusterNetworkState } from "./cluster-network.ts";
import type { OwnTask } from "./executor.ts";

function told(state: ClusterNetworkState, action: AssignmentChange_Action, id: string, subnet = ""): void {
  const value = create(NetworkAssignmentSchema, { id, name: id, ipam: [{ subnet }], internal: true });
  state.apply(create(AssignmentChangeSchema, { action, item: { case: "network", value } }));
}

function taskOn(...networkIds: readonly string[]): OwnTask {
  const networks = networkIds.map((networkId) => ({ networkId, addresses: [] }));
  const task = create(TaskSchema, { id: "t", networks });
  return { task, status: create(TaskStatusSchema), serving: false, ingressAddresses: [], nameservers: [] };
}

const { UPDATE, REMOVE } = AssignmentChange_Action;
const idsOf = (state: ClusterNetworkState, ...own: readonly OwnTask[]) => {
  return state.snapshot(own).networks.map(({ id }) => id);
};

test("a removed network stays what it was until the last task of this node has left it", () => {
  const state = new ClusterNetworkState();
  told(state, UPDATE, "front", "10.0.1.0/24");
  told(state, REMOVE, "front");
  expect(idsOf(state, taskOn("front"))).toEqual(["front"]);
  expect(state.network("front")?.internal).toBe(true);
  expect(idsOf(state)).toEqual([]);
  expect(state.network("front")).toBeUndefined();
  expect(idsOf(state, taskOn("front"))).toEqual([]);
});

test("so does one that a complete set lacks; one that it has is there once", () => {
  const state = new ClusterNetworkState();
  for (const [id, subnet] of Object.entries({ front: "10.0.1.0/24", back: "10.0.2.0/24" }))
    told(state, UPDATE, id, subnet);
  state.clear();
  told(state, UPDATE, "back", "10.0.2.0/24");
  expect(idsOf(state, taskOn("front"), taskOn("back"))).toEqual(["back", "front"]);
});

test("a new network has the addresses of the removed one that it overlaps", () => {
  const state = new ClusterNetworkState();
  told(state, UPDATE, "old", "10.0.1.0/24");
  told(state, REMOVE, "old");
  told(state, UPDATE, "new", "10.0.0.0/16");
  expect(idsOf(state, taskOn("old"))).toEqual(["new"]);
});
