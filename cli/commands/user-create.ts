import { SwarmError } from "../../common/base/error.ts";
import { isLoopback, parseHostPort } from "../../common/base/host-port.ts";
import { toDuration } from "../../common/model/duration.ts";
import { createCertificateRequest } from "../../common/pki/certificate-request.ts";
import { userNameProblem } from "../../common/pki/identity.ts";
import { exportPrivateKey, generateKeyPair } from "../../common/pki/key-pair.ts";
import type { CreateUserResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import { User_Role } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Command, Invocation } from "../command.ts";
import { confirm } from "../confirm.ts";
import { durationFlagMs } from "../flags/values.ts";
import { formatInvite } from "../invite.ts";
import { expiryWords } from "../output/user-words.ts";
import { writeOwnFile } from "../own-file.ts";
import { UsageError } from "../usage-error.ts";

const ROLES = { viewer: User_Role.VIEWER, deployer: User_Role.DEPLOYER, admin: User_Role.ADMIN } as const;

export const command: Command = {
  usage: "user create [OPTIONS] NAME",
  summary: "Create a user, and write an invite for a swarmctl elsewhere",
  flags: {
    role: {
      kind: "text",
      value: "string",
      help: "What the user may do: viewer, deployer or admin",
      choices: Object.keys(ROLES),
    },
    stack: {
      kind: "list",
      value: "prefix",
      help: "Only what is of stacks whose names begin with this; may be repeated",
    },
    expiry: {
      kind: "text",
      value: "duration",
      help: "Validity of the certificate, 1h or more",
      default: "as of nodes, 2160h",
    },
    out: {
      kind: "text",
      short: "o",
      value: "file",
      help: "Where the invite is written, or - for STDOUT",
      default: "NAME.invite",
    },
    force: {
      kind: "boolean",
      short: "f",
      help: "Replace the user of this name without asking: its certificate is refused",
    },
  },
  words: { min: 1, max: 1 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, io, clock } = invocation;
  const [name = ""] = words;
  const problem = userNameProblem(name);
  if (problem !== undefined) throw new SwarmError("invalid_argument", `name: ${problem}`);
  const out = flags.text("out") ?? `${name}.invite`;
  if (out === "-" && io.terminal) {
    throw new SwarmError("failed_precondition", "refusing to write a key to a terminal: name a file with --out");
  }
  const request = requestOf(invocation, name);
  let answer: CreateUserResponse | undefined;
  const invite = async (): Promise<string> => {
    const keys = await generateKeyPair();
    answer = await create(invocation, { ...request, certificateRequest: await createCertificateRequest(keys) });
    return answer ? formatInvite({ ...answer, key: exportPrivateKey(keys) }) : "";
  };
  if (out === "-") io.out(await invite());
  else await writeOwnFile(out, invite);
  if (!answer?.user) return 1;
  if (out !== "-") io.out(`${name}\n`);
  if (answer.managers.every((manager) => isLoopback(parseHostPort(manager)?.host ?? ""))) {
    io.err("swarmctl: warning: the managers have addresses of this host only: the invite is of no use elsewhere\n");
  }
  const place = out === "-" ? "" : `The invite is in ${JSON.stringify(out)}; it holds a key. `;
  io.err(`${place}Its certificate ends ${expiryWords(answer.user, clock.nowMs())}. There: `);
  io.err(`swarmctl context create ${name} --from-invite ${out === "-" ? "FILE" : out}\n`);
  return 0;
}

function requestOf({ flags }: Invocation, name: string) {
  const word = flags.text("role");
  const role = word !== undefined && Object.hasOwn(ROLES, word) ? ROLES[word as keyof typeof ROLES] : undefined;
  if (role === undefined) {
    const roles = "viewer, deployer or admin";
    throw new UsageError(word === undefined ? `--role is needed: ${roles}` : `unknown role ${word}: ${roles}`);
  }
  const lifetimeMs = durationFlagMs(flags, "expiry");
  return {
    name,
    role,
    stackPrefixes: [...flags.list("stack")],
    ...(lifetimeMs === undefined ? {} : { lifetime: toDuration(lifetimeMs) }),
  };
}

/** Asks before somebody's certificate is taken from them; undefined: they said no. */
async function create(
  { flags, io, connect }: Invocation,
  request: ReturnType<typeof requestOf> & { readonly certificateRequest: string },
): Promise<CreateUserResponse | undefined> {
  const client = await connect();
  try {
    return await client.createUser({ ...request, replace: flags.on("force") });
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "already_exists") throw reason;
    if (io.stdin.isTTY !== true) throw SwarmError.wrap("use --force to give it another certificate", reason);
    const warning = `User ${request.name} is there: its present certificate will be refused.`;
    return (await confirm(io, warning)) ? await client.createUser({ ...request, replace: true }) : undefined;
  }
}
