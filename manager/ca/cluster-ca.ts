/** What the stored authority says, read: its texts are parsed once for each object, which never changes. Pure. */
import type { X509Certificate } from "node:crypto";
import { type KeyId, keyIdOf, readCertificates, toCertificatesPem } from "../../common/pki/certificates.ts";
import { formatTrustBundle, mergeRoots, readTrustBundle } from "../../common/pki/trust-bundle.ts";
import type { ClusterCa } from "../../proto/gen/swarm/v1/objects_pb.js";

/** The certificates of the cluster's authority. */
export interface CaCertificates {
  /** PEM: the root that leads to what is signed now. */
  readonly root: string;
  /** PEM: every root that is trusted now, that one first. */
  readonly roots: string;
  /** Those that may have signed what is believed now. */
  readonly issuers: readonly X509Certificate[];
  /** Tells the authority that signs now. */
  readonly issuerKeyId: KeyId;
}

const known = new WeakMap<ClusterCa, CaCertificates>();

/** Throws `invalid_argument` for what is no authority: somebody else wrote it. */
export function caCertificates(ca: ClusterCa): CaCertificates {
  const before = known.get(ca);
  if (before) return before;
  const chain = readCertificates(ca.root, "the cluster's CA");
  const root = chain.at(-1) ?? chain[0];
  const former = ca.formerRoots === "" ? [] : readTrustBundle(ca.formerRoots);
  const read: CaCertificates = {
    root: toCertificatesPem([root]),
    roots: formatTrustBundle([root, ...former]),
    issuers: mergeRoots([...chain, ...former]),
    issuerKeyId: keyIdOf(chain[0].publicKey),
  };
  known.set(ca, read);
  return read;
}
