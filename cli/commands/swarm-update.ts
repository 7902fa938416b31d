import { clone } from "@bufbuild/protobuf";
import { toDuration } from "../../common/model/duration.ts";
import { ClusterSpecSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { present, retryAborted } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { NETWORK_FLAGS, networkSettings } from "../flags/cluster-networks.ts";
import { durationFlagMs, integerFlag } from "../flags/values.ts";
import { refuseFlags, SWARM_UPDATE_REFUSED } from "../refused.ts";
import { unlockInstructions } from "../unlock-words.ts";
import { UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "swarm update [OPTIONS]",
  summary: "Update the swarm",
  flags: {
    autolock: { kind: "boolean", help: "Change manager autolocking setting (true|false)" },
    "cert-expiry": { kind: "text", value: "duration", help: "Validity period for node certificates, 1h or more" },
    "dispatcher-heartbeat": { kind: "text", value: "duration", help: "Dispatcher heartbeat period" },
    ...NETWORK_FLAGS,
    "task-history-limit": { kind: "text", value: "int", help: "Task history retention limit" },
    ...SWARM_UPDATE_REFUSED.flags,
  },
  words: { min: 0, max: 0 },
  run,
};

async function run({ flags, io, connect }: Invocation): Promise<number> {
  refuseFlags(flags, SWARM_UPDATE_REFUSED);
  const lifetimeMs = durationFlagMs(flags, "cert-expiry");
  const periodMs = durationFlagMs(flags, "dispatcher-heartbeat");
  const limit = integerFlag(flags, "task-history-limit", { min: 0, max: 9_999 });
  const autolock = flags.has("autolock") ? flags.on("autolock") : undefined;
  const networks = networkSettings(flags);
  const given = [autolock, lifetimeMs, periodMs, limit, ...Object.values(networks)];
  if (given.every((value) => value === undefined)) {
    throw new UsageError("nothing to update: see swarmctl swarm update --help for what there is");
  }
  const client = await connect();
  await retryAborted(async () => {
    const { cluster } = await client.getInfo({});
    const spec = clone(ClusterSpecSchema, present(present(cluster, "cluster").spec, "cluster spec"));
    if (autolock !== undefined) spec.autolock = autolock;
    if (lifetimeMs !== undefined) spec.certificateLifetime = toDuration(lifetimeMs);
    if (periodMs !== undefined) spec.heartbeatPeriod = toDuration(periodMs);
    Object.assign(spec, networks);
    if (limit !== undefined) spec.taskHistoryLimit = limit;
    await client.updateCluster({ version: cluster?.meta?.version ?? 0n, spec });
  });
  io.out("Swarm updated.\n");
  if (autolock === true) io.out(unlockInstructions((await client.getUnlockKey({})).unlockKey));
  return 0;
}
