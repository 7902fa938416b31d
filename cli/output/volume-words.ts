/** What is said of volumes in lists and objects. Pure. */
import type { VolumeView } from "../../proto/gen/swarm/v1/control_pb.js";

/** Those it was made with, else those that mounts gave its copies. */
export function labelsOf({ volume, copies }: VolumeView): Readonly<Record<string, string>> {
  return volume?.spec?.labels ?? Object.assign({}, ...copies.map((copy) => copy.volume?.labels ?? {}));
}
