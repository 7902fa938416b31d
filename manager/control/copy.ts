/** Files of tasks' containers: checks what is asked and for whom, then lets caller and agent talk. */
import { create } from "@bufbuild/protobuf";
import { type FieldProblem, invalidFields, SwarmError } from "../../common/base/error.ts";
import { valueProblem } from "../../common/model/text.ts";
import type { CopyRequest, CopyResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ManagerFrame, ManagerFrameSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { requireRunning } from "./exec.ts";
import { requireId } from "./references.ts";

/** A larger message is refused: what waits in a stream is counted in messages. */
const DATA_BYTES_MAX = 64 * 1024;
/** Linux's PATH_MAX less its NUL. */
const PATH_LENGTH_MAX = 4_095;

/**
 * Copies files out of a task or into it. Ends when all is copied; leaving it, or `signal`, ends the copying, and what was
 * copied stays.
 * @throws invalid_argument: every bad field. not_found: no such task, or nothing at the path. failed_precondition: the task does
 * not run, or its files may not be written to. unavailable: its node cannot be asked, or was lost.
 */
export async function* copyFiles(
  { store, streams }: ControlDependencies,
  requests: AsyncIterable<CopyRequest>,
  signal: AbortSignal,
): AsyncGenerator<CopyResponse, void, undefined> {
  const incoming = requests[Symbol.asyncIterator]();
  const { value: first } = await incoming.next();
  const { case: direction, value: asked } = first?.content ?? {};
  if (!first || (direction !== "from" && direction !== "to")) {
    throw new SwarmError("invalid_argument", "from or to: must be the first request");
  }
  check(`${direction}.path`, asked.path);
  const task = requireId(store.view.tasks, "task", asked.taskId);
  requireRunning(task);
  const place = { nodeId: task.nodeId, taskId: task.id };
  const refusal: { reason?: SwarmError } = {};
  try {
    for await (const { content } of streams.open(place, framesOf(first, incoming, refusal), signal)) {
      if (content.case === "copy") yield content.value;
    }
  } catch (reason) {
    // A request that is refused ends the stream to the agent: the caller hears why.
    throw refusal.reason ?? reason;
  }
}

async function* framesOf(
  first: CopyRequest,
  rest: AsyncIterator<CopyRequest>,
  refusal: { reason?: SwarmError },
): AsyncGenerator<ManagerFrame, void, undefined> {
  yield create(ManagerFrameSchema, { content: { case: "copy", value: first } });
  while (true) {
    const { value: request, done } = await rest.next();
    if (done) return;
    try {
      checkRequest(request);
    } catch (reason) {
      refusal.reason = SwarmError.from(reason);
      throw reason;
    }
    yield create(ManagerFrameSchema, { content: { case: "copy", value: request } });
  }
}

function checkRequest({ content }: CopyRequest): void {
  if (content.case === "from" || content.case === "to") {
    throw new SwarmError("invalid_argument", `${content.case}: only once, and first`);
  }
  if (content.case === "target") check("target.directory", content.value.directory);
  if (content.case === "data" && content.value.length > DATA_BYTES_MAX) {
    throw new SwarmError("invalid_argument", `data: at most ${DATA_BYTES_MAX} bytes at a time`);
  }
}

function check(field: string, path: string): void {
  const problem = path === "" ? "must not be empty" : valueProblem(path, PATH_LENGTH_MAX);
  const problems: FieldProblem[] = problem === undefined ? [] : [{ field, problem }];
  if (problems.length > 0) throw invalidFields(problems);
}
