/** Flags of `context create` and `context update`, in Docker's spelling and in a shorter one. */
import { statSync } from "node:fs";
import { SwarmError } from "../../common/base/error.ts";
import { isLoopback, parseHostPort } from "../../common/base/host-port.ts";
import { loadTlsFiles } from "../../common/rpc/tls-files.ts";
import type { ContextMeta, ContextPem } from "../contexts.ts";
import type { Io } from "../io.ts";
import { readTextArgument } from "../text-argument.ts";
import { UsageError } from "../usage-error.ts";
import { parseCsvFields } from "./csv.ts";
import type { Flags, FlagTable } from "./parse.ts";
import { parsedOrThrow } from "./values.ts";

export const CONTEXT_FLAGS = {
  description: { kind: "text", value: "string", help: "Description of the context" },
  docker: {
    kind: "list",
    value: "stringToString",
    help: 'Set the endpoint as Docker spells it ("host=tcp://m1:2376,ca=ca.pem,cert=…,key=…,skip-tls-verify=false")',
  },
  host: { kind: "text", value: "string", help: "Manager to connect to: unix:///path or tcp://host:port[,…]" },
  ca: { kind: "text", value: "file", help: "Trust certs signed only by this CA (copied)" },
  cert: { kind: "text", value: "file", help: "TLS certificate file (copied)" },
  key: { kind: "text", value: "file", help: "TLS key file (copied; only you can read the copy)" },
  "from-invite": {
    kind: "text",
    value: "file",
    help: "All of it from an invite that 'user create' wrote, or - for STDIN",
  },
  "skip-tls-verify": { kind: "boolean", help: "Do not check who the manager is" },
} as const satisfies FlagTable;

const KEYS = ["host", "ca", "cert", "key", "skip-tls-verify"] as const;

/** A context as it is to be stored, and what to warn of. */
export interface WantedContext {
  readonly meta: ContextMeta;
  readonly pem: ContextPem;
  readonly warnings: readonly string[];
}

/**
 * `present` (nothing, at `create`) with the flags' changes. The files are read and checked now: a context that cannot work is
 * better refused than stored. Throws UsageError for bad flags, `failed_precondition` for bad files.
 */
export async function wantedContext(
  flags: Flags,
  present: { readonly meta: ContextMeta; readonly pem: ContextPem } | undefined,
  { io, nowMs }: { readonly io: Pick<Io, "stdin" | "readFile">; readonly nowMs: number },
): Promise<WantedContext> {
  const file = flags.text("from-invite");
  if (file === undefined) return contextOfFlags(flags, present, nowMs);
  const other = ["docker", "from", ...KEYS].find((name) => flags.has(name));
  if (other !== undefined) throw new UsageError(`--${other}: an invite has its own`);
  const { contextOfInvite } = await import("../invite.ts");
  const what = file === "-" ? "the invite" : file;
  const { meta, pem } = await contextOfInvite(await readTextArgument(file, io), { what, nowMs });
  return {
    meta: { ...meta, description: flags.text("description") ?? meta.description },
    pem,
    warnings: exposure(file),
  };
}

function exposure(file: string): readonly string[] {
  const mode = file === "-" ? 0 : statSync(file).mode & 0o077;
  return mode === 0 ? [] : [`${file} holds a key and can be read by others: chmod 600 ${file}`];
}

function contextOfFlags(
  flags: Flags,
  present: { readonly meta: ContextMeta; readonly pem: ContextPem } | undefined,
  nowMs: number,
): WantedContext {
  const given = endpointFields(flags);
  const host = given.get("host") ?? present?.meta.host;
  if (host === undefined) throw new UsageError("--host is needed: unix:///path or tcp://host:port");
  const certificate = given.get("cert");
  const key = given.get("key");
  if ((certificate === undefined) !== (key === undefined)) throw new UsageError("--cert and --key belong together");
  const loaded = loadTlsFiles({ ca: given.get("ca"), certificate, key }, { end: "client", nowMs });
  const read = { ca: loaded.pem.ca, cert: loaded.pem.certificate, key: loaded.pem.key };
  const pem = {
    ca: read.ca ?? present?.pem.ca,
    cert: read.cert ?? present?.pem.cert,
    key: read.key ?? present?.pem.key,
  };
  const meta = {
    description: flags.text("description") ?? present?.meta.description ?? "",
    host,
    skipTlsVerify: skipsVerify(given.get("skip-tls-verify")) ?? present?.meta.skipTlsVerify ?? false,
    ...(present?.meta.serverName !== undefined && { serverName: present.meta.serverName }),
  };
  for (const address of host.split(",")) checkAddress(address.trim(), pem);
  return { meta, pem, warnings: loaded.warnings };
}

/** `--docker "host=…,ca=…"` and `--host … --ca …` together; the shorter spelling wins. */
function endpointFields(flags: Flags): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const text of flags.list("docker")) {
    for (const { key, value } of parsedOrThrow("docker", text, parseCsvFields)) {
      if (!KEYS.some((known) => known === key)) {
        throw new UsageError(`--docker: ${key}: unrecognized config key; one of ${KEYS.join(", ")}`);
      }
      if (value === undefined || value === "") throw new UsageError(`--docker: ${key}: needs a value`);
      fields.set(key, value);
    }
  }
  for (const key of KEYS) {
    const value = flags.text(key);
    if (value !== undefined) fields.set(key, value);
  }
  return fields;
}

function skipsVerify(text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (/^(?:1|t|true)$/i.test(text)) return true;
  if (/^(?:0|f|false)$/i.test(text)) return false;
  throw new UsageError(`--skip-tls-verify: ${JSON.stringify(text)} is neither true nor false`);
}

function checkAddress(address: string, { cert }: ContextPem): void {
  if (/^unix:(?:\/\/)?\/./.test(address)) return;
  const tcp = parseHostPort(address.replace(/^tcp:\/\//, ""));
  if (tcp === undefined) throw new UsageError(`--host ${address}: unix:///path or tcp://host:port`);
  if (isLoopback(tcp.host) || cert !== undefined) return;
  throw new SwarmError(
    "invalid_argument",
    `--host ${address}: only a manager on this machine can be reached without a client certificate; give --ca, --cert and --key`,
  );
}
