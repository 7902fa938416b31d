/** Who uses a volume. Pure. */
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";
import { mayBecome, volumeSources } from "../volume-names.ts";

/** The services whose tasks may mount the volume now: by their newest spec, or by an older one that tasks still run. */
export function volumeUsers(
  view: Pick<View, "services" | "specVersions" | "tasksOfService">,
  name: string,
): readonly string[] {
  const users: string[] = [];
  for (const service of view.services.values()) {
    const versions = view
      .specVersions(service.id)
      .filter(({ spec }) => volumeSources(spec).some((source) => mayBecome(source, name)))
      .map(({ version }) => version);
    if (versions.length === 0) continue;
    const runs = () =>
      [...view.tasksOfService(service.id)].some((task) => versions.includes(task.specVersion) && lives(task));
    if (versions.includes(service.specVersion) || runs()) users.push(service.name);
  }
  return users;
}

function lives({ status }: { readonly status?: { readonly state: TaskState } | undefined }): boolean {
  return (status?.state ?? TaskState.NEW) <= TaskState.RUNNING;
}
