import type { Clock } from "../../common/base/clock.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import type { Touched } from "./assignment-set.ts";

/** Changes closer together than this travel together: one scheduler transaction is one message. */
const GAP_MS = 5;
/** No change waits longer than this for others, or a busy cluster would starve its agents. */
const WAIT_MS_MAX = 50;
/** With as many changes there is no point in waiting for more. */
const ENOUGH = 100;

/**
 * The tasks, services, volumes and nodes that one stream has not looked at since they changed: bounded by what there is, however slow
 * its reader.
 */
export class TouchedSet {
  readonly #clock: Clock;
  readonly #wakeup = new Wakeup();
  #taskIds = new Set<string>();
  #serviceIds = new Set<string>();
  #volumeNames = new Set<string>();
  #nodeIds = new Set<string>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  touchTask(taskId: string): void {
    this.#taskIds.add(taskId);
    this.#wakeup.wake();
  }

  touchService(serviceId: string): void {
    this.#serviceIds.add(serviceId);
    this.#wakeup.wake();
  }

  /** A volume was made or removed: as such, or what the node has of it. */
  touchVolume(name: string): void {
    this.#volumeNames.add(name);
    this.#wakeup.wake();
  }

  touchNode(nodeId: string): void {
    this.#nodeIds.add(nodeId);
    this.#wakeup.wake();
  }

  /** Waits for a change and a little longer for its neighbours; takes all. Throws the abort reason. */
  async take(signal: AbortSignal): Promise<Touched> {
    await this.#wakeup.wait(signal);
    const startMs = this.#clock.monotonicMs();
    for (let seen = -1; seen < this.#size && this.#size < ENOUGH; ) {
      if (this.#clock.monotonicMs() - startMs >= WAIT_MS_MAX) break;
      seen = this.#size;
      await this.#clock.sleep(GAP_MS, signal);
    }
    const touched = {
      ...{
        taskIds: this.#taskIds,
        serviceIds: this.#serviceIds,
        volumeNames: this.#volumeNames,
        nodeIds: this.#nodeIds,
      },
    };
    this.#taskIds = new Set();
    this.#serviceIds = new Set();
    this.#volumeNames = new Set();
    this.#nodeIds = new Set();
    return touched;
  }

  get #size(): number {
    return this.#taskIds.size + this.#serviceIds.size + this.#volumeNames.size + this.#nodeIds.size;
  }
}
