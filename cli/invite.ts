/**
 * Invites: all that somebody needs for a context of theirs, in one file of their own. `user create` writes one, `context create
 * --from-invite` reads it. It holds a key: whoever has it is the user, until the user is removed or made anew.
 */
import { SwarmError } from "../common/base/error.ts";
import { parseHostPort } from "../common/base/host-port.ts";
import { readCertificates } from "../common/pki/certificates.ts";
import { MANAGER_SERVER_NAME } from "../common/pki/identity.ts";
import { readPrivateKey } from "../common/pki/key-pair.ts";
import { readTrustBundle } from "../common/pki/trust-bundle.ts";
import { verifyChain } from "../common/pki/verify-chain.ts";
import type { ContextMeta, ContextPem } from "./contexts.ts";
import { reachWords } from "./output/user-words.ts";

/** What an invite says; certificates and key in PEM. */
export interface Invite {
  /** "host:port", tried in turn. */
  readonly managers: readonly string[];
  readonly roots: string;
  readonly certificates: string;
  readonly key: string;
}

const VERSION = 1;
const MANAGERS_MAX = 64;

export function formatInvite({ managers, roots, certificates, key }: Invite): string {
  return `${JSON.stringify({ swarmInvite: VERSION, managers, roots, certificates, key }, undefined, 2)}\n`;
}

/**
 * The context that an invite makes. `what` names it in the `invalid_argument` that says what is wrong with it: its form, its
 * certificate's dates and authority, a key of another's.
 */
export async function contextOfInvite(
  text: string,
  { what, nowMs }: { readonly what: string; readonly nowMs: number },
): Promise<{ readonly meta: ContextMeta; readonly pem: ContextPem }> {
  const { managers, roots, certificates, key } = parseInvite(text, what);
  const trusted = readTrustBundle(roots, `${what}: roots:`);
  const chain = readCertificates(certificates, `${what}: certificates:`);
  const verdict = await verifyChain(chain, trusted, { nowMs, usage: "client" });
  if (!verdict.ok) throw invalid(what, verdict.message);
  const { identity } = verdict;
  if (identity.kind !== "user") throw invalid(what, "the certificate is a node's, not a user's");
  if (!chain[0].checkPrivateKey(readPrivateKey(key, `${what}: key:`))) {
    throw invalid(what, "the key does not belong to the certificate");
  }
  const meta = {
    description: `${identity.name}, ${reachWords(identity)}`,
    host: managers.map((manager) => `tcp://${manager}`).join(","),
    skipTlsVerify: false,
    serverName: MANAGER_SERVER_NAME,
  };
  return { meta, pem: { ca: roots, cert: certificates, key } };
}

function parseInvite(text: string, what: string): Invite {
  const fields = objectOf(text);
  if (fields === undefined || fields.swarmInvite === undefined) {
    throw invalid(what, "is no invite; is it from 'swarmctl user create'?");
  }
  if (fields.swarmInvite !== VERSION) throw invalid(what, "is of another version of swarmctl");
  const managers: unknown = fields.managers;
  const isAddress = (value: unknown): value is string =>
    typeof value === "string" && parseHostPort(value) !== undefined;
  if (
    !Array.isArray(managers) ||
    managers.length === 0 ||
    managers.length > MANAGERS_MAX ||
    !managers.every(isAddress)
  ) {
    throw invalid(what, `managers: must be 1 to ${MANAGERS_MAX} of HOST:PORT`);
  }
  const textOf = (field: "roots" | "certificates" | "key"): string => {
    const value = fields[field];
    if (typeof value === "string" && value !== "") return value;
    throw invalid(what, `${field}: missing`);
  };
  return { managers, roots: textOf("roots"), certificates: textOf("certificates"), key: textOf("key") };
}

function objectOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function invalid(what: string, problem: string): SwarmError {
  return new SwarmError("invalid_argument", `${what}: ${problem}`);
}
