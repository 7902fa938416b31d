import { abortReason } from "../../common/base/clock.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import type { Kind, Objects } from "./kinds.ts";

/** An object that came (no `before`), went (no `after`) or changed. */
export type Change = {
  readonly [K in Kind]: {
    readonly kind: K;
    readonly id: string;
    readonly before: Objects[K] | undefined;
    readonly after: Objects[K] | undefined;
  };
}[Kind];

/**
 * The changes that one reader has not seen yet. While it is slow, changes of one object melt into one, so that the feed
 * is bounded by the number of objects; one that came and went meanwhile was never there.
 */
export class ChangeFeed {
  readonly #pending = new Map<Kind, Map<string, Change>>();
  readonly #wakeup = new Wakeup();

  /** Adds a change; `flush` tells the reader. */
  add(change: Change): void {
    let ofKind = this.#pending.get(change.kind);
    if (!ofKind) {
      ofKind = new Map();
      this.#pending.set(change.kind, ofKind);
    }
    const earlier = ofKind.get(change.id);
    const before = earlier ? earlier.before : change.before;
    if (before === undefined && change.after === undefined) ofKind.delete(change.id);
    // Both halves are of the same kind: the map is keyed by it.
    else ofKind.set(change.id, earlier ? ({ ...change, before } as Change) : change);
  }

  flush(): void {
    if (this.#pending.size > 0) this.#wakeup.wake();
  }

  /** Waits for changes and takes all of them. Throws the abort reason. One reader at a time. */
  async take(signal: AbortSignal): Promise<readonly Change[]> {
    while (true) {
      if (signal.aborted) throw abortReason(signal);
      const changes = [...this.#pending.values()].flatMap((ofKind) => [...ofKind.values()]);
      this.#pending.clear();
      if (changes.length > 0) return changes;
      await this.#wakeup.wait(signal);
    }
  }
}
