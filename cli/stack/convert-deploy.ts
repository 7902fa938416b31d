/** `deploy` and what stands beside it in the compose specification → how many, where, with what, and how they are replaced. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { parseBytes, parseNanoCpus } from "../../common/model/units.ts";
import {
  type ResourceRequirementsSchema,
  RestartPolicy_Condition,
  type RestartPolicySchema,
  type ServiceModeSchema,
  type TaskSpecSchema,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  type UpdateConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { durationOf, recordOf, textsOf } from "./convert-container.ts";
import type { ServiceSite } from "./site.ts";
import { child, itemsOf, numberOf, textOf } from "./tree.ts";

type ModeInit = MessageInitShape<typeof ServiceModeSchema>;
type UpdateInit = MessageInitShape<typeof UpdateConfigSchema>;
type RestartInit = MessageInitShape<typeof RestartPolicySchema>;
type ResourcesInit = MessageInitShape<typeof ResourceRequirementsSchema>;
type TaskInit = Exclude<MessageInitShape<typeof TaskSpecSchema>, { $typeName: string }>;

/** A service's mode, and whether the file leaves open how many there are. */
export function convertMode(site: ServiceSite): { readonly mode: ModeInit; readonly open: boolean } {
  const node = site.at("deploy", "mode");
  const name = textOf(node) ?? "replicated";
  const replicas = replicasOf(site);
  const concurrent = site.at("deploy", "max_concurrent");
  if (concurrent !== undefined && name !== "replicated-job") {
    site.refuse(concurrent, "deploy.max_concurrent", "can only be used with mode replicated-job");
  }
  const wanted = BigInt(replicas ?? 1);
  switch (name) {
    case "":
    case "replicated":
      return { mode: { mode: { case: "replicated", value: { replicas: wanted } } }, open: replicas === undefined };
    case "replicated-job": {
      const maxConcurrent = BigInt(numberOf(concurrent) ?? replicas ?? 1);
      return {
        mode: { mode: { case: "replicatedJob", value: { totalCompletions: wanted, maxConcurrent } } },
        open: false,
      };
    }
    case "global":
    case "global-job": {
      const given = site.at("deploy", "replicas") ?? site.at("scale");
      if (given !== undefined)
        site.refuse(given, "deploy.replicas", "replicas can only be used with replicated or replicated-job mode");
      return { mode: { mode: { case: name === "global" ? "global" : "globalJob", value: {} } }, open: false };
    }
    default:
      if (node !== undefined) {
        site.refuse(node, "deploy.mode", `unknown mode: ${name} (replicated, global, replicated-job or global-job)`);
      }
      return { mode: {}, open: false };
  }
}

function replicasOf(site: ServiceSite): number | undefined {
  const replicas = numberOf(site.at("deploy", "replicas"));
  const scale = site.at("scale");
  if (scale !== undefined && replicas !== undefined && numberOf(scale) !== replicas) {
    site.refuse(
      scale,
      "scale",
      `can't set distinct values on scale (${numberOf(scale)}) and deploy.replicas (${replicas})`,
    );
  }
  return replicas ?? numberOf(scale);
}

const FAILURE_ACTIONS: Readonly<Record<string, UpdateConfig_FailureAction>> = {
  pause: UpdateConfig_FailureAction.PAUSE,
  continue: UpdateConfig_FailureAction.CONTINUE,
  rollback: UpdateConfig_FailureAction.ROLLBACK,
};

/** `update_config` or `rollback_config`. */
export function convertUpdate(site: ServiceSite, name: "update_config" | "rollback_config"): UpdateInit | undefined {
  const update = site.at("deploy", name);
  if (update === undefined) return undefined;
  const action = child(update, "failure_action");
  const word = textOf(action) ?? "";
  const failureAction = Object.hasOwn(FAILURE_ACTIONS, word) ? FAILURE_ACTIONS[word] : undefined;
  if (action !== undefined && word !== "" && failureAction === undefined) {
    site.refuse(
      action,
      `deploy.${name}.failure_action`,
      `must be one of ${Object.keys(FAILURE_ACTIONS).join(", ")}, not ${JSON.stringify(word)}`,
    );
  }
  return {
    parallelism: BigInt(numberOf(child(update, "parallelism")) ?? 1),
    delay: durationOf(child(update, "delay")),
    failureAction: failureAction ?? UpdateConfig_FailureAction.PAUSE,
    monitor: durationOf(child(update, "monitor")),
    maxFailureRatio: numberOf(child(update, "max_failure_ratio")) ?? 0,
    order:
      textOf(child(update, "order")) === "start-first" ? UpdateConfig_Order.START_FIRST : UpdateConfig_Order.STOP_FIRST,
  };
}

const CONDITIONS: Readonly<Record<string, RestartPolicy_Condition>> = {
  "": RestartPolicy_Condition.ANY,
  any: RestartPolicy_Condition.ANY,
  "on-failure": RestartPolicy_Condition.ON_FAILURE,
  none: RestartPolicy_Condition.NONE,
};
/** `restart:` by its words. Docker makes "no" the default, which restarts; here it means what it says. */
const RESTARTS: Readonly<Record<string, RestartPolicy_Condition>> = {
  no: RestartPolicy_Condition.NONE,
  always: RestartPolicy_Condition.ANY,
  "unless-stopped": RestartPolicy_Condition.ANY,
  "on-failure": RestartPolicy_Condition.ON_FAILURE,
};

