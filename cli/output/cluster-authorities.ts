/** The cluster's certificate authorities, to tell what nodes' certificates are worth. Pure. */
import type { X509Certificate } from "node:crypto";
import { isIssuedBy, keyIdOf, readCertificates } from "../../common/pki/certificates.ts";
import type { GetCaResponse } from "../../proto/gen/swarm/v1/control_pb.js";

export interface ClusterAuthorities {
  /** Tells the one that signs now. */
  readonly issuerKey: string;
  /** Tell the roots that are trusted now. */
  readonly trustedKeys: readonly string[];
  readonly byKey: ReadonlyMap<string, X509Certificate>;
}

export function readAuthorities({ authorities }: GetCaResponse): ClusterAuthorities {
  const certificates = readCertificates(authorities, "the cluster's CA");
  const keyOf = (certificate: X509Certificate): string => keyIdOf(certificate.publicKey);
  return {
    issuerKey: keyOf(certificates[0]),
    trustedKeys: [...new Set(certificates.filter((each) => isIssuedBy(each, each)).map(keyOf))],
    byKey: new Map(certificates.map((each) => [keyOf(each), each])),
  };
}
