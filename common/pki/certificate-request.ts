/**
 * What a node asks for a certificate with (PKCS #10, RFC 2986): its public key, signed by the private one, which never
 * leaves the node. It says nothing else: who the node is, the manager decides.
 */
import { createPublicKey } from "node:crypto";
import { SwarmError } from "../base/error.ts";
import { type KeyPair, nodeKeyProblem } from "./key-pair.ts";
import { pemBlocks, toPem } from "./pem.ts";
import { loadX509 } from "./x509.ts";

/** A request that holds: whoever sent it has the key. */
export interface CertificateRequest {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
}

const LABEL = "CERTIFICATE REQUEST";
/** One of ours has 240 bytes in 390 characters. The reader is open to everyone with a token: it must not be kept busy. */
const PEM_LENGTH_MAX = 4096;

/** A request for `keys`, in PEM. */
export async function createCertificateRequest(keys: KeyPair): Promise<string> {
  const { Pkcs10CertificateRequestGenerator } = await loadX509();
  const request = await Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
  });
  return toPem(LABEL, new Uint8Array(request.rawData));
}

/** Checks a request: its size, form, kind of key and signature. Throws `invalid_argument` with the reason. */
export async function readCertificateRequest(pem: string): Promise<CertificateRequest> {
  if (pem.length > PEM_LENGTH_MAX) throw invalid(`it is larger than ${PEM_LENGTH_MAX} bytes`);
  const [block, ...more] = pemBlocks(pem).filter(({ label }) => label === LABEL || label === `NEW ${LABEL}`);
  if (block === undefined || more.length > 0) throw invalid("it is not one block of PEM");
  const { Pkcs10CertificateRequest } = await loadX509();
  let publicKey: Buffer;
  let isSigned: boolean;
  try {
    const request = new Pkcs10CertificateRequest(block.der);
    const key = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: "der", type: "spki" });
    const problem = nodeKeyProblem(key);
    if (problem !== undefined) throw invalid(`its key ${problem}`);
    // As OpenSSL writes it: of what was sent, nothing goes into a certificate as it came.
    publicKey = key.export({ type: "spki", format: "der" });
    isSigned = /^SHA-(256|384|512)$/.test(request.signatureAlgorithm.hash.name) && (await request.verify());
  } catch (reason) {
    if (reason instanceof SwarmError) throw reason;
    throw invalid(`it is damaged (${SwarmError.from(reason).message})`);
  }
  if (!isSigned) throw invalid("its signature is not by its own key");
  return { publicKey };
}

function invalid(reason: string): SwarmError {
  return new SwarmError("invalid_argument", `invalid certificate request: ${reason}`);
}
