import { toDuration } from "../../common/model/duration.ts";
import { NodeSpec_Availability } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Command, Invocation } from "../command.ts";
import { NETWORK_FLAGS, networkSettings } from "../flags/cluster-networks.ts";
import { choiceFlag, durationFlagMs, integerFlag } from "../flags/values.ts";
import { isAbsent, LOCAL_CALL_MS_MAX, LocalPrograms, notRunning, SOCKET_FLAGS } from "../local.ts";
import { refuseFlags, SWARM_INIT_REFUSED } from "../refused.ts";
import { unlockInstructions } from "../unlock-words.ts";

export const command: Command = {
  usage: "swarm init [OPTIONS]",
  summary: "Initialize a swarm: this host becomes its first manager and node",
  flags: {
    "address-pool": {
      kind: "text",
      value: "ipNet",
      help: "Addresses of tasks that are on no network, in CIDR format",
      default: "10.224.0.0/12",
    },
    "advertise-addr": { kind: "text", value: "string", help: "Advertised address (format: '<ip|interface>[:port]')" },
    autolock: {
      kind: "boolean",
      help: "Enable manager autolocking (requiring an unlock key to start a stopped manager)",
    },
    availability: {
      kind: "text",
      value: "string",
      help: 'Availability of the node ("active", "pause", "drain")',
      default: '"active"',
    },
    "cert-expiry": { kind: "text", value: "duration", help: "Validity period for node certificates", default: "2160h" },
    ...NETWORK_FLAGS,
    "dispatcher-heartbeat": { kind: "text", value: "duration", help: "Dispatcher heartbeat period", default: "1s" },
    etcd: { kind: "list", value: "string", help: "Members of an etcd to keep the state in (default: one of its own)" },
    "force-new-cluster": {
      kind: "boolean",
      help: "Go on with what this host's manager has of a cluster whose other managers are lost",
    },
    "listen-addr": {
      kind: "text",
      value: "node-addr",
      help: "Listen address (format: '<ip>[:port]')",
      default: "0.0.0.0:2377",
    },
    "task-history-limit": { kind: "text", value: "int", help: "Task history retention limit", default: "5" },
    ...SOCKET_FLAGS,
    ...SWARM_INIT_REFUSED.flags,
  },
  words: { min: 0, max: 0 },
  run,
};

async function run({ flags, io, signal }: Invocation): Promise<number> {
  refuseFlags(flags, SWARM_INIT_REFUSED);
  const periodMs = durationFlagMs(flags, "dispatcher-heartbeat");
  const lifetimeMs = durationFlagMs(flags, "cert-expiry");
  const limit = integerFlag(flags, "task-history-limit", { min: 0, max: 9_999 });
  const availability = choiceFlag(flags, "availability", AVAILABILITIES) ?? NodeSpec_Availability.ACTIVE;
  await using local = new LocalPrograms(flags);
  const request = {
    listenAddress: withPort(flags.text("listen-addr") ?? ""),
    advertiseAddress: flags.text("advertise-addr") ?? "",
    addressPool: flags.text("address-pool") ?? "",
    ...networkSettings(flags),
    etcdEndpoints: [...flags.list("etcd")],
    forceNewCluster: flags.on("force-new-cluster"),
    autolock: flags.on("autolock"),
    ...(periodMs === undefined ? {} : { heartbeatPeriod: toDuration(periodMs) }),
    ...(lifetimeMs === undefined ? {} : { certificateLifetime: toDuration(lifetimeMs) }),
    ...(limit === undefined ? {} : { taskHistoryLimit: limit }),
  };
  const options = { signal, timeoutMs: LOCAL_CALL_MS_MAX };
  const { nodeId, address, unlockKey } = await local.manager.initCluster(request, options).catch((reason: unknown) => {
    throw isAbsent(reason) ? notRunning("swarm-manager", reason) : reason;
  });
  io.out(`Swarm initialized: current node (${nodeId}) is now a manager.\n\n`);
  try {
    if (!request.forceNewCluster) await local.agent.joinNode({ availability }, options);
  } catch (reason) {
    if (!isAbsent(reason)) throw reason;
    io.err(`swarmctl: warning: ${notRunning("swarm-agent", reason).message}, and this host runs no tasks until then\n`);
  }
  const tokens = await local.tokens({ signal });
  io.out("To add a worker to this swarm, run the following command:\n\n");
  io.out(`    swarmctl swarm join --token ${tokens.worker} ${address}\n\n`);
  io.out("To add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.\n");
  if (unlockKey !== "") io.out(`\n${unlockInstructions(unlockKey)}`);
  return 0;
}

/** Docker's words for what becomes of a node's tasks. */
export const AVAILABILITIES = {
  active: NodeSpec_Availability.ACTIVE,
  pause: NodeSpec_Availability.PAUSE,
  drain: NodeSpec_Availability.DRAIN,
} as const;

/** Docker's port, where only an address is given. */
export function withPort(address: string): string {
  return address === "" || /:\d+$/.test(address.replace(/^\[.*\]/, "x")) ? address : `${address}:2377`;
}
