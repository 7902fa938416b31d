/** One reader's logs, gathered from all the nodes that have a part of them. */
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { isId } from "../../common/base/id.ts";
import type { Scope } from "../../common/base/scope.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { type LogMessage, type LogMessages, LogMessagesSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { LogSubscription } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";
import { whyUnreachable } from "../why-unreachable.ts";
import { HandOver } from "./hand-over.ts";
import { nodesOf, selects } from "./selection.ts";

/** What a gathering needs. */
export interface GatheringOptions {
  readonly view: View;
  readonly clock: Clock;
  readonly subscription: LogSubscription;
  /** Owns the waiting for nodes; its end is the gathering's. */
  readonly scope: Scope;
}

/** How long a node may take to open its stream, the first time or again after it broke. */
const ANSWER_MS_MAX = 5_000;
/** Bytes of lines in one message to the reader, above which nothing more is added. */
const MESSAGE_BYTES = 1024 * 1024;

/**
 * What a node still owes. Without `follow` the gathering ends when no node is `awaited` or `open`.
 *
 *     awaited ──stream──▶ open ──"that was all"──▶ closed
 *        │  ◀──broke────────┘
 *        └──no answer──▶ unreachable ──stream──▶ open
 */
interface NodeAnswer {
  state: "awaited" | "open" | "closed" | "unreachable";
  /** Counts its streams: only the newest counts. */
  streams: number;
}

interface Delivery {
  readonly nodeId: string;
  readonly messages: readonly LogMessage[];
  /** From a stream that was opened again, which begins anew. */
  readonly again: boolean;
}

/** One node's stream into a gathering. */
export interface NodeStream {
  /** Hands lines over; resolves when the reader took them. Throws `aborted` when a newer stream of the node is there. */
  deliver(messages: readonly LogMessage[], signal: AbortSignal): Promise<void>;
  /** The stream is over: `complete` when the node said that it sent all. */
  end(complete: boolean): void;
}

export class Gathering {
  readonly #options: GatheringOptions;
  readonly #wakeup = new Wakeup();
  readonly #deliveries = new HandOver<Delivery>(() => this.#wakeup.wake());
  readonly #nodes = new Map<string, NodeAnswer>();
  /** The last line of each task that the reader got: a stream opened again repeats what came before. */
  readonly #delivered = new Map<string, Timestamp>();
  #unreachable: string[] = [];

  constructor(options: GatheringOptions) {
    this.#options = options;
    const { view, subscription, scope } = options;
    const follow = subscription.options?.follow === true;
    // Before the nodes are listed, so that none is missed in between.
    const changes = follow ? view.changes(scope.signal) : undefined;
    for (const nodeId of nodesOf(view, subscription.selector)) this.#expect(nodeId);
    if (changes) scope.spawn("follow tasks", () => this.#followTasks(changes));
  }

  get signal(): AbortSignal {
    return this.#options.scope.signal;
  }

  /** Whether nothing more can come. */
  get over(): boolean {
    if (this.#options.subscription.options?.follow) return false;
    const owed = this.#nodes.values().some(({ state }) => state === "awaited" || state === "open");
    return !owed && this.#deliveries.size === 0 && this.#unreachable.length === 0;
  }

  /** The lines as they come in, at the pace of who reads this. Throws the abort reason. */
  async *read(): AsyncGenerator<LogMessages, void, undefined> {
    while (!this.over) {
      const next = this.#next();
      if (next) yield next;
      else await this.#wakeup.wait(this.signal);
    }
  }

  /** A node begins to publish. Throws `permission_denied` for a node that the cluster does not know. */
  open(nodeId: string): NodeStream {
    const node = this.#nodes.get(nodeId) ?? { state: "awaited", streams: 0 };
    if (!this.#nodes.has(nodeId) && !this.#options.view.nodes.has(nodeId)) {
      throw new SwarmError("permission_denied", "publish logs: no such node");
    }
    this.#nodes.set(nodeId, node);
    node.state = "open";
    const stream = ++node.streams;
    return {
      deliver: async (messages, signal) => {
        if (node.streams !== stream) throw new SwarmError("aborted", "a newer stream of this node replaced it");
        if (messages.length > 0) await this.#deliveries.send({ nodeId, messages, again: stream > 1 }, signal);
      },
      end: (complete) => {
        if (node.streams !== stream) return;
        if (complete) node.state = "closed";
        else this.#await(nodeId, node);
        this.#wakeup.wake();
      },
    };
  }

  /** With `follow`: nodes that get their first task of it later. */
  async #followTasks(changes: ReturnType<View["changes"]>): Promise<void> {
    const { selector } = this.#options.subscription;
    for await (const batch of changes) {
      for (const { kind, after } of batch) {
        if (kind === "task" && after?.nodeId && selects(selector, after)) this.#expect(after.nodeId);
      }
    }
  }

  #expect(nodeId: string): void {
    if (this.#nodes.has(nodeId)) return;
    const node: NodeAnswer = { state: "awaited", streams: 0 };
    this.#nodes.set(nodeId, node);
    const reason = whyUnreachable(this.#options.view, nodeId);
    if (reason === undefined) this.#await(nodeId, node);
    else this.#giveUp(nodeId, node, reason);
  }

  #await(nodeId: string, node: NodeAnswer): void {
    const { view, clock, scope } = this.#options;
    const { streams } = node;
    node.state = "awaited";
    scope.spawn("wait for a node's logs", async (signal) => {
      await clock.sleep(ANSWER_MS_MAX, signal);
      if (node.state !== "awaited" || node.streams !== streams) return;
      this.#giveUp(nodeId, node, whyUnreachable(view, nodeId) ?? "no answer");
    });
  }

  #giveUp(nodeId: string, node: NodeAnswer, reason: string): void {
    node.state = "unreachable";
    const hostname = this.#options.view.nodes.get(nodeId)?.description?.hostname;
    this.#unreachable.push(`${hostname || nodeId}: ${reason}`);
    this.#wakeup.wake();
  }

  /** What there is now, as one message. */
  #next(): LogMessages | undefined {
    const unreachable = this.#unreachable;
    const messages: LogMessage[] = [];
    let sizeBytes = 0;
    while (sizeBytes < MESSAGE_BYTES) {
      const delivery = this.#deliveries.take();
      if (!delivery) break;
      for (const message of delivery.messages) {
        if (!this.#admits(delivery, message)) continue;
        messages.push(message);
        sizeBytes += message.data.length;
      }
    }
    if (messages.length + unreachable.length === 0) return undefined;
    this.#unreachable = [];
    return create(LogMessagesSchema, { messages, unreachable });
  }

  /** A node speaks for its own tasks only, of those asked for; nothing is delivered twice. */
  #admits({ nodeId, again }: Delivery, { taskId, nodeId: claimed, timestamp }: LogMessage): boolean {
    const { view, subscription } = this.#options;
    const task = view.tasks.get(taskId);
    // A task that this manager's view does not show yet, or not any more, has only its form to go by.
    const own = task ? task.nodeId === nodeId && selects(subscription.selector, task) : isId(taskId);
    if (!own || claimed !== nodeId) return false;
    if (!timestamp) return true;
    const last = this.#delivered.get(taskId);
    if (again && last && compareTimes(timestamp, last) <= 0) return false;
    this.#delivered.set(taskId, timestamp);
    return true;
  }
}

function compareTimes(left: Timestamp, right: Timestamp): number {
  return left.seconds === right.seconds ? left.nanos - right.nanos : left.seconds < right.seconds ? -1 : 1;
}
