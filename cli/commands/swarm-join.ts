import { SwarmError } from "../../common/base/error.ts";
import { NodeSpec_Availability, NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Command, Invocation } from "../command.ts";
import { choiceFlag } from "../flags/values.ts";
import type { Io } from "../io.ts";
import { isAbsent, LOCAL_CALL_MS_MAX, LocalPrograms, notRunning, SOCKET_FLAGS } from "../local.ts";
import { warnOfManagers } from "../manager-warnings.ts";
import { refuseFlags, SWARM_JOIN_REFUSED } from "../refused.ts";
import { UsageError } from "../usage-error.ts";
import { AVAILABILITIES, withPort } from "./swarm-init.ts";

/** A token has 85 characters. */
const TOKEN_BYTES_MAX = 4096;

export const command: Command = {
  usage: "swarm join [OPTIONS] HOST:PORT",
  summary: "Join a swarm as a node and/or manager",
  flags: {
    "advertise-addr": { kind: "text", value: "string", help: "Advertised address (format: '<ip|interface>[:port]')" },
    availability: {
      kind: "text",
      value: "string",
      help: 'Availability of the node ("active", "pause", "drain")',
      default: '"active"',
    },
    "listen-addr": {
      kind: "text",
      value: "node-addr",
      help: "Listen address (format: '<ip>[:port]')",
      default: "0.0.0.0:2377",
    },
    token: { kind: "text", value: "string", help: "Token for entry into the swarm" },
    "token-file": {
      kind: "text",
      value: "string",
      help: "File with the token, or - for STDIN: other users see arguments",
    },
    ...SOCKET_FLAGS,
    ...SWARM_JOIN_REFUSED.flags,
  },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, signal }: Invocation): Promise<number> {
  refuseFlags(flags, SWARM_JOIN_REFUSED);
  const token = await readToken(flags.text("token"), flags.text("token-file"), io);
  const availability = choiceFlag(flags, "availability", AVAILABILITIES) ?? NodeSpec_Availability.ACTIVE;
  await using local = new LocalPrograms(flags);
  const request = {
    managers: words.map(withPort),
    token,
    availability,
    listenAddress: withPort(flags.text("listen-addr") ?? ""),
    advertiseAddress: flags.text("advertise-addr") ?? "",
  };
  const answer = await local.agent
    .joinNode(request, { signal, timeoutMs: LOCAL_CALL_MS_MAX })
    .catch((reason: unknown) => {
      throw isAbsent(reason) ? notRunning("swarm-agent", reason) : reason;
    });
  const isManager = answer.role === NodeSpec_Role.MANAGER;
  io.out(`This node joined a swarm as a ${isManager ? "manager" : "worker"}.\n`);
  if (isManager) await warnOfManagers(local.control, io);
  return 0;
}

async function readToken(token: string | undefined, file: string | undefined, io: Io): Promise<string> {
  if (token !== undefined && file !== undefined) throw new UsageError("give --token or --token-file, not both");
  if (token !== undefined) return token;
  if (file === undefined) throw new UsageError("a token is needed: --token-file FILE, or --token TOKEN");
  if (file !== "-") return Buffer.from(io.readBytes(file, TOKEN_BYTES_MAX)).toString("utf8");
  let text = "";
  for await (const chunk of io.stdin) {
    text += String(chunk);
    if (text.length > TOKEN_BYTES_MAX) throw new SwarmError("invalid_argument", "STDIN: that is no join token");
  }
  return text;
}
