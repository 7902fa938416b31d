/**
 * The cluster's certificate authority: a root of its own, or what people bring (a root, or an intermediate below theirs),
 * and the certificates that it signs.
 *
 *   root ── node, user                   our own                     sent: leaf
 *   root ── intermediate ── node, user   theirs                      sent: leaf, intermediate
 *   new root ── node, user               in a rotation               sent: leaf, cross
 *      old root ── cross ┘               cross: the new root's name and key, signed by the old one
 *
 * Who knows the old root only believes the last one by the cross-signed certificate, who knows the new one without it.
 */
import { X509Certificate } from "node:crypto";
import { invalidFields, SwarmError } from "../base/error.ts";
import type { Entropy } from "../base/random.ts";
import type { CertificateRequest } from "./certificate-request.ts";
import {
  isIssuedBy,
  type KeyId,
  keyIdOf,
  nameOf,
  readCertificates,
  sameCertificate,
  toCertificatesPem,
  validityProblem,
} from "./certificates.ts";
import { alternativeNames, type Subject, subjectProblems } from "./identity.ts";
import { exportPrivateKey, generateKeyPair, importSigningKey, type SigningKey } from "./key-pair.ts";
import { pathLengthOf, roomBelow } from "./path-length.ts";
import { BACKDATE_MS, LIFETIME_MS_DEFAULT, LIFETIME_MS_MAX, LIFETIME_MS_MIN } from "./validity.ts";
import { loadX509, type Name } from "./x509.ts";

const ROOT_NAME = "swarm-ca";
/** Certificates between the root and a node: a cross-signed one, and somebody's intermediate below the root that it stands for. */
const ROOT_PATH_LENGTH = 2;

type AuthorityChain = ReturnType<typeof readCertificates>;

/** An authority that can sign. */
export interface CertificateAuthority {
  /** From the certificate of the key that signs to the root, which those who verify must have been given; often one and the same. */
  readonly chain: AuthorityChain;
  readonly root: X509Certificate;
  /** What is sent after a certificate of this authority's: all between it and each root in use. */
  readonly intermediates: readonly X509Certificate[];
  readonly keyId: KeyId;
  readonly key: SigningKey;
  /** The signer's name and key id as its certificate spells them. */
  readonly issuer: { readonly name: Name; readonly subjectKeyId: string | undefined };
}

/** Where an authority comes from, and what is handed in. */
export interface AuthorityFiles {
  /** The signer's certificate first, then what leads to its root, the root included. */
  readonly certificates: string;
  readonly key: string;
  /** The root's name and key, signed by the authority before it, then what leads to that one's root, which is left out. */
  readonly crossSigned?: string;
}

export interface IssueOptions {
  readonly nowMs: number;
  readonly entropy: Entropy;
  /** Default 90 days, at least an hour; cut to the end of the authority itself. */
  readonly lifetimeMs?: number;
  /** Names and addresses of a manager's host, for those who verify by them (swarmctl, etcd). */
  readonly hosts?: readonly string[];
}

/** A certificate and what is sent with it. */
export interface IssuedCertificate {
  readonly certificate: X509Certificate;
  /** PEM: the certificate, then the authority's intermediates. */
  readonly chain: string;
}

/** Makes a root and its key, in PEM: CN swarm-ca, 20 years, ECDSA on P-256. */
export async function createRoot(options: {
  readonly nowMs: number;
  readonly entropy: Entropy;
}): Promise<Pick<AuthorityFiles, "certificates" | "key">> {
  const { nowMs, entropy } = options;
  const x509 = await loadX509();
  const keys = await generateKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    keys,
    serialNumber: newSerial(entropy),
    name: [{ CN: [ROOT_NAME] }],
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + LIFETIME_MS_MAX),
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    extensions: [
      new x509.BasicConstraintsExtension(true, ROOT_PATH_LENGTH, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificates: certificate.toString("pem").concat("\n"), key: exportPrivateKey(keys) };
}

/**
 * Reads an authority, and checks all that a node would find fault with later: that the key is the certificate's, that the
 * chain is whole, in order and valid, and that each may sign the one before it. Throws `invalid_argument`.
 */