/** `deploy.restart_policy`, or `restart` where that is absent. */
export function convertRestart(site: ServiceSite): RestartInit | undefined {
  const policy = site.at("deploy", "restart_policy");
  if (policy === undefined) return fromRestart(site);
  const node = child(policy, "condition");
  const word = textOf(node) ?? "";
  const condition = Object.hasOwn(CONDITIONS, word) ? CONDITIONS[word] : undefined;
  if (node !== undefined && condition === undefined) {
    site.refuse(
      node,
      "deploy.restart_policy.condition",
      `must be one of any, on-failure, none, not ${JSON.stringify(word)}`,
    );
  }
  return {
    condition: condition ?? RestartPolicy_Condition.ANY,
    delay: durationOf(child(policy, "delay")),
    maxAttempts: BigInt(numberOf(child(policy, "max_attempts")) ?? 0),
    window: durationOf(child(policy, "window")),
  };
}

function fromRestart(site: ServiceSite): RestartInit | undefined {
  const node = site.at("restart");
  const text = textOf(node) ?? "";
  if (node === undefined || text === "") return undefined;
  const [, word = text, attempts] = /^(on-failure)(?::(\d{1,9}))?$/.exec(text) ?? [];
  const condition = Object.hasOwn(RESTARTS, word) ? RESTARTS[word] : undefined;
  if (condition === undefined) {
    site.refuse(
      node,
      "restart",
      `must be one of ${Object.keys(RESTARTS).join(", ")}[:ATTEMPTS], not ${JSON.stringify(text)}`,
    );
    return undefined;
  }
  return { condition, maxAttempts: BigInt(attempts ?? 0) };
}

/** Limits and reservations, whichever of their two places the file uses. */
export function convertResources(site: ServiceSite): ResourcesInit | undefined {
  const value = (path: readonly string[], beside: string) => eitherOf(site, path, beside);
  const limits = ["deploy", "resources", "limits"];
  const reservations = ["deploy", "resources", "reservations"];
  const devices = site.at(...reservations, "devices");
  if (devices !== undefined)
    site.refuse(devices, "deploy.resources.reservations.devices", "devices of this kind are not supported");
  const swappiness = numberOf(site.at("mem_swappiness"));
  const nanoCpus = (text: string | undefined) => cpusOf(text);
  const pids = Number(value([...limits, "pids"], "pids_limit") ?? 0);
  const result = {
    limits: {
      nanoCpus: nanoCpus(value([...limits, "cpus"], "cpus")),
      memoryBytes: sizeOf(value([...limits, "memory"], "mem_limit")),
      pids: BigInt(pids === -1 ? 0 : pids),
      memorySwapBytes: swapOf(site),
      ...(swappiness === undefined ? {} : { memorySwappiness: swappiness }),
      cpusetCpus: textOf(site.at("cpuset")) ?? "",
      cpuShares: BigInt(numberOf(site.at("cpu_shares")) ?? 0),
    },
    reservations: {
      nanoCpus: nanoCpus(textOf(site.at(...reservations, "cpus"))),
      memoryBytes: sizeOf(value([...reservations, "memory"], "mem_reservation")),
      generic: itemsOf(site.at(...reservations, "generic_resources")).map((item) => ({
        kind: textOf(child(child(item, "discrete_resource_spec"), "kind")) ?? "",
        count: BigInt(Math.trunc(Number(textOf(child(child(item, "discrete_resource_spec"), "value")) ?? 0)) || 0),
      })),
    },
  };
  const empty = [...Object.values(result.limits), ...Object.values(result.reservations)].every(
    (each) => each === 0n || each === "" || (Array.isArray(each) && each.length === 0),
  );
  return empty ? undefined : result;
}

/** The value of a field that may stand in `deploy` or beside it; both must agree. */
function eitherOf(site: ServiceSite, path: readonly string[], beside: string): string | undefined {
  const there = textOf(site.at(...path));
  const node = site.at(beside);
  const here = textOf(node);
  if (node !== undefined && there !== undefined && here !== there) {
    site.refuse(node, beside, `can't set distinct values on ${beside} and ${path.join(".")}`);
  }
  if (node !== undefined && there === undefined) site.note(path.slice(1).join("."), node, beside);
  return there ?? here;
}

function cpusOf(text: string | undefined): bigint {
  const parsed = parseNanoCpus(text === undefined || text === "" ? "0" : text);
  return BigInt(parsed.ok ? parsed.value : 0);
}

function sizeOf(text: string | undefined): bigint {
  const parsed = parseBytes(text ?? "0");
  return BigInt(parsed.ok ? parsed.value : 0);
}

function swapOf(site: ServiceSite): bigint {
  const node = site.at("memswap_limit");
  const text = textOf(node) ?? "0";
  if (text === "-1") return -1n;
  const parsed = parseBytes(text);
  if (parsed.ok) return BigInt(parsed.value);
  if (node !== undefined) site.refuse(node, "memswap_limit", parsed.problem);
  return 0n;
}

/** Constraints, preferences and the bound per node. */
export function convertPlacement(site: ServiceSite): TaskInit["placement"] {
  const placement = site.at("deploy", "placement");
  const constraints = textsOf(child(placement, "constraints"));
  const preferences = itemsOf(child(placement, "preferences"));
  const maxReplicas = BigInt(numberOf(child(placement, "max_replicas_per_node")) ?? 0);
  if (constraints.length === 0 && preferences.length === 0 && maxReplicas === 0n) return undefined;
  return {
    constraints,
    preferences: preferences.map((item) => ({ spread: textOf(child(item, "spread")) ?? "" })),
    maxReplicas,
  };
}

/** `logging`; options without a driver are the default driver's. */
export function convertLogging(site: ServiceSite): TaskInit["logDriver"] {
  const logging = site.at("logging");
  if (logging?.kind !== "map" || logging.entries.size === 0) return undefined;
  return { name: textOf(child(logging, "driver")) ?? "", options: recordOf(child(logging, "options")) };
}
