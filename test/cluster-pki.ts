/** A cluster's identities for tests and benchmarks, made by the cluster's own authority. */
import { type ClusterId, type NodeId, newId } from "../common/base/id.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import {
  type AuthorityFiles,
  type CertificateAuthority,
  createRoot,
  type IssuedCertificate,
  type IssueOptions,
  issueCertificate,
  openAuthority,
} from "../common/pki/certificate-authority.ts";
import { createCertificateRequest, readCertificateRequest } from "../common/pki/certificate-request.ts";
import type { Credentials } from "../common/pki/credential-files.ts";
import type { NodeRole, NodeSubject, Subject, UserSubject } from "../common/pki/identity.ts";
import { exportPrivateKey, generateKeyPair } from "../common/pki/key-pair.ts";
import { formatTrustBundle } from "../common/pki/trust-bundle.ts";

/** What somebody got who asked for a certificate. */
export interface Member extends Credentials, IssuedCertificate {}

/** An authority and the id of its cluster. */
export class ClusterPki {
  readonly clusterId: ClusterId = newId(systemRandom);
  readonly nowMs: number;
  readonly files: AuthorityFiles;
  readonly authority: CertificateAuthority;

  private constructor(nowMs: number, files: AuthorityFiles, authority: CertificateAuthority) {
    this.nowMs = nowMs;
    this.files = files;
    this.authority = authority;
  }

  /** A new root, or an authority from files. */
  static async open(nowMs: number, files?: AuthorityFiles): Promise<ClusterPki> {
    const own = files ?? (await createRoot({ nowMs, entropy: systemEntropy }));
    return new ClusterPki(nowMs, own, await openAuthority(own, nowMs));
  }

  /** A node of this cluster that does not exist yet. */
  node(role: NodeRole, nodeId: NodeId = newId(systemRandom)): NodeSubject {
    return { kind: "node", nodeId, role, clusterId: this.clusterId };
  }

  user(role: UserSubject["role"], name: string, stackPrefixes?: readonly string[]): UserSubject {
    const { clusterId } = this;
    return { kind: "user", name, role, clusterId, ...(stackPrefixes === undefined ? {} : { stackPrefixes }) };
  }

  /** Goes the whole way: key, request, certificate. */
  async join(subject: Subject, options: Partial<IssueOptions> = {}): Promise<Member> {
    const keys = await generateKeyPair();
    const request = await readCertificateRequest(await createCertificateRequest(keys));
    const issued = await issueCertificate(this.authority, subject, request, {
      nowMs: this.nowMs,
      entropy: systemEntropy,
      ...options,
    });
    return { ...issued, key: exportPrivateKey(keys), trust: formatTrustBundle([this.authority.root]) };
  }
}
