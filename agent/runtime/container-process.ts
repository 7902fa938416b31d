/** How a container's process is called: Docker's rules for entrypoint and command, environment, and resource limits. */
import type { FieldProblem } from "../../common/base/error.ts";
import type { OciRlimit } from "./oci.ts";

/** The image's and the service's halves of a command line; empty = not given. */
export interface CommandParts {
  readonly image: { readonly entrypoint: readonly string[]; readonly command: readonly string[] };
  readonly command: readonly string[];
  readonly args: readonly string[];
}

/**
 * A service's command replaces the image's entrypoint and with it the image's command; a service's args replace the
 * image's command alone.
 */
export function commandLine({ image, command, args }: CommandParts, problems: FieldProblem[]): readonly string[] {
  const tail = args.length > 0 || command.length > 0 ? args : image.command;
  const line = [...(command.length > 0 ? command : image.entrypoint), ...tail];
  if (line.length === 0) problems.push({ field: "command", problem: "no command specified" });
  else if (line[0] === "") problems.push({ field: "command", problem: "the first word is empty" });
  return line;
}

const PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What an environment is made of, weakest first. */
export interface EnvironmentParts {
  readonly hostname: string;
  readonly tty: boolean;
  readonly imageEnv: readonly string[];
  /** `NAME=value`, or `NAME` alone to take the image's variable away. */
  readonly env: readonly string[];
  readonly home: string;
}

/** PATH, HOSTNAME and (on a terminal) TERM, then the image's, then the service's; HOME by passwd where none says it. */
export function environment({ hostname, tty, imageEnv, env, home }: EnvironmentParts): readonly string[] {
  const variables = new Map([
    ["PATH", PATH_DEFAULT],
    ["HOSTNAME", hostname],
  ]);
  if (tty) variables.set("TERM", "xterm");
  for (const variable of [...imageEnv, ...env]) {
    const equals = variable.indexOf("=");
    if (equals < 0) variables.delete(variable);
    else if (equals > 0) variables.set(variable.slice(0, equals), variable.slice(equals + 1));
  }
  if (!variables.get("HOME")) variables.set("HOME", home);
  return [...variables].map(([name, value]) => `${name}=${value}`);
}

/** One limit in Docker's words; -1 = unlimited. Structurally the wire's Ulimit. */
export interface UserLimit {
  /** `nofile`, `core`, … */
  readonly name: string;
  readonly soft: bigint;
  readonly hard: bigint;
}

const LIMIT_NAMES = new Set(
  "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(" "),
);

/**
 * No core dumps, which could fill the host's disk; 1,024 open files that a program may raise to 524,288 itself, since
 * programs that loop over all descriptors crawl when the soft limit is high.
 */
const OPEN_FILES_DEFAULT = { soft: 1024, hard: 524_288 };

/** What limits are made of. */
export interface LimitParts {
  readonly limits: readonly UserLimit[];
  /** The most open files the agent can give. The default yields to it; a wish above it fails when it is carried out. */
  readonly openFilesMax: number;
}

/** The default limits with the service's in their place. Unlimited is -1 in the spec, too. */
export function resourceLimits({ limits, openFilesMax }: LimitParts, problems: FieldProblem[]): readonly OciRlimit[] {
  const hardFiles = Math.min(OPEN_FILES_DEFAULT.hard, openFilesMax);
  const byType = new Map<string, OciRlimit>([
    ["RLIMIT_CORE", { type: "RLIMIT_CORE", soft: 0, hard: 0 }],
    ["RLIMIT_NOFILE", { type: "RLIMIT_NOFILE", soft: Math.min(OPEN_FILES_DEFAULT.soft, hardFiles), hard: hardFiles }],
  ]);
  for (const { name, soft, hard } of limits) {
    const bad = (problem: string) => problems.push({ field: `ulimits.${name}`, problem });
    const inOrder = hard < 0n || (soft >= 0n && soft <= hard);
    if (!LIMIT_NAMES.has(name)) bad("unknown limit");
    else if (!inOrder) bad(`soft limit ${soft} is above the hard limit ${hard}`);
    else {
      const type = `RLIMIT_${name.toUpperCase()}`;
      byType.set(type, { type, soft: Number(soft < 0n ? -1n : soft), hard: Number(hard < 0n ? -1n : hard) });
    }
  }
  return [...byType.values()];
}
