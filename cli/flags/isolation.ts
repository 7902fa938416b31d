/**
 * What `docker run` says of a container's isolation and limits and Docker's services cannot: privileges, devices, the host's
 * namespaces, swap and processors. The same words and meanings, on `service create` and `update`.
 */
import { create } from "@bufbuild/protobuf";
import { systemMessage } from "../../common/base/error.ts";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { parseBytes } from "../../common/model/units.ts";
import {
  type ContainerSpec,
  PullPolicy,
  ResourceLimitsSchema,
  ResourceRequirementsSchema,
  SecurityOptionsSchema,
  type TaskSpec,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { type SecurityInit, setSecurityOption } from "../security-option.ts";
import { UsageError } from "../usage-error.ts";
import type { Flags, FlagTable } from "./parse.ts";
import { bytesFlag, choiceFlag, countFlag, flagValue, integerFlag } from "./values.ts";

const PULL_POLICIES = { always: PullPolicy.ALWAYS, missing: PullPolicy.MISSING, never: PullPolicy.NEVER };
/** An empty word takes it back. */
const NAMESPACES = { host: "host", "": "" };

/** The flags with one value, and `--security-opt`. */
export const ISOLATION_FLAGS: FlagTable = {
  "cpu-shares": { kind: "text", value: "int", help: "CPU shares (relative weight)", default: "0" },
  "cpuset-cpus": { kind: "text", value: "string", help: "CPUs in which to allow execution (0-3, 0,1)" },
  "cpuset-mems": { kind: "text", value: "string", help: "MEMs in which to allow execution (0-3, 0,1)" },
  ipc: { kind: "text", value: "string", help: 'IPC namespace to use ("host")', choices: ["host"] },
  "memory-swap": {
    kind: "text",
    value: "bytes",
    help: 'Swap limit equal to memory plus swap: "-1" to enable unlimited swap',
  },
  "memory-swappiness": {
    kind: "text",
    value: "int",
    help: "Tune container memory swappiness (0 to 100), -1 to reset to the node's",
    default: "-1",
  },
  pid: { kind: "text", value: "string", help: 'PID namespace to use ("host")', choices: ["host"] },
  privileged: { kind: "boolean", help: "Give extended privileges to the containers" },
  pull: {
    kind: "text",
    value: "string",
    help: 'Pull image before running ("always", "missing", "never")',
    default: '"missing"',
    choices: Object.keys(PULL_POLICIES),
  },
  "security-opt": { kind: "list", value: "list", help: 'Security options ("RESET" forgets those that are set)' },
  "shm-size": { kind: "text", value: "bytes", help: "Size of /dev/shm" },
  uts: { kind: "text", value: "string", help: 'UTS namespace to use ("host")', choices: ["host"] },
};

/** Writes what was given; only that is touched. `readFile` throws as node:fs does. */
export function applyIsolation(task: TaskSpec, flags: Flags, readFile: (path: string) => string): void {
  const { container } = task;
  if (container === undefined) return;
  if (flags.has("privileged")) container.privileged = flags.on("privileged");
  container.shmSizeBytes = bytesFlag(flags, "shm-size") ?? container.shmSizeBytes;
  container.pidMode = choiceFlag(flags, "pid", NAMESPACES) ?? container.pidMode;
  container.ipcMode = choiceFlag(flags, "ipc", NAMESPACES) ?? container.ipcMode;
  container.utsMode = choiceFlag(flags, "uts", NAMESPACES) ?? container.utsMode;
  container.pullPolicy = choiceFlag(flags, "pull", PULL_POLICIES) ?? container.pullPolicy;
  if (flags.has("security-opt")) applySecurity(container, flags, readFile);
  applyLimits(task, flags);
}

function applySecurity(container: ContainerSpec, flags: Flags, readFile: (path: string) => string): void {
  const options = flags.list("security-opt");
  const given: SecurityInit = {};
  for (const option of options) {
    if (option === "RESET") continue;
    const problem = setSecurityOption(given, option, (path) => textOf(path, readFile));
    if (problem !== undefined) throw new UsageError(problem);
  }
  const security = options.includes("RESET") ? undefined : container.security;
  container.security = Object.assign(security ?? create(SecurityOptionsSchema, {}), given);
}

function textOf(path: string, readFile: (path: string) => string): Parsed<string> {
  try {
    return good(readFile(path));
  } catch (reason) {
    return bad(systemMessage(reason));
  }
}

function applyLimits(task: TaskSpec, flags: Flags): void {
  const given = ["memory-swap", "memory-swappiness", "cpuset-cpus", "cpuset-mems", "cpu-shares"];
  if (!given.some((name) => flags.has(name))) return;
  task.resources ??= create(ResourceRequirementsSchema, {});
  task.resources.limits ??= create(ResourceLimitsSchema, {});
  const { limits } = task.resources;
  limits.memorySwapBytes = flagValue(flags, "memory-swap", parseSwap) ?? limits.memorySwapBytes;
  const swappiness = integerFlag(flags, "memory-swappiness", { min: -1, max: 100 });
  if (swappiness === -1) delete limits.memorySwappiness;
  else if (swappiness !== undefined) limits.memorySwappiness = swappiness;
  limits.cpusetCpus = flags.text("cpuset-cpus") ?? limits.cpusetCpus;
  limits.cpusetMems = flags.text("cpuset-mems") ?? limits.cpusetMems;
  limits.cpuShares = countFlag(flags, "cpu-shares") ?? limits.cpuShares;
}

function parseSwap(text: string): Parsed<bigint> {
  if (text === "-1") return good(-1n);
  const bytes = parseBytes(text);
  return bytes.ok ? good(BigInt(bytes.value)) : bytes;
}
