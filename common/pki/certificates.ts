/** Certificates as Node reads them: out of PEM texts, what to call them in messages, and who signed them. Pure. */
import { createHash, type KeyObject, X509Certificate } from "node:crypto";
import { SwarmError } from "../base/error.ts";
import type { Branded } from "../base/id.ts";
import type { Validity } from "./validity.ts";

/** Tells keys apart: SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hex. */
export type KeyId = Branded<"key">;

const CERTIFICATE_BLOCK =
  /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^-]*-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;
/** Larger chains and bundles are mistakes: whoever reads one would check every signature in it. */
const CERTIFICATES_MAX = 16;
const PEM_LENGTH_MAX = 256 * 1024;

/** Every certificate of a PEM text; throws what OpenSSL says of a broken one. */
export function certificatesOf(pem: string): readonly X509Certificate[] {
  return (pem.match(CERTIFICATE_BLOCK) ?? []).map((block) => new X509Certificate(block));
}

/** The same for a text that must hold at least one: `what` names it in the `invalid_argument` that says why it does not. */
export function readCertificates(pem: string, what: string): readonly [X509Certificate, ...X509Certificate[]] {
  const invalid = (problem: string) => new SwarmError("invalid_argument", `${what} ${problem}`);
  if (pem.length > PEM_LENGTH_MAX) throw invalid(`is larger than ${PEM_LENGTH_MAX} bytes`);
  const count = pem.match(CERTIFICATE_BLOCK)?.length ?? 0;
  if (count > CERTIFICATES_MAX) throw invalid(`holds ${count} certificates; ${CERTIFICATES_MAX} are the most`);
  let certificates: readonly X509Certificate[];
  try {
    certificates = certificatesOf(pem);
    // Node looks at the key only when it is asked for it.
    for (const { publicKey } of certificates) keyIdOf(publicKey);
  } catch (reason) {
    throw invalid(`holds a damaged certificate (${SwarmError.from(reason).message})`);
  }
  const [first, ...rest] = certificates;
  if (first !== undefined) return [first, ...rest];
  throw invalid(
    pem.includes("PRIVATE KEY-----") ? "holds a private key, not a certificate" : "holds no certificate in PEM form",
  );
}

/** Certificates as one PEM text. */
export function toCertificatesPem(certificates: readonly X509Certificate[]): string {
  return certificates.map((each) => each.toString()).join("");
}

export function keyIdOf(publicKey: KeyObject): KeyId {
  const der = publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(der).digest("hex") as KeyId;
}

/** Whether both are the same certificate, byte for byte. */
export function sameCertificate(left: X509Certificate, right: X509Certificate): boolean {
  return left.raw.equals(right.raw);
}

/** Whether `issuer` is an authority that has signed `certificate`: names, key ids, usages, and the signature itself. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  } catch {
    // Of a kind that OpenSSL does not know, or damaged.
    return false;
  }
}

/** "CN=web.example, issued by CN=authority": enough to tell certificates apart. */
export function describeCertificate(certificate: X509Certificate): string {
  return `${nameOf(certificate.subject)}, issued by ${nameOf(certificate.issuer)}`;
}

/** The name of whom a certificate is of, as it is encoded (RFC 5280, 4.1: a Name in DER). */
export function subjectDer({ raw }: Pick<X509Certificate, "raw">): Uint8Array {
  // Certificate, its first part, and in there: version, serial number, algorithm, issuer, validity, subject.
  const [tbs] = derElements(contentOf(raw));
  const subject = tbs && derElements(contentOf(tbs))[5];
  if (subject === undefined) throw new SwarmError("invalid_argument", "a certificate without a subject");
  return subject;
}

/** The elements of a DER sequence's content, each with its head. */
function derElements(content: Uint8Array): readonly Uint8Array[] {
  const elements: Uint8Array[] = [];
  for (let at = 0; at < content.length; ) {
    const element = content.subarray(at);
    const { headBytes, contentBytes } = derHead(element);
    elements.push(element.subarray(0, headBytes + contentBytes));
    at += headBytes + contentBytes;
  }
  return elements;
}

function contentOf(element: Uint8Array): Uint8Array {
  const { headBytes, contentBytes } = derHead(element);
  return element.subarray(headBytes, headBytes + contentBytes);
}

/** A tag of one byte, then the length: in one byte, or in as many as that one says. */
function derHead(element: Uint8Array): { readonly headBytes: number; readonly contentBytes: number } {
  const first = element[1] ?? 0;
  if (first < 0x80) return { headBytes: 2, contentBytes: first };
  const count = first & 0x7f;
  let contentBytes = 0;
  for (const byte of element.subarray(2, 2 + count)) contentBytes = contentBytes * 256 + byte;
  return { headBytes: 2 + count, contentBytes };
}

/** A distinguished name on one line, fit for a message whoever wrote it: short, and nothing in it that drives a terminal. */
export function nameOf(name: string | undefined): string {
  const parts = (name ?? "").split("\n").toReversed();
  const line = parts.join(", ").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
  return line === "" ? "no name" : line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

/** Why a certificate is not valid at `nowMs`, or undefined. */
export function validityProblem(certificate: X509Certificate, nowMs: number): string | undefined {
  const { validFromDate, validToDate } = certificate;
  // A date that cannot be read is in neither.
  if (!(validToDate.getTime() >= nowMs)) return `expired on ${toSecond(validToDate)}`;
  if (validFromDate.getTime() <= nowMs) return undefined;
  return `is not valid before ${toSecond(validFromDate)}; this machine's clock says ${toSecond(new Date(nowMs))}`;
}

function toSecond(date: Date): string {
  return Number.isNaN(date.getTime()) ? "an unreadable date" : `${date.toISOString().slice(0, 19)}Z`;
}

/** From when to when a certificate counts. */
export function validityOf(certificate: X509Certificate): Validity {
  return { notBeforeMs: certificate.validFromDate.getTime(), notAfterMs: certificate.validToDate.getTime() };
}
