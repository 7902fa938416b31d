/** How a rotation of the authority begins: with a new root, or an authority that people bring; also while one is not over. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import type { Entropy } from "../../common/base/random.ts";
import {
  type AuthorityFiles,
  type CertificateAuthority,
  createRoot,
  crossSign,
  openAuthority,
} from "../../common/pki/certificate-authority.ts";
import { keyIdOf, readCertificates, sameCertificate, toCertificatesPem } from "../../common/pki/certificates.ts";
import { type ClusterCa, type RootRotation, RootRotationSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { formerWith } from "./cluster-ca.ts";

/** Keys of authorities, in and out of the store. */
export interface CaKeys {
  seal(key: string): Uint8Array;
  open(sealed: Uint8Array): string;
}

/** What a rotation begins with. */
export interface NewRotation {
  readonly id: string;
  /** Absent: a new root. */
  readonly successor?: Pick<AuthorityFiles, "certificates" | "key"> | undefined;
  readonly keys: CaKeys;
  readonly nowMs: number;
  readonly entropy: Entropy;
}

/** More would not fit a bundle: who rotates faster than nodes follow is told to wait. */
const FORMER_MAX = 10;

/**
 * The authority as it is to be stored: the successor signs from now on, or, where the original cannot vouch for it, as soon as
 * every node trusts it. Throws `invalid_argument` for a bad successor, `failed_precondition` for one that is there already.
 */
export async function beginRotation(ca: ClusterCa, begin: NewRotation): Promise<ClusterCa> {
  const { id, keys, nowMs, entropy } = begin;
  const files = begin.successor ?? (await createRoot({ nowMs, entropy }));
  const successor = await openAuthority(files, nowMs);
  const [present] = readCertificates(ca.root, "the cluster's CA");
  if (sameCertificate(present, successor.chain[0])) {
    throw new SwarmError("failed_precondition", "the cluster's CA is that one already");
  }
  const certificates = toCertificatesPem(successor.chain);
  const { original, sealedOriginalKey } = ca.rotation ?? { original: ca.root, sealedOriginalKey: ca.sealedKey };
  const rotation = create(RootRotationSchema, { id, original, sealedOriginalKey });
  const rotations = ca.rotations + 1n;
  const crossCertificate = await vouch({ original, key: keys.open(sealedOriginalKey) }, successor, begin);
  if (crossCertificate === undefined) {
    return { ...ca, rotations, rotation: { ...rotation, next: certificates, sealedNextKey: keys.seal(files.key) } };
  }
  const formerRoots = formerWith(ca, certificates);
  checkFormer(formerRoots);
  const root = { root: certificates, sealedKey: keys.seal(files.key), crossCertificate, formerRoots };
  return { ...ca, ...root, rotations, rotation: rotation satisfies RootRotation };
}

/**
 * What makes certificates of the successor good for who trusts the original's root only, PEM: nothing is needed when they share
 * it. Undefined: it cannot, since it is an intermediate, or the successor has too many of them, or its time is over.
 */
async function vouch(
  { original, key }: { readonly original: string; readonly key: string },
  successor: CertificateAuthority,
  { nowMs, entropy }: NewRotation,
): Promise<string | undefined> {
  const root = readCertificates(original, "the cluster's CA").at(-1);
  if (root && keyIdOf(root.publicKey) === keyIdOf(successor.root.publicKey)) return "";
  try {
    const authority = await openAuthority({ certificates: original, key }, nowMs);
    return await crossSign(authority, successor.root, { nowMs, entropy, below: successor.chain.length - 1 });
  } catch (reason) {
    if (reason instanceof SwarmError) return undefined;
    throw reason;
  }
}

function checkFormer(pem: string): void {
  if (readCertificates(pem, "the former authorities").length <= FORMER_MAX) return;
  throw new SwarmError(
    "failed_precondition",
    "too many rotations have begun and are not over: wait until nodes have followed, or remove those that are gone",
  );
}
