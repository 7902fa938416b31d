/** The secrets and configs that this node's tasks use, as a manager last told them: in memory only. */
import { abortReason } from "../common/base/clock.ts";
import type { PinnedContent } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ContentPin } from "../proto/gen/swarm/v1/types_pb.js";

/** Where a task's contents come from. */
export interface ContentSource {
  /** Waits until a manager has told it: after a restart of the agent that may take a while. Throws the abort reason. */
  get(pin: ContentPin, signal: AbortSignal): Promise<PinnedContent>;
}

/** Bounded by what managers assign. */
export class ContentCache implements ContentSource {
  readonly #contents = new Map<string, PinnedContent>();
  readonly #waiting = new Map<string, Set<(content: PinnedContent) => void>>();

  put(content: PinnedContent): void {
    const key = keyOf(content);
    this.#contents.set(key, content);
    for (const tell of this.#waiting.get(key) ?? []) tell(content);
    this.#waiting.delete(key);
  }

  delete(pin: Pick<ContentPin, "objectId" | "version">): void {
    this.#contents.delete(keyOf(pin));
  }

  clear(): void {
    this.#contents.clear();
  }

  async get(pin: ContentPin, signal: AbortSignal): Promise<PinnedContent> {
    const key = keyOf(pin);
    const known = this.#contents.get(key);
    if (known) return known;
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve, reject } = Promise.withResolvers<PinnedContent>();
    const waiting = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, waiting.add(resolve));
    const leave = () => {
      waiting.delete(resolve);
      reject(abortReason(signal));
    };
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}

function keyOf({ objectId, version }: Pick<ContentPin, "objectId" | "version">): string {
  return `${objectId}/${version}`;
}
