/** The programs of this very host, by their sockets: for `swarm init`, `join` and `leave`. */
import { SwarmError } from "../common/base/error.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { type CallOptions, type Client, createClient, type Transport } from "../common/rpc/service.ts";
import { Control, type GetJoinTokensResponse } from "../proto/gen/swarm/v1/control_pb.js";
import { LocalAgent, LocalManager } from "../proto/gen/swarm/v1/local_pb.js";
import type { Flags, FlagTable } from "./flags/parse.ts";

/** A manager that begins or joins copies a store; an agent waits for its first session. */
export const LOCAL_CALL_MS_MAX = 200_000;

export const SOCKET_FLAGS = {
  "agent-socket": {
    kind: "text",
    value: "string",
    help: "The socket of this host's swarm-agent",
    default: "/run/swarm/agent.sock",
  },
  "manager-socket": {
    kind: "text",
    value: "string",
    help: "The socket of this host's swarm-manager",
    default: "/run/swarm/manager.sock",
  },
} as const satisfies FlagTable;

/** Both; what is not running says so at the first call. */
export class LocalPrograms implements AsyncDisposable {
  readonly agent: Client<typeof LocalAgent>;
  readonly manager: Client<typeof LocalManager>;
  /** Of this host's manager, while it is in a cluster. */
  readonly control: Client<typeof Control>;
  readonly #transports: readonly Transport[];

  constructor(flags: Flags) {
    const open = (flag: keyof typeof SOCKET_FLAGS) =>
      openGrpcTransport({ address: `unix:${flags.text(flag) ?? SOCKET_FLAGS[flag].default}` });
    const [agent, manager] = [open("agent-socket"), open("manager-socket")];
    this.agent = createClient(LocalAgent, agent);
    this.manager = createClient(LocalManager, manager);
    this.control = createClient(Control, manager);
    this.#transports = [agent, manager];
  }

  /** What other hosts join with. */
  tokens(options: CallOptions): Promise<GetJoinTokensResponse> {
    return this.control.getJoinTokens({}, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const transport of this.#transports) await transport[Symbol.asyncDispose]();
  }
}

/** Whether a call failed because the program does not run (or is not ours to talk to). */
export function isAbsent(reason: unknown): reason is SwarmError {
  return reason instanceof SwarmError && reason.code === "unavailable" && /^connect to unix:/.test(reason.message);
}

/** In words that say which program is meant. */
export function notRunning(program: "swarm-agent" | "swarm-manager", reason: SwarmError): SwarmError {
  const start = program === "swarm-agent" ? "systemctl start swarm-agent" : "systemctl start swarm-manager";
  return new SwarmError("unavailable", `${program} does not answer on this host (${reason.message}): ${start}`);
}
