/** What goes on while things happen to a cluster: a client that sends requests, and a service that is updated all the while. */
import { setTimeout as pause } from "node:timers/promises";
import type { Program, TestCluster } from "./cluster.ts";

/** A client in the fabric, where users are: one request after the other. */
export class Requests {
  readonly #cluster: TestCluster;
  readonly #program: Program;

  constructor(cluster: TestCluster, url: string) {
    this.#cluster = cluster;
    const script = `while :; do curl -sS --fail --max-time 3 -o /dev/null "$0" && echo ok || date +'failed at %T.%N'; sleep 0.05; done`;
    this.#program = cluster.startProgram("requests", cluster.fabric, "sh", "-c", script, url);
  }

  get answered(): number {
    return this.#lines.filter((line) => line === "ok").length;
  }

  /** What curl said of those that failed, and when. */
  get failures(): readonly string[] {
    return this.#lines.filter((line) => line !== "ok" && line !== "");
  }

  get #lines(): readonly string[] {
    return this.#cluster.log(this.#program).split("\n");
  }
}

/** Updates a service, again as soon as an update has converged, through whichever manager answers. */
export class Updates implements AsyncDisposable {
  /** Updates that have converged. */
  done = 0;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  /** `update` makes the service differ by `value`; it rejects when that manager does not, or not for long. */
  constructor(managers: readonly string[], update: (manager: string, value: string) => Promise<unknown>) {
    this.#running = this.#run(managers, update);
  }

  /** Waits for the last one. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(managers: readonly string[], update: (manager: string, value: string) => Promise<unknown>): Promise<void> {
    for (let count = 0; !this.#stop.signal.aborted; count++) {
      const manager = managers[count % managers.length] ?? "";
      await update(manager, String(count)).then(
        () => {
          this.done += 1;
        },
        // Another one is asked: a manager may be down just now.
        () => pause(200),
      );
    }
  }
}
