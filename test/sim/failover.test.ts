/**
 * Goal: what an outage of the managers or of agents must not do: touch containers that run. Method: a settled cluster in
 * the simulator, one fault, and then the history: no task may have been made, none stopped.
 */
import { expect, test } from "vitest";
import { seededRandom } from "../../common/base/random.ts";
import { EventLog } from "./event-log.ts";
import { SimClock } from "./sim-clock.ts";
import { World } from "./world.ts";

const SEEDS = Array.from({ length: 10 }, (_, index) => index + 1);

/** A cluster whose nodes run three tasks each. */
async function settledWorld(seed: number): Promise<World> {
  const clock = new SimClock();
  const world = new World({ clock, random: seededRandom(seed), log: new EventLog(clock) });
  world.begin();
  await clock.run(5_000);
  const [manager] = world.managers;
  if (!manager) throw new Error("no manager");
  const replicas = BigInt(3 * world.nodes.length);
  const mode = { mode: { case: "replicated" as const, value: { replicas } } };
  const created = world.control(manager).createService({
    spec: { name: "web", mode, task: { container: { image: "app:1" } } },
  });
  await clock.run(30_000);
  await created;
  expect(world.checker.unsettled()).toEqual([]);
  return world;
}

/** Lets `fault` happen, waits until all is well again, and expects the same tasks as before. */
async function expectUntouched(seed: number, fault: (world: World) => Promise<void>): Promise<void> {
  const world = await settledWorld(seed);
  const before = world.nodes.map(({ host }) => host.running);
  await fault(world);
  await world.clock.run(30_000);
  const message = `seed ${seed}:\n${world.log.tail.join("\n")}`;
  expect(world.violations, message).toEqual([]);
  expect(world.checker.unsettled(), message).toEqual([]);
  expect(
    world.nodes.map(({ host }) => host.running),
    message,
  ).toEqual(before);
  world.end();
}

test.each(SEEDS)("all managers away for ten minutes: no task is touched (seed %i)", async (seed) => {
  await expectUntouched(seed, async (world) => {
    for (const manager of world.managers) world.kill(manager);
    await world.clock.run(600_000);
    world.restartAll();
  });
});

test.each(SEEDS)("every manager killed in turn: no task is touched (seed %i)", async (seed) => {
  await expectUntouched(seed, async (world) => {
    for (const manager of world.managers) {
      world.kill(manager);
      await world.clock.run(3_000);
      world.restartAll();
      await world.clock.run(20_000);
    }
  });
});

test.each(SEEDS)("every agent killed and started again at once: no task is touched (seed %i)", async (seed) => {
  await expectUntouched(seed, async (world) => {
    for (const node of world.nodes) world.kill(node);
    await world.clock.run(1_000);
    world.restartAll();
  });
});

test.each(SEEDS)("every manager stopped for ten seconds: no task is touched (seed %i)", async (seed) => {
  await expectUntouched(seed, async (world) => {
    for (const manager of world.managers) manager.process?.stop();
    await world.clock.run(10_000);
    for (const manager of world.managers) manager.process?.resume();
  });
});
