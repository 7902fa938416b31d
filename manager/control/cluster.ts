/** The cluster's settings. */
import { type FieldProblem, invalidFields, SwarmError } from "../../common/base/error.ts";
import { durationMs } from "../../common/model/duration.ts";
import { networkSettingsProblems } from "../../common/model/validate-cluster.ts";
import { formatUnlockKey, newUnlockKey } from "../../common/pki/unlock-key.ts";
import type {
  GetJoinTokensRequest,
  GetUnlockKeyRequest,
  UpdateClusterRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Cluster, ClusterSpec } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import { UNLOCK_KEY_PLACE } from "../sealing/manager-lock.ts";
import { lifetimeProblems } from "./ca.ts";
import type { ControlDependencies } from "./dependencies.ts";

/** As the manager's own options: shorter beats cost more than they tell, longer ones find no dead node. */
const HEARTBEAT_MS = { min: 100, max: 60_000 };
const TASK_HISTORY_MAX = 9_999;

/** Replaces the settings; the loops, the reaper and the dispatcher act on them from then on. */
export async function updateCluster(
  { store, sealer, entropy }: ControlDependencies,
  { version, spec }: UpdateClusterRequest,
  signal: AbortSignal,
): Promise<Cluster> {
  const { cluster } = store.view;
  if (cluster === undefined) throw new SwarmError("unavailable", "the cluster has no settings yet, try again");
  if (spec === undefined) throw invalidFields([{ field: "spec", problem: "must be provided" }]);
  const problems = problemsOf(spec, cluster);
  if (problems.length > 0) throw invalidFields(problems);
  const stale = new SwarmError(
    "aborted",
    "update out of sequence: the cluster's settings have changed since they were read",
  );
  if (version !== (cluster.meta?.version ?? 0n)) throw stale;
  const present = cluster.sealedUnlockKey;
  const fresh = () => sealer.seal(newUnlockKey(entropy), UNLOCK_KEY_PLACE);
  const sealedUnlockKey = spec.autolock ? (present.length > 0 ? present : fresh()) : new Uint8Array();
  const object = { ...cluster, spec, sealedUnlockKey };
  const { conflicts } = await store.commit([{ type: "update", kind: "cluster", object }], { signal });
  if (conflicts.length > 0) throw stale;
  return store.view.cluster ?? cluster;
}

/** The tokens that hosts join with, after making a new one if that is asked for. */
export async function getJoinTokens(
  { authority }: ControlDependencies,
  { rotate }: GetJoinTokensRequest,
  signal: AbortSignal,
): Promise<{ readonly worker: string; readonly manager: string }> {
  await authority.ensure(signal);
  if (rotate !== undefined)
    await authority.rotateToken(rotate === NodeSpec_Role.MANAGER ? "manager" : "worker", signal);
  return await authority.tokens();
}

/** The unlock key, after making a new one if that is asked for: managers seal their keys under it as soon as they see it. */
export async function getUnlockKey(
  { store, sealer, entropy }: ControlDependencies,
  { rotate }: GetUnlockKeyRequest,
  signal: AbortSignal,
): Promise<string> {
  const { cluster } = store.view;
  if (!cluster?.spec?.autolock || cluster.sealedUnlockKey.length === 0) {
    throw new SwarmError(
      "failed_precondition",
      "no unlock key is set: autolock is off (swarmctl swarm update --autolock)",
    );
  }
  if (!rotate) return formatUnlockKey(sealer.open(cluster.sealedUnlockKey, UNLOCK_KEY_PLACE));
  const key = newUnlockKey(entropy);
  const object = { ...cluster, sealedUnlockKey: sealer.seal(key, UNLOCK_KEY_PLACE) };
  const { conflicts } = await store.commit([{ type: "update", kind: "cluster", object }], { signal });
  if (conflicts.length > 0) throw new SwarmError("aborted", "rotate the unlock key: the store changed, try again");
  return formatUnlockKey(key);
}

function problemsOf(spec: ClusterSpec, { spec: present }: Cluster): readonly FieldProblem[] {
  const problems: FieldProblem[] = [...lifetimeProblems(spec.certificateLifetime), ...networkSettingsProblems(spec)];
  if (spec.taskHistoryLimit > TASK_HISTORY_MAX) {
    problems.push({ field: "task_history_limit", problem: `must be at most ${TASK_HISTORY_MAX}` });
  }
  const periodMs = durationMs(spec.heartbeatPeriod) ?? 0;
  if (periodMs < HEARTBEAT_MS.min || periodMs > HEARTBEAT_MS.max) {
    problems.push({ field: "heartbeat_period", problem: "must be between 100ms and 60s" });
  }
  if (spec.addressPool !== present?.addressPool) {
    problems.push({
      field: "address_pool",
      problem: `cannot be changed: tasks have addresses of ${present?.addressPool}`,
    });
  }
  return problems;
}
