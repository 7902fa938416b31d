/** Deletes the volumes that were removed, as soon as no task of this node uses them any more. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { abortReason, type Clock } from "../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import type { Scope } from "../common/base/scope.ts";
import type { VolumeAssignment } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Executor } from "./executor.ts";

/** Somebody waits for it; the last task that used the volume is just leaving, most often. */
const RETRY: BackoffOptions = { delayMsMin: 200, delayMsMax: 30_000 };

/** What a purger needs. */
export interface VolumePurgerOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly executor: Pick<Executor, "purgeVolume">;
}

export class VolumePurger {
  readonly #options: VolumePurgerOptions;
  readonly #scope: Scope;
  readonly #purging = new Set<string>();

  /** `scope` owns the deletions. */
  constructor(options: VolumePurgerOptions, scope: Scope) {
    this.#options = options;
    this.#scope = scope;
  }

  /** Deletes the data of a volume, now or as soon as it can; being told again changes nothing. */
  purge({ name, createdAt }: VolumeAssignment): void {
    if (!createdAt) return;
    const createdMs = timestampMs(createdAt);
    const key = `${name} ${createdMs}`;
    if (this.#purging.has(key)) return;
    this.#purging.add(key);
    this.#scope.spawn(`delete volume ${name}`, async (signal) => {
      try {
        await this.#persist(name, createdMs, signal);
      } finally {
        this.#purging.delete(key);
      }
    });
  }

  async #persist(name: string, createdMs: number, signal: AbortSignal): Promise<void> {
    const { clock, random, logger, executor } = this.#options;
    const backoff = new Backoff(RETRY, random);
    while (true) {
      try {
        return await executor.purgeVolume(name, createdMs, signal);
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure) throw reason;
        const busy = reason instanceof SwarmError && reason.code === "failed_precondition";
        logger[busy ? "debug" : "warn"]({ volume: name, err: reason }, "volume not deleted yet");
      }
      if (signal.aborted) throw abortReason(signal);
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }
}
