/**
 * Private keys, made and kept by WebCrypto. A node's are ECDSA on P-256, as SwarmKit's; an authority that people bring
 * may have one of the others that WebCrypto signs with.
 */
import { createPrivateKey, createPublicKey, KeyObject, webcrypto } from "node:crypto";
import { SwarmError } from "../base/error.ts";

export type KeyPair = webcrypto.CryptoKeyPair;

/** How WebCrypto signs with a key: its algorithm, and the hash that goes with its strength. */
export interface SigningAlgorithm {
  readonly name: "ECDSA" | "RSASSA-PKCS1-v1_5";
  readonly hash: "SHA-256" | "SHA-384" | "SHA-512";
  readonly namedCurve?: "P-256" | "P-384" | "P-521";
}

/** A key that signs certificates. */
export interface SigningKey {
  readonly privateKey: webcrypto.CryptoKey;
  /** For comparisons. */
  readonly publicKey: KeyObject;
  readonly algorithm: SigningAlgorithm;
}

const P256 = { name: "ECDSA", hash: "SHA-256", namedCurve: "P-256" } as const satisfies SigningAlgorithm;
const CURVES: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: P256,
  secp384r1: { name: "ECDSA", hash: "SHA-384", namedCurve: "P-384" },
  secp521r1: { name: "ECDSA", hash: "SHA-512", namedCurve: "P-521" },
};
/** Below, RSA can be broken within a root's life (NIST SP 800-57); above, each signature costs everyone too much. */
const RSA_BITS = { min: 2048, max: 8192 };
const PEM_LENGTH_MAX = 32 * 1024;

/** A new key for a node, or for a root. */
export function generateKeyPair(): Promise<KeyPair> {
  return webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]) as Promise<KeyPair>;
}

/** PKCS#8 (RFC 5958) in PEM: in the clear, for `credential-files.ts` or a sealed place. */
export function exportPrivateKey({ privateKey }: KeyPair): string {
  return KeyObject.from(privateKey).export({ type: "pkcs8", format: "pem" }).toString();
}

/** A node's key; throws `invalid_argument` for another kind of key, and for what is none. */
export function importKeyPair(pem: string, what = "the key"): KeyPair {
  const key = readPrivateKey(pem, what);
  const problem = nodeKeyProblem(key);
  if (problem !== undefined) throw new SwarmError("invalid_argument", `${what} ${problem}`);
  return {
    privateKey: toSigner(key, P256, { what, isExtractable: true }),
    publicKey: createPublicKey(key).toCryptoKey(P256, true, ["verify"]),
  };
}

/** An authority's key; throws `invalid_argument` for one that WebCrypto cannot sign with, and for what is none. */
export function importSigningKey(pem: string, what: string): SigningKey {
  const key = readPrivateKey(pem, what);
  const algorithm = algorithmOf(key);
  if (algorithm === undefined) {
    const known = `RSA of ${RSA_BITS.min} to ${RSA_BITS.max} bits or ECDSA on P-256, P-384 or P-521`;
    throw new SwarmError("invalid_argument", `${what} is ${kindOf(key)}; an authority's is ${known}`);
  }
  const privateKey = toSigner(key, algorithm, { what, isExtractable: false });
  return { privateKey, publicKey: createPublicKey(key), algorithm };
}

/** Why a key, of either half, cannot be a node's, in words after its name. */
export function nodeKeyProblem(key: KeyObject): string | undefined {
  return algorithmOf(key) === P256 ? undefined : `is ${kindOf(key)}; a node's is ECDSA on P-256`;
}

/** A private key in PEM: PKCS#8, or OpenSSL's older forms for EC and RSA. Never says what it held. */
export function readPrivateKey(pem: string, what: string): KeyObject {
  const invalid = (problem: string) => new SwarmError("invalid_argument", `${what} ${problem}`);
  if (pem.length > PEM_LENGTH_MAX) throw invalid(`is larger than ${PEM_LENGTH_MAX} bytes`);
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/.test(pem)) {
    throw invalid("is encrypted, and nobody is there to ask for its passphrase");
  }
  if (!/-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/.test(pem)) {
    throw invalid(pem.includes("BEGIN CERTIFICATE") ? "is a certificate, not a key" : "is no private key in PEM form");
  }
  try {
    return createPrivateKey(pem);
  } catch (reason) {
    throw invalid(`is damaged (${SwarmError.from(reason).message})`);
  }
}

/** WebCrypto looks closer than OpenSSL: that the public half is the private one's, for instance. */
function toSigner(
  key: KeyObject,
  algorithm: SigningAlgorithm,
  { what, isExtractable }: { readonly what: string; readonly isExtractable: boolean },
): webcrypto.CryptoKey {
  try {
    return key.toCryptoKey(algorithm, isExtractable, ["sign"]);
  } catch (reason) {
    throw new SwarmError("invalid_argument", `${what} is damaged (${SwarmError.from(reason).message})`);
  }
}

function algorithmOf(key: KeyObject): SigningAlgorithm | undefined {
  const { namedCurve = "", modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === "ec") return Object.hasOwn(CURVES, namedCurve) ? CURVES[namedCurve] : undefined;
  if (key.asymmetricKeyType !== "rsa") return undefined;
  const isStrong = modulusLength >= RSA_BITS.min && modulusLength <= RSA_BITS.max;
  return isStrong ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } : undefined;
}

function kindOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string {
  const { namedCurve, modulusLength } = asymmetricKeyDetails ?? {};
  if (namedCurve !== undefined) return `ECDSA on ${CURVES[namedCurve]?.namedCurve ?? namedCurve}`;
  return modulusLength === undefined ? `of the type ${asymmetricKeyType ?? "unknown"}` : `RSA of ${modulusLength} bits`;
}
