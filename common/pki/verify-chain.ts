/**
 * Verifies a certificate and what was sent with it against the roots that are trusted, as TLS does, but says why not: where
 * OpenSSL says "certificate verify failed" or nothing, this names the certificate, the date and the reason. It also knows
 * what OpenSSL does not: which cluster it should be. (RFC 5280, 6.1, without revocation lists: a removed node is known by
 * its id.)
 */
import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { ClusterId } from "../base/id.ts";
import { isIssuedBy, nameOf, sameCertificate, validityProblem } from "./certificates.ts";
import { type Identity, identityOf } from "./identity.ts";
import { roomBelow } from "./path-length.ts";

/** The reasons by which a chain is refused, for those who act on them; people read the message. */
export type ChainFault =
  | "no-certificate"
  | "too-long"
  | "unknown-authority"
  | "other-cluster"
  | "expired"
  | "not-yet-valid"
  | "malformed"
  | "wrong-usage"
  | "wrong-name";

export type ChainVerdict =
  | { readonly ok: true; readonly identity: Identity; readonly root: X509Certificate }
  | { readonly ok: false; readonly fault: ChainFault; readonly message: string };

/** What the certificate is to be good for. */
export interface ChainExpectation {
  readonly nowMs: number;
  /** Which end of a connection it proves. */
  readonly usage: "client" | "server";
  /** Absent: whichever cluster the roots are of. */
  readonly clusterId?: ClusterId;
  /** The name by which a server is verified: a role, an id, a host, an address. */
  readonly name?: string;
}

/** A leaf, a cross-signed root, and what people have above their intermediate: more is somebody keeping us busy. */
const CHAIN_LENGTH_MAX = 5;
const USAGES = { server: "1.3.6.1.5.5.7.3.1", client: "1.3.6.1.5.5.7.3.2" } as const;

/** Verifies `chain`, the leaf first, then what was sent with it in any order. Never throws for what a peer has sent. */
export async function verifyChain(
  chain: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  expectation: ChainExpectation,
): Promise<ChainVerdict> {
  const [leaf, ...sent] = chain;
  if (leaf === undefined) return refused("no-certificate", "no certificate was shown");
  if (chain.length > CHAIN_LENGTH_MAX) {
    return refused("too-long", `${chain.length} certificates were shown; ${CHAIN_LENGTH_MAX} are the most`);
  }
  const whose = `the certificate ${nameOf(leaf.subject)}`;
  const paths = await allowedPaths(pathsFrom(leaf, sent, roots));
  if (paths.length === 0) return strange(leaf, expectation);
  // A root's old certificate beside its new one: one path that is valid will do.
  const path = paths.find((each) => each.every((one) => validityProblem(one, expectation.nowMs) === undefined));
  const fault = path === undefined ? validityFault(paths[0] ?? [], expectation.nowMs) : undefined;
  if (fault !== undefined) return fault;
  const [issuer, root] = [path?.[1], path?.at(-1)];
  if (issuer === undefined || root === undefined) return strange(leaf, expectation);
  const read = identityOf(leaf, [issuer]);
  if (!read.ok) return refused("malformed", `${whose} is no identity: ${read.problem}`);
  return expected(leaf, { ok: true, identity: read.identity, root }, expectation);
}

function expected(
  leaf: X509Certificate,
  verdict: ChainVerdict & { readonly ok: true },
  { clusterId, usage, name }: ChainExpectation,
): ChainVerdict {
  const whose = `the certificate ${nameOf(leaf.subject)}`;
  const { identity } = verdict;
  if (clusterId !== undefined && identity.clusterId !== clusterId)
    return otherCluster(whose, identity.clusterId, clusterId);
  // Node's typings have it as an array; a certificate without the extension has none.
  const usages: readonly string[] | undefined = leaf.keyUsage;
  if (!usages?.includes(USAGES[usage])) return refused("wrong-usage", `${whose} is not for use as a ${usage}`);
  if (name !== undefined && !bears(leaf, name)) return refused("wrong-name", `${whose} is not for the name ${name}`);
  return verdict;
}

function bears(leaf: X509Certificate, name: string): boolean {
  const found = isIP(name) === 0 ? leaf.checkHost(name, { subject: "never" }) : leaf.checkIP(name);
  return found !== undefined;
}

/** What is said of a certificate that no root vouches for. Nothing it says is believed, but it may tell people the mistake. */
function strange(leaf: X509Certificate, { clusterId }: ChainExpectation): ChainVerdict {
  const claimed = /^O=([a-z0-9]{25})$/m.exec(leaf.subject ?? "")?.[1];
  const whose = `the certificate ${nameOf(leaf.subject)}`;
  if (clusterId !== undefined && claimed !== undefined && claimed !== clusterId) {
    return otherCluster(whose, claimed, clusterId);
  }
  return refused(
    "unknown-authority",
    `${whose} was signed by ${nameOf(leaf.issuer)}, which is none of the authorities trusted here`,
  );
}

function otherCluster(whose: string, found: string, wanted: string): ChainVerdict {
  return refused("other-cluster", `${whose} is of another cluster: ${found}, not ${wanted}`);
}

/** The first certificate of a path whose time it is not. */
function validityFault(path: readonly X509Certificate[], nowMs: number): ChainVerdict | undefined {
  for (const [index, each] of path.entries()) {
    const problem = validityProblem(each, nowMs);
    if (problem === undefined) continue;
    const what = index === 0 ? "the certificate" : "the authority";
    const fault = each.validToDate.getTime() >= nowMs ? "not-yet-valid" : "expired";
    return refused(fault, `${what} ${nameOf(each.subject)} ${problem}`);
  }
  return undefined;
}

/** Every way from the leaf to a trusted root, shortest first; each certificate is used once, so they are few. */
function pathsFrom(
  leaf: X509Certificate,
  sent: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): readonly (readonly X509Certificate[])[] {
  const ends = roots.filter((root) => isSoundlyIssuedBy(leaf, root)).map((root) => [leaf, root]);
  const onward = sent
    .filter((each) => !roots.some((root) => sameCertificate(root, each)) && isSoundlyIssuedBy(leaf, each))
    .flatMap((each) =>
      pathsFrom(
        each,
        sent.filter((other) => other !== each),
        roots,
      ),
    )
    .map((path) => [leaf, ...path]);
  return [...ends, ...onward];
}

/** Signatures of these can be forged (collisions); OpenSSL refuses them in a handshake, too. */
function isSoundlyIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return !/md5|sha1(?!\d)/i.test(certificate.signatureAlgorithm ?? "md5") && isIssuedBy(certificate, issuer);
}

/** Those of the paths that are no longer than each of their authorities allows. */
async function allowedPaths(
  paths: readonly (readonly X509Certificate[])[],
): Promise<readonly (readonly X509Certificate[])[]> {
  const allowed: (readonly X509Certificate[])[] = [];
  for (const path of paths) {
    const [, ...authorities] = path;
    // The usual path has one, which allows at least none: for it the library need not be loaded.
    if (authorities.length === 1 || (await roomBelow(authorities)) >= 0) allowed.push(path);
  }
  return allowed;
}

function refused(fault: ChainFault, message: string): ChainVerdict {
  return { ok: false, fault, message };
}