export async function openAuthority(files: AuthorityFiles, nowMs: number): Promise<CertificateAuthority> {
  const chain = readCertificates(files.certificates, "the CA certificate");
  const [certificate] = chain;
  const key = importSigningKey(files.key, "the CA key");
  const keyId = keyIdOf(key.publicKey);
  if (keyId !== keyIdOf(certificate.publicKey)) throw invalid("the CA key does not belong to the first CA certificate");
  const root = await checkAuthorities(chain, nowMs);
  const cross =
    files.crossSigned === undefined ? [] : readCertificates(files.crossSigned, "the cross-signed certificate");
  checkCross(cross, root);
  const { X509Certificate: Reader, SubjectKeyIdentifierExtension } = await loadX509();
  const signer = new Reader(certificate.raw);
  const issuer = {
    name: signer.subjectName,
    subjectKeyId: signer.getExtension(SubjectKeyIdentifierExtension)?.keyId,
  };
  return { chain, root, intermediates: [...chain.slice(0, -1), ...cross], keyId, key, issuer };
}

/** Signs a certificate for `subject`, whoever the request says it is of. Throws `invalid_argument`, `failed_precondition`. */
export async function issueCertificate(
  authority: CertificateAuthority,
  subject: Subject,
  request: CertificateRequest,
  options: IssueOptions,
): Promise<IssuedCertificate> {
  const { nowMs, entropy, lifetimeMs = LIFETIME_MS_DEFAULT, hosts } = options;
  const problems = [...subjectProblems(subject, hosts)];
  if (!(lifetimeMs >= LIFETIME_MS_MIN)) problems.push({ field: "lifetime", problem: "must be one hour or more" });
  if (problems.length > 0) throw invalidFields(problems);
  const x509 = await loadX509();
  const { clientAuth, serverAuth } = x509.ExtendedKeyUsage;
  const isServer = subject.kind === "node" && subject.role === "swarm-manager";
  const names = alternativeNames(subject, hosts);
  const publicKey = new x509.PublicKey(request.publicKey);
  const certificate = await sign(authority, {
    serialNumber: newSerial(entropy),
    subject: [
      { O: [subject.clusterId] },
      { OU: [subject.role] },
      { CN: [subject.kind === "node" ? subject.nodeId : subject.name] },
    ],
    publicKey,
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: endOf(authority, nowMs, nowMs + lifetimeMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(isServer ? [serverAuth, clientAuth] : [clientAuth]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension([...names])]),
    ],
  });
  return { certificate, chain: toCertificatesPem([certificate, ...authority.intermediates]) };
}

export interface CrossSignOptions {
  readonly nowMs: number;
  readonly entropy: Entropy;
  /** Authorities between that root and the certificates that are to be believed. Default 0: it signs them itself. */
  readonly below?: number;
}

/**
 * The root of another authority, signed by `authority`, then what leads to this one's root: whoever trusts only that believes
 * the other, too. In PEM, and no longer valid than either. Throws `failed_precondition` when this one's chain has no room for it (path lengths).
 */
export async function crossSign(
  authority: CertificateAuthority,
  root: X509Certificate,
  { nowMs, entropy, below = 0 }: CrossSignOptions,
): Promise<string> {
  const room = await roomBelow(authority.chain);
  if (room < 1 + below) {
    const what = below === 0 ? "no other authority" : `no other authority that has ${below} below it`;
    const name = nameOf(authority.chain[0].subject);
    throw new SwarmError("failed_precondition", `the authority ${name} may sign ${what} (path length)`);
  }
  const x509 = await loadX509();
  const reader = new x509.X509Certificate(root.raw);
  const subjectKeyId = reader.getExtension(x509.SubjectKeyIdentifierExtension);
  const pathLength = Math.min(room - 1, (await pathLengthOf(root)) ?? ROOT_PATH_LENGTH);
  const endMs = Math.min(root.validToDate.getTime(), nowMs + LIFETIME_MS_MAX);
  const certificate = await sign(authority, {
    serialNumber: newSerial(entropy),
    subject: reader.subjectName,
    publicKey: reader.publicKey,
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: endOf(authority, nowMs, endMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, pathLength, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      subjectKeyId ?? (await x509.SubjectKeyIdentifierExtension.create(reader.publicKey)),
    ],
  });
  return toCertificatesPem([certificate, ...authority.chain.slice(0, -1)]);
}

