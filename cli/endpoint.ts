/**
 * Which manager is asked and how: `--host`, `--tls…`, their variables and defaults, with Docker's meanings (docker/cli
 * cli/flags/options.go). Pure but for looking whether a default file exists.
 */
import type { TlsFiles } from "../common/rpc/tls-files.ts";
import { type ContextStore, DEFAULT_CONTEXT, type StoredContext } from "./contexts.ts";
import type { Flags, FlagTable } from "./flags/parse.ts";
import type { Io } from "./io.ts";
import { UsageError } from "./usage-error.ts";

/** Where a manager is looked for when nobody says. */
const HOST_DEFAULT = "unix:///run/swarm/manager.sock";

/** How connections to TCP addresses are made. */
export interface TlsChoice {
  readonly files: TlsFiles;
  /** Whether the manager must prove who it is. */
  readonly verify: boolean;
  /** The name that its certificate must have; absent: that of its address. */
  readonly serverName?: string;
}

/** Whom to call. */
export interface Endpoint {
  /** Tried in turn. */
  readonly hosts: readonly string[];
  readonly tls: TlsChoice | undefined;
}

export const ENDPOINT_FLAGS = {
  context: {
    kind: "text",
    short: "c",
    value: "string",
    help: "Name of the context to use",
    default: "$SWARM_CONTEXT or the one of 'context use'",
  },
  host: {
    kind: "list",
    short: "H",
    value: "string",
    help: "Manager to connect to; several are tried in turn",
    default: `$SWARM_HOST or ${HOST_DEFAULT}`,
  },
  tls: { kind: "boolean", help: "Use TLS without checking who the manager is; implied by --tlsverify" },
  tlsverify: { kind: "boolean", help: "Use TLS and verify the manager", default: "$SWARM_TLS_VERIFY" },
  tlscacert: {
    kind: "text",
    value: "string",
    help: "Trust certs signed only by this CA",
    default: "ca.pem in $SWARM_CERT_PATH or ~/.swarm",
  },
  tlscert: { kind: "text", value: "string", help: "Path to TLS certificate file", default: "cert.pem beside it" },
  tlskey: { kind: "text", value: "string", help: "Path to TLS key file", default: "key.pem beside it" },
} as const satisfies FlagTable;

const FILES = {
  ca: ["tlscacert", "ca.pem"],
  certificate: ["tlscert", "cert.pem"],
  key: ["tlskey", "key.pem"],
} as const;

/** What the choice depends on besides the flags. */
interface EndpointFacts extends Pick<Io, "environment" | "exists"> {
  readonly contexts: Pick<ContextStore, "get" | "current">;
}

/** The context in force: --host, --context, $SWARM_HOST, $SWARM_CONTEXT, `context use`; the first that is given. */
export function contextName(flags: Flags, { environment, contexts }: Omit<EndpointFacts, "exists">): string {
  const asked = flags.text("context");
  if (flags.has("host")) {
    if (asked !== undefined) throw new UsageError("conflicting options: either specify --host or --context, not both");
    return DEFAULT_CONTEXT;
  }
  if (asked !== undefined) return asked;
  if (environment.SWARM_HOST) return DEFAULT_CONTEXT;
  return environment.SWARM_CONTEXT || contexts.current() || DEFAULT_CONTEXT;
}

/** `flags` hold what was given before the command and, for flags that it does not have itself, after it. */
export function endpointOf(flags: Flags, facts: EndpointFacts): Endpoint {
  const name = contextName(flags, facts);
  const asked = ["tls", "tlsverify", ...Object.values(FILES).map(([flag]) => flag)].find((flag) => flags.has(flag));
  if (name !== DEFAULT_CONTEXT) {
    if (asked !== undefined) throw new UsageError(`--${asked}: the context ${name} has its own; see context update`);
    return endpointOfContext(facts.contexts.get(name));
  }
  const hosts = defaultHosts(flags, facts);
  const tls = tlsOf(flags, facts);
  if (asked !== undefined && hosts.every((host) => host.startsWith("unix:"))) {
    throw new UsageError(`--${asked}: ${hosts.join(", ")} is a unix socket; TLS is for --host tcp://HOST:PORT`);
  }
  return { hosts, tls };
}

/** The addresses of the default context. */
export function defaultHosts(flags: Flags, { environment }: Pick<Io, "environment">): readonly string[] {
  const given = flags.list("host");
  return splitHosts(given.length > 0 ? given : [environment.SWARM_HOST || HOST_DEFAULT]);
}

/** What a context says. */
function endpointOfContext({ host, skipTlsVerify, serverName, files }: StoredContext): Endpoint {
  const { ca, cert: certificate, key } = files;
  const secure = skipTlsVerify || ca !== undefined || certificate !== undefined;
  const named = serverName === undefined ? {} : { serverName };
  const tls = secure ? { files: { ca, certificate, key }, verify: !skipTlsVerify, ...named } : undefined;
  return { hosts: splitHosts([host]), tls };
}

/** One address per element; people write several with commas between them. */
function splitHosts(texts: readonly string[]): readonly string[] {
  return texts.flatMap((text) => text.split(",")).map((text) => text.trim());
}

/** As Docker: `--tlsverify` in any form turns TLS on, and so does its variable; a file given for nothing is a mistake. */
function tlsOf(flags: Flags, { environment, exists }: Pick<Io, "environment" | "exists">): TlsChoice | undefined {
  const verify = flags.has("tlsverify") ? flags.on("tlsverify") : Boolean(environment.SWARM_TLS_VERIFY);
  if (!flags.on("tls") && !flags.has("tlsverify") && !verify) {
    const lost = Object.values(FILES).find(([flag]) => flags.has(flag));
    if (lost !== undefined) throw new UsageError(`--${lost[0]}: TLS is off; add --tlsverify`);
    return undefined;
  }
  const folder = environment.SWARM_CERT_PATH || `${environment.HOME ?? ""}/.swarm`;
  const pathOf = ([flag, name]: readonly [string, string]): string | undefined => {
    const path = flags.text(flag) ?? `${folder}/${name}`;
    return flags.has(flag) || exists(path) ? path : undefined;
  };
  const files = { ca: pathOf(FILES.ca), certificate: pathOf(FILES.certificate), key: pathOf(FILES.key) };
  if ((files.certificate === undefined) !== (files.key === undefined)) {
    const [missing, other] = files.key === undefined ? ["tlskey", "certificate"] : ["tlscert", "key"];
    throw new UsageError(`--${missing} is needed beside the ${other} ${files.certificate ?? files.key}`);
  }
  return { files, verify };
}
