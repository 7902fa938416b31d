/** What the leading manager does besides serving: it runs the loops. They meet in the store and nowhere else. */
import { Scope } from "../common/base/scope.ts";
import { Allocator } from "./allocator/allocator.ts";
import { RootRotator } from "./ca/root-rotator.ts";
import { type LoopContext, runLoop } from "./loop.ts";
import { NodeMonitor } from "./node-monitor/node-monitor.ts";
import { Orchestrator } from "./orchestrator/orchestrator.ts";
import { ContentReaper } from "./reaper/content-reaper.ts";
import { Reaper } from "./reaper/reaper.ts";
import { Scheduler } from "./scheduler/scheduler.ts";
import { StackKeeper } from "./stacks/stack-keeper.ts";

/** Runs the loops until `signal` aborts or one fails; a failing loop ends the leadership. */
export async function runLeader(context: LoopContext, signal: AbortSignal): Promise<void> {
  const loops = [
    new NodeMonitor(context),
    new Orchestrator(context),
    new Allocator(context),
    new Scheduler(context),
    new Reaper(),
    new ContentReaper(context),
    new StackKeeper(context),
    new RootRotator(context),
  ];
  await using scope = new Scope(signal);
  for (const loop of loops) {
    const logger = context.logger.child({ loop: loop.name });
    scope.spawn(loop.name, (inner) => runLoop(loop, { ...context, logger }, inner));
  }
  await scope.join();
}
