/** Lines of `service logs`: `web.1.<id>@node    | text`, as Docker prefixes them. Pure: messages in, text out. */
import { timestampMs } from "../../common/model/duration.ts";
import { slotName } from "../../common/model/names.ts";
import { escapeControls } from "../../common/model/text.ts";
import { type LogMessage, LogMessage_Stream, type TaskView } from "../../proto/gen/swarm/v1/control_pb.js";
import { shortId } from "./words.ts";

/** What is known of tasks whose lines may come. */
export type TaskNames = Map<string, TaskView>;

/** How lines look. */
export interface LogStyle {
  readonly raw: boolean;
  readonly timestamps: boolean;
  readonly details: boolean;
  readonly taskIds: boolean;
  readonly fullIds: boolean;
  readonly resolve: boolean;
  readonly colours: boolean;
  readonly names: TaskNames;
}

/** Told apart on dark and light terminals alike. */
const COLOURS = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];
const SPACE_AFTER_PREFIX = 4;

/** A line as its program meant it: a terminal ends each with a carriage return, which is shown only where it was sent. */
export function lineText(data: Uint8Array): string {
  return Buffer.from(data).toString("utf8").replace(/\r$/, "");
}

/** Formats messages; it keeps the widest prefix and each task's colour. */
export class LogPrinter {
  readonly #style: LogStyle;
  readonly #colours = new Map<string, number>();
  /** Tasks and streams whose last part had no end of line yet: the next part continues it. */
  readonly #open = new Set<string>();
  #width = 0;

  constructor(style: LogStyle) {
    this.#style = style;
    for (const [taskId, view] of style.names) this.#widen(taskId, view.task?.nodeId ?? "");
  }

  /** What belongs on stdout and on stderr. */
  print(messages: readonly LogMessage[]): { readonly out: string; readonly err: string } {
    let [out, err] = ["", ""];
    for (const message of messages) {
      const text = this.#line(message);
      if (message.stream === LogMessage_Stream.STDERR) err += text;
      else out += text;
    }
    return { out, err };
  }

  #line(message: LogMessage): string {
    const key = `${message.taskId}/${message.stream}`;
    const continued = this.#open.has(key);
    if (message.partial) this.#open.add(key);
    else this.#open.delete(key);
    const data = Buffer.from(message.data).toString("utf8");
    return `${continued ? "" : this.#head(message)}${data}${message.partial ? "" : "\n"}`;
  }

  #head(message: LogMessage): string {
    const { raw, timestamps, details } = this.#style;
    const stamp = timestamps ? `${isoTime(message)} ` : "";
    const detail = details ? `${this.#details(message)} ` : "";
    if (raw) return stamp + detail;
    this.#widen(message.taskId, message.nodeId);
    const prefix = this.#prefix(message.taskId, message.nodeId).padEnd(this.#width + SPACE_AFTER_PREFIX);
    return `${stamp}${this.#coloured(message.taskId, `${prefix}|`)} ${detail}`;
  }

  #prefix(taskId: string, nodeId: string): string {
    const { names, taskIds, fullIds, resolve } = this.#style;
    const view = names.get(taskId);
    const id = fullIds ? taskId : shortId(taskId);
    const node = resolve && view?.nodeHostname ? view.nodeHostname : nodeId;
    if (view?.task === undefined || !resolve) return escapeControls(`${id}@${node}`);
    const slot = slotName(view.serviceName, view.task);
    return escapeControls(`${slot}${taskIds ? `.${id}` : ""}@${node}`);
  }

  #details(message: LogMessage): string {
    const serviceId = this.#style.names.get(message.taskId)?.task?.serviceId ?? "";
    const facts = {
      "com.docker.swarm.node.id": message.nodeId,
      "com.docker.swarm.service.id": serviceId,
      "com.docker.swarm.task.id": message.taskId,
    };
    return Object.entries(facts)
      .map(([name, value]) => `${name}=${value}`)
      .join(",");
  }

  #widen(taskId: string, nodeId: string): void {
    this.#width = Math.max(this.#width, this.#prefix(taskId, nodeId).length);
  }

  #coloured(taskId: string, text: string): string {
    if (!this.#style.colours) return text;
    let colour = this.#colours.get(taskId);
    if (colour === undefined) {
      colour = COLOURS[this.#colours.size % COLOURS.length] ?? 0;
      this.#colours.set(taskId, colour);
    }
    return `\u001b[${colour}m${text}\u001b[0m`;
  }
}

/** RFC 3339 with nanoseconds. */
function isoTime({ timestamp }: LogMessage): string {
  const ms = timestampMs(timestamp) ?? 0;
  const nanos = String(timestamp?.nanos ?? 0).padStart(9, "0");
  return `${new Date(ms).toISOString().slice(0, 19)}.${nanos}Z`;
}
