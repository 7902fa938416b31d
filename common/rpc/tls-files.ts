/**
 * Certificate and key files, checked before they are used: what OpenSSL would say at some handshake ("sslv3 alert bad
 * certificate") is said here with the file, the reason and the date.
 */
import { createPrivateKey, type KeyObject, type X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { errnoOf, SwarmError } from "../base/error.ts";
import { certificatesOf, nameOf, validityProblem } from "../pki/certificates.ts";

/** Paths. A caller may leave some out; a server may not. */
export interface TlsFiles {
  readonly ca?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
}

/** What a server needs. */
export type ServerTlsFiles = { readonly [Name in keyof TlsFiles]-?: string };

/** What the files hold. */
export interface LoadedTls<Files extends TlsFiles> {
  readonly pem: { readonly [Name in keyof Files]: Files[Name] };
  /** What is dangerous, one sentence each, with the file's name. */
  readonly warnings: readonly string[];
}

/** Which end the certificate is for: its extended key usage, if it has one, must say so (RFC 5280, 4.2.1.12). */
export type TlsEnd = "server" | "client";

const KEY_USAGES: Readonly<Record<TlsEnd, string>> = { server: "1.3.6.1.5.5.7.3.1", client: "1.3.6.1.5.5.7.3.2" };

/** No sane chain is larger: the wrong file is not read into memory. */
const FILE_BYTES_MAX = 1024 * 1024;

/**
 * Reads and checks the files: PEM, readable, valid at `nowMs`, the key the certificate's own.
 * Throws `failed_precondition` that names every bad file.
 */
export function loadTlsFiles<Files extends TlsFiles>(
  files: Files,
  { end, nowMs }: { readonly end: TlsEnd; readonly nowMs: number },
): LoadedTls<Files> {
  const problems: string[] = [];
  const warnings: string[] = [];
  const reader = { problems, warnings };
  const ca = files.ca === undefined ? undefined : read("CA file", files.ca, reader);
  const certificate = files.certificate === undefined ? undefined : read("certificate", files.certificate, reader);
  const key = files.key === undefined ? undefined : read("key", files.key, reader);
  if (files.ca !== undefined && ca !== undefined) checkAuthorities(files.ca, ca, nowMs, problems);
  const leaf =
    files.certificate === undefined || certificate === undefined
      ? undefined
      : checkedCertificate(files.certificate, certificate, { end, nowMs, ...reader });
  const secret = files.key === undefined || key === undefined ? undefined : checkedKey(files.key, key, problems);
  if (leaf !== undefined && secret !== undefined && !leaf.checkPrivateKey(secret)) {
    problems.push(`key ${files.key} does not belong to the certificate ${files.certificate}`);
  }
  if (problems.length > 0) throw new SwarmError("failed_precondition", problems.join("; "));
  return { pem: { ...files, ca, certificate, key } as LoadedTls<Files>["pem"], warnings };
}

interface Findings {
  readonly problems: string[];
  readonly warnings: string[];
}

function read(
  role: "CA file" | "certificate" | "key",
  path: string,
  { problems, warnings }: Findings,
): string | undefined {
  try {
    const { mode, size } = statSync(path);
    if (size > FILE_BYTES_MAX) throw new SwarmError("failed_precondition", `larger than ${FILE_BYTES_MAX} bytes`);
    const text = readFileSync(path, "latin1");
    // A certificate is public; a key is not, and whoever can write the CA file decides whom we trust.
    const exposed = role === "key" ? mode & 0o077 : mode & 0o022;
    if (exposed !== 0) {
      const shown = `mode ${(mode & 0o777).toString(8).padStart(4, "0")}`;
      const what = role === "key" ? "can be read by others" : "can be changed by others";
      warnings.push(`${role} ${path} ${what} (${shown}): chmod ${role === "key" ? "600" : "go-w"} ${path}`);
    }
    return text;
  } catch (reason) {
    problems.push(`${role} ${path}: ${errnoOf(reason) ?? SwarmError.from(reason).message}`);
    return undefined;
  }
}

function parsed(role: string, path: string, pem: string, problems: string[]): readonly X509Certificate[] {
  try {
    const certificates = certificatesOf(pem);
    if (certificates.length === 0) {
      const hint = pem.includes("PRIVATE KEY-----") ? "; it holds a private key" : "";
      problems.push(`${role} ${path}: holds no certificate in PEM form${hint}`);
    }
    return certificates;
  } catch (reason) {
    problems.push(`${role} ${path}: is no valid certificate (${SwarmError.from(reason).message})`);
    return [];
  }
}

/** One authority that still counts is enough: files of several hold old ones too. */
function checkAuthorities(path: string, pem: string, nowMs: number, problems: string[]): void {
  const authorities = parsed("CA file", path, pem, problems);
  const faults = authorities.map((each) => validityProblem(each, nowMs));
  const [first] = faults;
  if (first !== undefined && faults.every((fault) => fault !== undefined)) problems.push(`CA file ${path}: ${first}`);
}

function checkedCertificate(
  path: string,
  pem: string,
  { end, nowMs, problems, warnings }: Findings & { readonly end: TlsEnd; readonly nowMs: number },
): X509Certificate | undefined {
  const [leaf] = parsed("certificate", path, pem, problems);
  if (leaf === undefined) return undefined;
  const fault = validityProblem(leaf, nowMs);
  if (fault !== undefined) problems.push(`certificate ${path} (${nameOf(leaf.subject)}): ${fault}`);
  else if (endsSoon(leaf, nowMs)) {
    warnings.push(`certificate ${path} (${nameOf(leaf.subject)}) ends on ${leaf.validToDate.toISOString()}: renew it`);
  }
  // Node's typings have it as an array; a certificate without the extension has none.
  const usages: readonly string[] | undefined = leaf.keyUsage;
  if (usages !== undefined && !usages.includes(KEY_USAGES[end])) {
    problems.push(
      `certificate ${path} (${nameOf(leaf.subject)}): its extended key usage does not allow it to be a ${end}'s`,
    );
  }
  return leaf;
}

/** In its last tenth: who made it for a day wants to hear of it in the last hours, who made it for a year weeks ahead. */
function endsSoon({ validFromDate, validToDate }: X509Certificate, nowMs: number): boolean {
  const endMs = validToDate.getTime();
  return endMs - nowMs < (endMs - validFromDate.getTime()) / 10;
}

function checkedKey(path: string, pem: string, problems: string[]): KeyObject | undefined {
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/.test(pem)) {
    problems.push(`key ${path}: is encrypted, and nobody is there to ask for its passphrase`);
    return undefined;
  }
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) {
    const hint = pem.includes("BEGIN CERTIFICATE") ? "; it holds a certificate" : "";
    problems.push(`key ${path}: holds no private key in PEM form${hint}`);
    return undefined;
  }
  try {
    return createPrivateKey(pem);
  } catch (reason) {
    problems.push(`key ${path}: is no valid private key (${SwarmError.from(reason).message})`);
    return undefined;
  }
}
