/** What a restarted agent must know of a container that runs on: `container.json` in its directory. */
import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { errnoOf } from "../common/base/error.ts";
import type { LifeSettings } from "./container-settings.ts";
import type { OciProcess, OciSeccomp } from "./runtime/oci.ts";
import type { VolumeUse } from "./volumes.ts";

const VERSION = 1;

/** What the container is made of, how it lives, and as whom health checks run in it. */
export interface ContainerRecord {
  /** Its image's manifest digest: what must not be removed under it. */
  readonly image: string;
  readonly life: LifeSettings;
  readonly process: OciProcess;
  /** Its seccomp profile where that is not the default one for its capabilities. */
  readonly seccomp?: OciSeccomp | "unconfined";
  /** What it holds of volumes, if anything. */
  readonly volumes?: VolumeUse;
}

/** Writes the record, in place: before there is a container nobody reads it, and afterwards it never changes. */
export function writeContainerRecord(directory: string, record: ContainerRecord): void {
  writeFileSync(`${directory}/container.json`, JSON.stringify({ version: VERSION, ...record }), { mode: 0o600 });
}

/** Undefined when there is none, or when it is damaged: then the container is stopped with defaults and not checked. */
export async function readContainerRecord(directory: string): Promise<ContainerRecord | undefined> {
  try {
    const record: unknown = JSON.parse(await readFile(`${directory}/container.json`, "utf8"));
    return isRecord(record) ? record : undefined;
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT" || reason instanceof SyntaxError) return undefined;
    throw reason;
  }
}

/** The file is ours alone (0600 in 0700): what can be wrong with it is its version, or its end. */
function isRecord(value: unknown): value is ContainerRecord {
  return typeof value === "object" && value !== null && "version" in value && value.version === VERSION;
}
