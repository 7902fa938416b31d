/**
 * One process of the simulated cluster. Everything that reaches it from outside (time, answers, messages) passes through
 * it: a stopped process (SIGSTOP) gets it when it goes on, a killed one never, so that its code simply ends where it
 * waits, without a last word.
 */
import { abortReason, type Clock } from "../../common/base/clock.ts";
import type { Random } from "../../common/base/random.ts";
import type { Transport } from "../../common/rpc/service.ts";

export class SimProcess {
  readonly name: string;
  readonly random: Random;
  readonly clock: Clock;
  /** Aborts when the process is killed: for what others hold on its behalf. Its own code must not see it. */
  readonly killed: AbortSignal;
  readonly #kill = new AbortController();
  #state: "running" | "stopped" | "dead" = "running";
  #held: (() => void)[] = [];

  /** `wallOffsetMs` is asked at each look at the wall clock. */
  constructor(
    name: string,
    options: { readonly clock: Clock; readonly random: Random; readonly wallOffsetMs: () => number },
  ) {
    this.name = name;
    this.random = options.random;
    this.killed = this.#kill.signal;
    const { clock, wallOffsetMs } = options;
    this.clock = {
      nowMs: () => clock.nowMs() + wallOffsetMs(),
      monotonicMs: () => clock.monotonicMs(),
      sleep: (delayMs, signal) => this.#sleep(clock, delayMs, signal),
    };
  }

  get state(): "running" | "stopped" | "dead" {
    return this.#state;
  }

  /** SIGKILL. */
  kill(): void {
    this.#state = "dead";
    this.#held = [];
    this.#kill.abort();
  }

  /** SIGSTOP. */
  stop(): void {
    if (this.#state === "running") this.#state = "stopped";
  }

  /** SIGCONT: what came meanwhile arrives now, in its order. */
  resume(): void {
    if (this.#state !== "stopped") return;
    this.#state = "running";
    for (const act of this.#held.splice(0)) act();
  }

  /** Settles as `input` does, when the process can take it. */
  deliver<T>(input: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      input.then(
        (value) => this.#whenRunning(() => resolve(value)),
        (reason: unknown) => this.#whenRunning(() => reject(reason)),
      );
    });
  }

  /** Resolves when the process runs: at once, after SIGCONT, or never. */
  running(): Promise<void> {
    return new Promise((resolve) => this.#whenRunning(resolve));
  }

  /** The process's end of a wire. */
  transport(inner: Transport): Transport {
    const process = this;
    const delivered = async function* <T>(open: () => AsyncIterable<T>) {
      await process.running();
      const iterator = open()[Symbol.asyncIterator]();
      try {
        while (true) {
          const next = await process.deliver(iterator.next());
          if (next.done) return;
          yield next.value;
        }
      } finally {
        await iterator.return?.();
      }
    };
    return {
      unary: async (method, request, options) => {
        await process.running();
        return process.deliver(inner.unary(method, request, options));
      },
      clientStream: async (method, requests, options) => {
        await process.running();
        return process.deliver(inner.clientStream(method, requests, options));
      },
      serverStream: (method, request, options) => delivered(() => inner.serverStream(method, request, options)),
      bidiStream: (method, requests, options) => delivered(() => inner.bidiStream(method, requests, options)),
      [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
    };
  }

  #whenRunning(act: () => void): void {
    if (this.#state === "running") act();
    else if (this.#state === "stopped") this.#held.push(act);
  }

  #sleep(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      clock.sleep(delayMs, signal).then(
        () => this.#whenRunning(() => (signal?.aborted ? reject(abortReason(signal)) : resolve())),
        (reason: unknown) => this.#whenRunning(() => reject(reason)),
      );
    });
  }
}
