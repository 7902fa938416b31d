/**
 * Goal: every pair of observed and desired state has one right step. Method: a table of all pairs, printed as a grid.
 */
import { expect, test } from "vitest";
import { SwarmError } from "../common/base/error.ts";
import { isTerminal, mayMove } from "../common/model/task-state.ts";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { adopt, nextStep, outcomeOfExit, outcomeOfFailure, recover } from "./task-step.ts";

const STATES = Object.values(TaskState).filter((state) => typeof state === "number");
const DESIRED = [TaskState.READY, TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.REMOVE];

function stepOf(observed: TaskState, desired: TaskState, options = {}) {
  return nextStep({ observed, desired, removed: false, ...options });
}

test("all pairs of observed and desired state", () => {
  const rows = STATES.map((observed) => {
    const steps = DESIRED.map((desired) => stepOf(observed, desired).kind.padEnd(9));
    return `${TaskState[observed].padEnd(10)}${steps.join("")}`.trimEnd();
  });
  const head = `${"".padEnd(10)}${DESIRED.map((desired) => TaskState[desired].padEnd(9)).join("")}`.trimEnd();
  expect([head, ...rows].join("\n")).toMatchInlineSnapshot(`
    "          READY    RUNNING  COMPLETE SHUTDOWN REMOVE
    NEW       accept   accept   accept   shutdown shutdown
    PENDING   accept   accept   accept   shutdown shutdown
    ASSIGNED  accept   accept   accept   shutdown shutdown
    ACCEPTED  prepare  prepare  prepare  shutdown shutdown
    PREPARING prepare  prepare  prepare  shutdown shutdown
    READY     rest     start    start    shutdown shutdown
    STARTING  start    start    start    shutdown shutdown
    RUNNING   watch    watch    watch    shutdown shutdown
    COMPLETE  rest     rest     rest     rest     rest
    SHUTDOWN  rest     rest     rest     rest     rest
    FAILED    rest     rest     rest     rest     rest
    REJECTED  rest     rest     rest     rest     rest
    REMOVE    rest     rest     rest     rest     rest
    ORPHANED  rest     rest     rest     rest     rest"
  `);
});

test("a removed task is removed whatever its state", () => {
  for (const observed of STATES) {
    for (const desired of DESIRED) expect(stepOf(observed, desired, { removed: true })).toEqual({ kind: "remove" });
  }
});

test("an exit means what was asked for", () => {
  const exit = { exitCode: 3, oomKilled: false };
  expect(outcomeOfExit(TaskState.RUNNING, exit)).toMatchObject({
    state: TaskState.FAILED,
    error: "task: non-zero exit (3)",
  });
  expect(outcomeOfExit(TaskState.SHUTDOWN, exit)).toMatchObject({ state: TaskState.SHUTDOWN, exit });
  expect(outcomeOfExit(TaskState.RUNNING, { exitCode: 0, oomKilled: false })).toMatchObject({
    state: TaskState.COMPLETE,
  });
  expect(outcomeOfExit(TaskState.RUNNING, { exitCode: 137, oomKilled: true }).error).toBe(
    "task: non-zero exit (137): out of memory",
  );
  expect(outcomeOfExit(TaskState.RUNNING, { exitCode: 0, oomKilled: false, reason: "unhealthy: no" })).toMatchObject({
    state: TaskState.FAILED,
    error: "task: unhealthy: no",
  });
});

test("every outcome is a move that an agent may make", () => {
  const failure = new SwarmError("not_found", "no such image");
  for (const observed of STATES.filter((state) => state >= TaskState.ACCEPTED && !isTerminal(state))) {
    expect(mayMove("agent", observed, outcomeOfFailure(observed, failure).state)).toBe(true);
    for (const after of [recover(observed, false), adopt(observed)]) {
      if (after) expect(mayMove("agent", observed, after.state)).toBe(true);
    }
  }
  expect(recover(TaskState.RUNNING, true)).toBeUndefined();
  expect(recover(TaskState.READY, false)).toBeUndefined();
  expect(adopt(TaskState.READY)).toBeUndefined();
});
