/** Goal: who is gone is soon DOWN, who stands in a queue of many is not. Method: the loop over a view that the test changes, on a clock of its own. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { NodeSchema, SessionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { GRACE_MS_AFTER_ELECTION } from "./decide.ts";
import { NodeMonitor } from "./node-monitor.ts";

const STEP_MS = 100;

/** A leader that has seen `count` nodes with sessions, which all end now. */
function world(count: number) {
  const clock = new FakeClock();
  const ids = Array.from({ length: count }, (_, index) => `node-${index}`);
  const status = { state: NodeStatus_State.READY };
  const nodes = new Map(ids.map((id) => [id, create(NodeSchema, { id, status })]));
  const sessions = new Map(ids.map((nodeId) => [nodeId, create(SessionSchema, { nodeId })]));
  const view = { nodes, sessions, tasksOfNode: () => [] } as unknown as View;
  const monitor = new NodeMonitor({ clock, logger: silentLogger });
  monitor.decide(view, ids);
  sessions.clear();
  /** Who is called DOWN while `steps` of 100 ms go by, in each of which one node more is back, as long as there are any in `returning`. */
  const pass = async (steps: number, returning: string[] = []): Promise<readonly string[]> => {
    const down: string[] = [];
    for (let step = 0; step < steps; step++) {
      const nodeId = returning.shift();
      if (nodeId !== undefined) sessions.set(nodeId, create(SessionSchema, { nodeId }));
      for (const group of monitor.decide(view, ids).groups) {
        const { object } = group as { readonly object: { readonly id: string } };
        down.push(object.id);
        nodes.delete(object.id);
      }
      await clock.advance(STEP_MS);
    }
    return down;
  };
  return { ids, pass };
}

test("one that does not come back is DOWN after its grace time", async () => {
  const { pass } = world(1);
  expect(await pass(GRACE_MS_AFTER_ELECTION / STEP_MS)).toEqual([]);
  expect(await pass(1)).toEqual(["node-0"]);
});

test("while a crowd comes back, nobody who may stand in its queue is DOWN; who has not come with it is", async () => {
  const { ids, pass } = world(101);
  expect(await pass(100, ids.slice(1))).toEqual([]);
  expect(await pass(19)).toEqual([]);
  expect(await pass(1)).toEqual(["node-0"]);
});

test("a queue that does not end holds up nobody for more than half a minute", async () => {
  const { ids, pass } = world(401);
  expect(await pass(300, ids.slice(1, 301))).toEqual([]);
  expect(await pass(1)).toEqual(["node-0", ...ids.slice(301)]);
});

test("a few that come back hold up nobody", async () => {
  const { ids, pass } = world(10);
  expect(await pass(GRACE_MS_AFTER_ELECTION / STEP_MS - 9)).toEqual([]);
  expect(await pass(10, ids.slice(1))).toEqual(["node-0"]);
});
