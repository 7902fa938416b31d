/** Commands inside tasks' containers: checks what is asked and for whom, then lets caller and agent talk. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { taskStateName } from "../../common/model/task-state.ts";
import { checkExec } from "../../common/model/validate-exec.ts";
import type { ExecRequest, ExecResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ManagerFrame, ManagerFrameSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { requireId } from "./references.ts";

/** A larger message is refused: what waits in a stream is counted in messages. */
const STDIN_BYTES_MAX = 64 * 1024;

/**
 * Runs a command in a task. Ends with the command; leaving it, or `signal`, ends the command.
 * @throws invalid_argument: every bad field of `start`. not_found: no such task. failed_precondition: it does not run.
 * unavailable: its node cannot be asked, or was lost.
 */
export async function* execInTask(
  { store, streams }: ControlDependencies,
  requests: AsyncIterable<ExecRequest>,
  signal: AbortSignal,
): AsyncGenerator<ExecResponse, void, undefined> {
  const incoming = requests[Symbol.asyncIterator]();
  const { value: first } = await incoming.next();
  const start = first?.content.case === "start" ? first.content.value : undefined;
  if (!first || !start) throw new SwarmError("invalid_argument", "start: must be the first request");
  checkExec(start);
  const task = requireId(store.view.tasks, "task", start.taskId);
  requireRunning(task);
  const place = { nodeId: task.nodeId, taskId: task.id };
  for await (const { content } of streams.open(place, framesOf(first, incoming), signal)) {
    if (content.case === "exec") yield content.value;
  }
}

/** Throws `failed_precondition` that says what the task is instead. */
export function requireRunning({ id, status }: Task): void {
  const state = status?.state ?? TaskState.NEW;
  if (state === TaskState.RUNNING) return;
  throw new SwarmError("failed_precondition", `task ${id} is not running: it is ${taskStateName(state)}`);
}

async function* framesOf(
  first: ExecRequest,
  rest: AsyncIterator<ExecRequest>,
): AsyncGenerator<ManagerFrame, void, undefined> {
  yield create(ManagerFrameSchema, { content: { case: "exec", value: first } });
  while (true) {
    const { value: request, done } = await rest.next();
    if (done) return;
    checkRequest(request);
    yield create(ManagerFrameSchema, { content: { case: "exec", value: request } });
  }
}

function checkRequest({ content }: ExecRequest): void {
  if (content.case === "start") throw new SwarmError("invalid_argument", "start: only once");
  if (content.case === "stdin" && content.value.length > STDIN_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `stdin: at most ${STDIN_BYTES_MAX} bytes at a time`);
  }
  if (content.case === "signal" && (content.value < 1 || content.value > 64)) {
    throw new SwarmError("invalid_argument", `signal: ${content.value} is not from 1 to 64`);
  }
}
