/** New versions of a running task's secrets and configs: its files are replaced, then its process is told. */
import type { TaskId } from "../common/base/id.ts";
import { recordContents, writeContents } from "./container-contents.ts";
import { containerSettings } from "./container-settings.ts";
import type { AssignedTask } from "./executor.ts";
import { containerDirectory, contentsOf, type NodeRuntime } from "./node-runtime.ts";
import type { Supervisor } from "./runtime/supervisor.ts";
import { signalNumber } from "./stop-signal.ts";

/**
 * Brings the files to what the template pins, and sends each signal that a new pin names once. The new versions are
 * recorded last: an agent that dies in between signals once more rather than not at all.
 */
export async function changeContents(
  assigned: AssignedTask,
  node: NodeRuntime,
  supervisor: Supervisor,
  signal: AbortSignal,
): Promise<void> {
  const { task, contents } = assigned;
  const container = containerDirectory(node.directories, task.id as TaskId);
  const settings = containerSettings(assigned, node.names, { ...node.directories, container });
  if (settings.contents.files.length === 0) return;
  const directory = contentsOf(node.directories, task.id as TaskId);
  const { clock, logger } = node;
  const facts = { clock, contents, context: settings.context, env: settings.spec.env };
  const fresh = await writeContents(directory, settings.contents, facts, signal);
  const { status } = await supervisor.state(signal);
  const signals = new Set(fresh.map(({ pin }) => pin.signal).filter(Boolean));
  if (status === "running") {
    for (const name of signals) await supervisor.signal({ number: signalNumber(name), all: false }, signal);
  }
  recordContents(directory, settings.contents);
  const files = fresh.map(({ kind, name }) => `${kind} ${name}`);
  logger.info({ taskId: task.id, files, signals: [...signals] }, "contents changed in place");
}
