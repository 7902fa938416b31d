/** Removes images that no task of this node has used for long, so that its disk does not fill with old versions. */
import { readdir } from "node:fs/promises";
import type { Clock } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import { readContainerRecord } from "./container-record.ts";
import type { ImageStore } from "./image/store.ts";

/** How seldom it looks: nobody waits for it, and each look reads the record of every container. */
const PERIOD_MS_MAX = 60 * 60_000;
/** Looks within one retention time: more would only remove images a little more punctually. */
const LOOKS_PER_RETENTION = 4;

/** What the collector works with. */
export interface ImageCollectorOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly images: Pick<ImageStore, "collect">;
  /** The directory of the containers' directories. */
  readonly containers: string;
  /** How long an image stays that no container uses. 0 keeps all. */
  readonly retentionMs: number;
}

/** Collects until `signal` aborts; a failure is logged and tried again next time. */
export async function runImageCollector(options: ImageCollectorOptions, signal: AbortSignal): Promise<void> {
  const { clock, logger, images, containers, retentionMs } = options;
  if (retentionMs === 0) return;
  while (true) {
    await clock.sleep(Math.min(PERIOD_MS_MAX, retentionMs / LOOKS_PER_RETENTION), signal);
    try {
      const inUse = await imagesInUse(containers);
      if (inUse) await images.collect(inUse, retentionMs);
      else logger.debug("images not collected: a container does not say which one it uses");
    } catch (reason) {
      if (!(reason instanceof SwarmError) && errnoOf(reason) === undefined) throw reason;
      logger.warn({ err: reason }, "unused images not removed");
    }
  }
}

/** Manifest digests that containers use; undefined when one does not say: then every image may be in use. */
async function imagesInUse(containers: string): Promise<ReadonlySet<string> | undefined> {
  const inUse = new Set<string>();
  for (const id of await readdir(containers)) {
    const record = await readContainerRecord(`${containers}/${id}`);
    if (!record) return undefined;
    inUse.add(record.image);
  }
  return inUse;
}
