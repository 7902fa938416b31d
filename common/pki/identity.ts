/**
 * Who somebody is, as their certificate says it. The cluster's authority writes it and everyone reads it here, by one set
 * of rules, and never from a message:
 *
 *   node   CN = node id     OU = swarm-worker | swarm-manager                O = cluster id   DNS: node id, role
 *   user   CN = their name  OU = swarm-viewer | swarm-deployer | swarm-admin O = cluster id   URI: swarm:stack-prefix:shop, …
 *
 * Pure. A subject has exactly these three, of letters that need no escape: there is nothing to be read in two ways.
 */
import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { FieldProblem } from "../base/error.ts";
import { type ClusterId, isId, type NodeId } from "../base/id.ts";
import { isIssuedBy, type KeyId, keyIdOf } from "./certificates.ts";
import type { Validity } from "./validity.ts";

/** SwarmKit's words. */
export const NODE_ROLES = ["swarm-worker", "swarm-manager"] as const;
/** What a manager's certificate is for, whatever its address. */
export const MANAGER_SERVER_NAME = "swarm-manager" satisfies (typeof NODE_ROLES)[number];
export type NodeRole = (typeof NODE_ROLES)[number];

/** What people and CI may be: read; change services, stacks and their parts; everything. */
export const USER_ROLES = ["swarm-viewer", "swarm-deployer", "swarm-admin"] as const;
export type UserRole = (typeof USER_ROLES)[number];

/** A machine of the cluster. */
export interface NodeSubject {
  readonly kind: "node";
  readonly nodeId: NodeId;
  readonly role: NodeRole;
  readonly clusterId: ClusterId;
}

/** Somebody with a swarmctl. */
export interface UserSubject {
  readonly kind: "user";
  readonly name: string;
  readonly role: UserRole;
  readonly clusterId: ClusterId;
  /** Only what belongs to stacks whose names begin with one of these. Absent: everything. */
  readonly stackPrefixes?: readonly string[];
}

export type Subject = NodeSubject | UserSubject;

/** The rest of what a certificate says. */
export interface CertificateFacts extends Validity {
  /** Hex. */
  readonly serial: string;
  /** The key that signed it: tells the certificates of an old root from those of a new one. */
  readonly issuerKeyId: KeyId;
}

export type Identity = Subject & CertificateFacts;

/** An identity, or in a sentence why there is none. */
export type IdentityRead =
  | { readonly ok: true; readonly identity: Identity }
  | { readonly ok: false; readonly problem: string };

/** Names of the authority's own; no host may be called so. */
const ROLES: readonly string[] = [...NODE_ROLES, ...USER_ROLES, "swarm-ca"];
const STACK_PREFIX_URI = "swarm:stack-prefix:";
const USER_NAME = /^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,62}$/;
/** As stacks may be called. */
const STACK_PREFIX = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;
const HOST = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i;
/** Each is bytes in every handshake. */
const ALTERNATIVES_MAX = 16;

/**
 * Reads a certificate whose chain has been verified, by TLS or by `verifyChain`. `issuers` are the certificates that may
 * have signed it: those of the trust bundle, and the authority's own.
 */
export function identityOf(certificate: X509Certificate, issuers: readonly X509Certificate[]): IdentityRead {
  const issuer = issuers.find((each) => isIssuedBy(certificate, each));
  if (issuer === undefined) return refused("it was signed by an authority that this cluster does not trust");
  if (certificate.ca) return refused("it is an authority's own");
  const subject = subjectOf(certificate);
  if (typeof subject === "string") return refused(subject);
  const facts = {
    serial: certificate.serialNumber.toLowerCase(),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
    issuerKeyId: keyIdOf(issuer.publicKey),
  };
  return { ok: true, identity: { ...subject, ...facts } };
}

/** What is wrong with a subject that a certificate is asked for, and with the further names of its host. */
export function subjectProblems(subject: Subject, hosts: readonly string[] = []): readonly FieldProblem[] {
  const problems: FieldProblem[] = [];
  if (!isId(subject.clusterId)) problems.push({ field: "cluster id", problem: "must be 25 digits of base 36" });
  if (subject.kind === "node") {
    if (!isId(subject.nodeId)) problems.push({ field: "node id", problem: "must be 25 digits of base 36" });
  } else {
    const problem = userNameProblem(subject.name);
    if (problem !== undefined) problems.push({ field: "name", problem });
    problems.push(...prefixProblems(subject.stackPrefixes));
  }
  if (hosts.length > 0 && !(subject.kind === "node" && subject.role === "swarm-manager")) {
    problems.push({ field: "hosts", problem: "only a manager's certificate has names of its host" });
  }
  if (hosts.length > ALTERNATIVES_MAX)
    problems.push({ field: "hosts", problem: `must be ${ALTERNATIVES_MAX} or fewer` });
  for (const host of hosts) {
    if (isIP(host) === 0 && !HOST.test(host))
      problems.push({ field: "hosts", problem: "must be host names and addresses" });
    // Whoever is verified by such a name would be taken for that role, or that node.
    else if (ROLES.includes(host.toLowerCase()) || isId(host.toLowerCase())) {
      problems.push({ field: "hosts", problem: "must not look like a role or a node's id" });
    }
  }
  return problems;
}

