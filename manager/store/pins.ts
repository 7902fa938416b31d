/** Which versions of secrets and configs a task has: the pins of spec versions, read together. */
import type { SpecVersion } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ContentPin } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "./view.ts";

const NONE: readonly ContentPin[] = [];

/**
 * The pins of tasks that were made for a spec version: those of the newest version that shares its task_version. Content
 * that changes in place makes such a version, and running tasks follow it.
 */
export function effectivePins(
  view: Pick<View, "specVersion" | "specVersions">,
  serviceId: string,
  version: bigint,
): readonly ContentPin[] {
  const own = view.specVersion(serviceId, version);
  if (own === undefined) return NONE;
  if (own.taskVersion === 0n) return own.pins;
  const alike = (each: SpecVersion) => each.taskVersion === own.taskVersion;
  return (view.specVersions(serviceId).findLast(alike) ?? own).pins;
}

/** Whether two lists name the same content; the signals that brought it do not matter. */
export function samePins(left: readonly ContentPin[], right: readonly ContentPin[]): boolean {
  return left.length === right.length && left.every((pin) => right.some((other) => samePin(pin, other)));
}

function samePin(left: ContentPin, right: ContentPin): boolean {
  return left.objectId === right.objectId && left.version === right.version;
}

/** One pin as a key. */
export function pinKey({ objectId, version }: Pick<ContentPin, "objectId" | "version">): string {
  return `${objectId}/${version}`;
}