type X509 = Awaited<ReturnType<typeof loadX509>>;
type CreateParameters = Parameters<X509["X509CertificateGenerator"]["create"]>[0];

interface Unsigned extends Required<Pick<CreateParameters, "serialNumber" | "subject" | "publicKey" | "extensions">> {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

async function sign({ key, issuer }: CertificateAuthority, unsigned: Unsigned): Promise<X509Certificate> {
  const x509 = await loadX509();
  const { notBeforeMs, notAfterMs, extensions, ...rest } = unsigned;
  const { subjectKeyId } = issuer;
  const certificate = await x509.X509CertificateGenerator.create({
    ...rest,
    issuer: issuer.name,
    notBefore: new Date(notBeforeMs),
    notAfter: new Date(notAfterMs),
    signingKey: key.privateKey,
    signingAlgorithm: key.algorithm,
    extensions:
      subjectKeyId === undefined ? extensions : [...extensions, new x509.AuthorityKeyIdentifierExtension(subjectKeyId)],
  });
  return new X509Certificate(Buffer.from(certificate.rawData));
}

/** No certificate outlives those that vouch for it. */
function endOf({ chain }: CertificateAuthority, nowMs: number, wantedMs: number): number {
  let endMs = wantedMs;
  for (const each of chain) {
    const problem = validityProblem(each, nowMs);
    if (problem !== undefined) {
      throw new SwarmError("failed_precondition", `the authority ${nameOf(each.subject)} ${problem}`);
    }
    endMs = Math.min(endMs, each.validToDate.getTime());
  }
  return endMs;
}

/** Checks the chain from the signer to its root, which it gives back. */
async function checkAuthorities(chain: readonly X509Certificate[], nowMs: number): Promise<X509Certificate> {
  for (const [index, each] of chain.entries()) {
    const name = nameOf(each.subject);
    if (!each.ca) throw invalid(`the certificate ${name} is no authority's (CA:TRUE)`);
    const problem = validityProblem(each, nowMs);
    if (problem !== undefined) throw invalid(`the authority ${name} ${problem}`);
    const issuer = chain[index + 1] ?? each;
    if (isIssuedBy(each, issuer)) continue;
    throw invalid(
      issuer === each
        ? `the chain of CA certificates ends with ${name}, which is not self-signed: add its root`
        : `the CA certificate ${name} was not signed by the one after it, ${nameOf(issuer.subject)}`,
    );
  }
  const root = chain.at(-1);
  if (root === undefined || chain.slice(0, -1).some((each) => sameCertificate(each, root))) {
    throw invalid("the CA certificates are the same ones again");
  }
  if ((await roomBelow(chain)) < 0) throw invalid("the chain of CA certificates is longer than its root allows");
  return root;
}

/** Checks that what vouches for the root does, and is in order; the root that it ends at is not ours to know. */
function checkCross(cross: readonly X509Certificate[], root: X509Certificate): void {
  const [first, ...rest] = cross;
  if (first === undefined) return;
  if (keyIdOf(first.publicKey) !== keyIdOf(root.publicKey) || first.subject !== root.subject) {
    throw invalid("the cross-signed certificate is not of this CA's root");
  }
  for (const [index, each] of rest.entries()) {
    const below = cross[index] ?? first;
    if (!isIssuedBy(below, each)) {
      throw invalid(
        `the certificate ${nameOf(below.subject)} was not signed by the one after it, ${nameOf(each.subject)}`,
      );
    }
  }
}

/** 16 bytes that are positive as a number and never fewer (RFC 5280, 4.1.2.2): 126 random bits. */
function newSerial(entropy: Entropy): string {
  const serial = Buffer.from(entropy(16));
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial.toString("hex");
}

function invalid(message: string): SwarmError {
  return new SwarmError("invalid_argument", message);
}
