/** Work that several callers want at once is done once: the same layer of two images, the same image of ten tasks. */
import { abortable } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";

interface Job<T> {
  readonly result: Promise<T>;
  readonly controller: AbortController;
  waiting: number;
}

/**
 * Runs at most one job for a key. Each caller may give up on its own; the job is aborted when the last one has, and a
 * caller that gives up last waits for its end, so that nothing is left behind.
 */
export class SharedWork<T> {
  readonly #jobs = new Map<string, Job<T>>();

  /** Joins the job for `key`, or starts it. Settles as it does, or rejects as soon as `signal` aborts. */
  async join(key: string, start: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const job = this.#jobs.get(key) ?? this.#start(key, start);
    job.waiting += 1;
    try {
      return await abortable(job.result, signal);
    } finally {
      job.waiting -= 1;
      if (job.waiting === 0 && signal.aborted) {
        if (this.#jobs.get(key) === job) this.#jobs.delete(key);
        job.controller.abort(new SwarmError("canceled", "nobody waits for it any more"));
        await job.result.catch(() => {});
      }
    }
  }

  #start(key: string, start: (signal: AbortSignal) => Promise<T>): Job<T> {
    const controller = new AbortController();
    const result = start(controller.signal).finally(() => {
      if (this.#jobs.get(key) === job) this.#jobs.delete(key);
    });
    const job: Job<T> = { result, controller, waiting: 0 };
    // Those who wait see its failure; when all have given up nobody needs to.
    result.catch(() => {});
    this.#jobs.set(key, job);
    return job;
  }
}

/** Lets at most `limit` pieces of work run at a time; the others wait in line. */
export class Turnstile {
  readonly #limit: number;
  #free: number;
  readonly #line: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
    this.#free = limit;
  }

  /** Whether nothing runs and nothing waits. */
  get idle(): boolean {
    return this.#free === this.#limit;
  }

  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await work();
    } finally {
      const next = this.#line.shift();
      if (next) next();
      else this.#free += 1;
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const turn = Promise.withResolvers<void>();
    this.#line.push(turn.resolve);
    try {
      await abortable(turn.promise, signal);
    } catch (reason) {
      const place = this.#line.indexOf(turn.resolve);
      if (place >= 0) this.#line.splice(place, 1);
      // The turn came in the same moment: pass it on.
      else if (this.#line.length > 0) this.#line.shift()?.();
      else this.#free += 1;
      throw reason;
    }
  }
}
