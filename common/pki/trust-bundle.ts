/** The roots that are trusted: one, or two while the cluster rotates. As PEM, it is what TLS gets as its authorities. */
import type { X509Certificate } from "node:crypto";
import { SwarmError } from "../base/error.ts";
import { isIssuedBy, nameOf, readCertificates, sameCertificate, toCertificatesPem } from "./certificates.ts";

/**
 * Reads a bundle; the same root twice counts once. Each must be a root (self-signed): TLS builds chains up to one, so that an
 * intermediate here would be trusted by some ends and not by others. Throws `invalid_argument`.
 */
export function readTrustBundle(pem: string, what = "the CA bundle"): readonly X509Certificate[] {
  const certificates = readCertificates(pem, what);
  for (const each of certificates) {
    if (isIssuedBy(each, each)) continue;
    throw new SwarmError("invalid_argument", `${what} holds ${nameOf(each.subject)}, which is no root certificate`);
  }
  return mergeRoots(certificates);
}

/** All of them, each once, in order. */
export function mergeRoots(certificates: readonly X509Certificate[]): readonly X509Certificate[] {
  return certificates.filter((each, index) => certificates.findIndex((one) => sameCertificate(one, each)) === index);
}

export function formatTrustBundle(roots: readonly X509Certificate[]): string {
  return toCertificatesPem(mergeRoots(roots));
}
