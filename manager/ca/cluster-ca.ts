/**
 * The stored authority: what it says, and how it changes while the root rotates. Pure; texts are parsed once for each object.
 *
 *   begun    root: new, vouched for by the original     former: the old one     rotation: original
 *    or      root: old      rotation: original, next ── every node trusts it ──▶ root: next     former: the old one
 *   over     root: new
 */
import type { X509Certificate } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "../../common/model/duration.ts";
import { isIssuedBy, type KeyId, keyIdOf, readCertificates, toCertificatesPem } from "../../common/pki/certificates.ts";
import type { RotationGoal } from "../../common/pki/root-rotation.ts";
import { formatTrustBundle, mergeRoots } from "../../common/pki/trust-bundle.ts";
import { type ClusterCa, type NodeCertificate, NodeCertificateSchema } from "../../proto/gen/swarm/v1/objects_pb.js";

/** The certificates of the cluster's authority. */
export interface CaCertificates {
  /** The root that leads to what is signed now. */
  readonly root: X509Certificate;
  /** Every root that is trusted now, that one first. */
  readonly roots: readonly X509Certificate[];
  /** The same, PEM. */
  readonly trust: string;
  readonly trustedKeyIds: readonly KeyId[];
  /** Those that may have signed what is believed now. */
  readonly issuers: readonly X509Certificate[];
  /** Tells the authority that signs now. */
  readonly issuerKeyId: KeyId;
  /** Whether one that nobody vouches for signs as soon as everybody trusts it. */
  readonly awaitsTrust: boolean;
}

const known = new WeakMap<ClusterCa, CaCertificates>();

/** Throws `invalid_argument` for what is no authority: somebody else wrote it. */
export function caCertificates(ca: ClusterCa): CaCertificates {
  const before = known.get(ca);
  if (before) return before;
  const chain = readCertificates(ca.root, "the cluster's CA");
  const next = certificatesIn(ca.rotation?.next);
  const issuers = mergeRoots([...chain, ...next, ...certificatesIn(ca.formerRoots)]);
  const root = rootOf(chain);
  const roots = mergeRoots([root, ...issuers.filter((each) => isIssuedBy(each, each))]);
  const read: CaCertificates = {
    ...{ root, roots, issuers },
    trust: formatTrustBundle(roots),
    trustedKeyIds: [...new Set(roots.map((each) => keyIdOf(each.publicKey)))],
    issuerKeyId: keyIdOf(chain[0].publicKey),
    awaitsTrust: next.length > 0,
  };
  known.set(ca, read);
  return read;
}

/** What every node is to have in the end. */
export function rotationGoal(ca: ClusterCa): RotationGoal {
  const next = certificatesIn(ca.rotation?.next);
  const chain = next.length > 0 ? next : readCertificates(ca.root, "the cluster's CA");
  const [signer, root] = [chain[0], chain.at(-1)];
  const keyOf = (certificate: X509Certificate | undefined) =>
    certificate ? keyIdOf(certificate.publicKey) : ("" as KeyId);
  return { issuerKeyId: keyOf(signer), rootKeyId: keyOf(root), isCrossSigned: next.length === 0 };
}

/** The authority to come signs from now on. */
export function withNextSigning(ca: ClusterCa): ClusterCa {
  const { rotation } = ca;
  if (rotation === undefined || rotation.next === "") return ca;
  return {
    ...ca,
    root: rotation.next,
    sealedKey: rotation.sealedNextKey,
    crossCertificate: "",
    formerRoots: formerWith(ca, rotation.next),
    rotation: { ...rotation, next: "", sealedNextKey: new Uint8Array() },
  };
}

/** Every node has followed: only the newest authority is believed. What vouches for it stays, for who comes too late to be told so. */
export function withRotationOver({ rotation, ...ca }: ClusterCa): ClusterCa {
  return { ...ca, formerRoots: "" };
}

/** Those of before when `successor` (PEM) takes the place of the one that signs now. */
export function formerWith(ca: ClusterCa, successor: string): string {
  const all = mergeRoots([...certificatesIn(successor), ...certificatesIn(ca.formerRoots), ...certificatesIn(ca.root)]);
  return toCertificatesPem(all.slice(certificatesIn(successor).length));
}

/** What is known of a certificate that was signed just now, for somebody who trusts `trusted`. */
export function certificateFacts(
  leaf: X509Certificate,
  { issuers, trustedKeyIds }: Pick<CaCertificates, "issuers" | "trustedKeyIds">,
): NodeCertificate {
  const issuer = issuers.find((each) => isIssuedBy(leaf, each));
  return create(NodeCertificateSchema, {
    issuerKey: issuer ? keyIdOf(issuer.publicKey) : "",
    notAfter: toTimestamp(leaf.validToDate.getTime()),
    trustedKeys: trustedKeyIds.toSorted(),
  });
}

function certificatesIn(pem: string | undefined): readonly X509Certificate[] {
  return pem ? readCertificates(pem, "the cluster's CA") : [];
}

function rootOf(chain: readonly [X509Certificate, ...X509Certificate[]]): X509Certificate {
  return chain.at(-1) ?? chain[0];
}