/** Why nobody can be called so; undefined for a good name. */
export function userNameProblem(name: string): string | undefined {
  return USER_NAME.test(name) ? undefined : "must be 1 to 63 letters, digits or ._@- and begin with a letter or digit";
}

/** A subject's alternative names, as `@peculiar/x509` takes them. */
export function alternativeNames(
  subject: Subject,
  hosts: readonly string[] = [],
): readonly { readonly type: "dns" | "ip" | "url"; readonly value: string }[] {
  if (subject.kind === "user") {
    return (subject.stackPrefixes ?? []).map((prefix) => ({ type: "url", value: STACK_PREFIX_URI + prefix }));
  }
  return [
    ...[subject.nodeId, subject.role].map((value) => ({ type: "dns", value }) as const),
    ...hosts.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }) as const),
  ];
}

function prefixProblems(prefixes: readonly string[] | undefined): readonly FieldProblem[] {
  if (prefixes === undefined) return [];
  const problem =
    prefixes.length === 0 || prefixes.length > ALTERNATIVES_MAX
      ? `must be 1 to ${ALTERNATIVES_MAX}`
      : prefixes.every((prefix) => STACK_PREFIX.test(prefix))
        ? undefined
        : "must be beginnings of stack names: letters, digits and _.-";
  return problem === undefined ? [] : [{ field: "stack prefixes", problem }];
}

/** Node writes each part as NAME=value on a line, with escapes where there is anything unusual: such lines match nothing here. */
function subjectOf(certificate: X509Certificate): Subject | string {
  const parts = new Map<string, string>();
  const lines = (certificate.subject ?? "").split("\n");
  for (const line of lines) {
    const [, name, value] = /^(CN|OU|O)=([a-zA-Z0-9._@-]{1,64})$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) parts.set(name, value);
  }
  const [name = "", role = "", cluster = ""] = [parts.get("CN"), parts.get("OU"), parts.get("O")];
  if (parts.size !== 3 || lines.length !== 3) return "its subject is not one plain CN, one OU and one O";
  if (!isId(cluster)) return "its O is no cluster's id";
  const clusterId = cluster as ClusterId;
  const prefixes = prefixesOf(certificate);
  if (prefixes === undefined) return "its alternative names are none of this cluster's";
  if (isOneOf(NODE_ROLES, role)) {
    if (!isId(name)) return "its CN is no node's id";
    if (prefixes.length > 0) return "it is a node's and has stack prefixes";
    return { kind: "node", nodeId: name as NodeId, role, clusterId };
  }
  if (!isOneOf(USER_ROLES, role)) return `its OU is none of ${[...NODE_ROLES, ...USER_ROLES].join(", ")}`;
  if (!USER_NAME.test(name)) return "its CN is no user's name";
  return { kind: "user", name, role, clusterId, ...(prefixes.length === 0 ? {} : { stackPrefixes: prefixes }) };
}

/** The stack prefixes among the alternative names; undefined when one of those is not understood: it may be a limit, too. */
function prefixesOf({ subjectAltName }: X509Certificate): readonly string[] | undefined {
  const prefixes: string[] = [];
  for (const name of subjectAltName?.split(", ") ?? []) {
    const uri = /^URI:(.*)$/.exec(name)?.[1];
    if (uri === undefined && /^(?:DNS|IP Address):[a-zA-Z0-9.:-]+$/.test(name)) continue;
    if (!uri?.startsWith(STACK_PREFIX_URI)) return undefined;
    const prefix = uri.slice(STACK_PREFIX_URI.length);
    if (!STACK_PREFIX.test(prefix)) return undefined;
    prefixes.push(prefix);
  }
  return prefixes;
}

function isOneOf<T extends string>(words: readonly T[], word: string): word is T {
  return (words as readonly string[]).includes(word);
}

function refused(problem: string): IdentityRead {
  return { ok: false, problem };
}
