import { AssertionFailure, SwarmError } from "./error.ts";

/**
 * Holds every promise that a component starts: no loop runs without an owner. The first one that fails aborts its
 * siblings, and `join` surfaces its error. `await using scope = new Scope(signal)` stops all of it on leaving.
 */
export class Scope implements AsyncDisposable {
  readonly #controller = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly signal: AbortSignal;
  #failure: unknown;
  #failed = false;

  constructor(parent?: AbortSignal) {
    this.signal = parent ? AbortSignal.any([parent, this.#controller.signal]) : this.#controller.signal;
  }

  /** Starts `work` as a child. Its rejection ends the scope, unless the scope was already stopping. */
  spawn(name: string, work: (signal: AbortSignal) => Promise<void>): void {
    const run = async () => {
      try {
        await work(this.signal);
      } catch (reason) {
        const stopping = this.signal.aborted && !(reason instanceof AssertionFailure);
        if (stopping || this.#failed) return;
        this.#failed = true;
        this.#failure = reason instanceof AssertionFailure ? reason : SwarmError.wrap(name, reason);
        this.#controller.abort(SwarmError.from(this.#failure));
      }
    };
    const running: Promise<void> = run().finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /** Waits until every child has ended; throws the first failure. */
  async join(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failed) throw this.#failure;
  }

  /** Asks every child to stop; `join` or disposal waits for them. */
  cancel(reason: SwarmError = new SwarmError("canceled", "scope ended")): void {
    this.#controller.abort(reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel();
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
