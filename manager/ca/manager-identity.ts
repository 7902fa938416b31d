/**
 * This manager's own key and certificate. It is its own authority's hand: it signs for itself, and renews in time.
 * What agents, managers and swarmctl connect to is served under it.
 */
import type { X509Certificate } from "node:crypto";
import { abortReason, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { Wakeup, wokenWithin } from "../../common/base/wakeup.ts";
import { createCertificateRequest } from "../../common/pki/certificate-request.ts";
import { type KeyId, keyIdOf, readCertificates, validityOf } from "../../common/pki/certificates.ts";
import { type Credentials, readCredentials, writeCredentials } from "../../common/pki/credential-files.ts";
import { identityOf, MANAGER_SERVER_NAME } from "../../common/pki/identity.ts";
import { exportPrivateKey, generateKeyPair } from "../../common/pki/key-pair.ts";
import { drawRenewal, planRenewal } from "../../common/pki/renewal.ts";
import { readTrustBundle } from "../../common/pki/trust-bundle.ts";
import type { Validity } from "../../common/pki/validity.ts";
import type { PeerIdentity } from "../../common/rpc/service.ts";
import type { ClientTls, TlsPem } from "../../common/rpc/tls.ts";
import type { NodeCertificate } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { ClusterAuthority } from "./cluster-authority.ts";
import { certificateFacts } from "./cluster-ca.ts";

/** What an identity is made of. */
export interface ManagerIdentityOptions {
  /** Its directory below the data directory. */
  readonly directory: string;
  readonly nodeId: NodeId;
  readonly authority: ClusterAuthority;
  /** Tells the cluster of each certificate. */
  readonly announce: (certificate: NodeCertificate) => void;
  /** The roots (PEM) that this manager's etcd trusts. Absent: its etcd is not reached under these certificates. */
  readonly storeTrust?: (() => string) | undefined;
  /** Names and addresses by which swarmctl reaches this manager. */
  readonly hosts: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Certificates of callers that were read lately: one for each that is connected. Beyond it they are read again. */
const READ_MAX = 20_000;

export class ManagerIdentity {
  readonly #options: ManagerIdentityOptions;
  readonly #identities = new Map<string, PeerIdentity>();
  readonly #listeners = new Set<() => void>();
  readonly #changed = new Wakeup();
  #credentials: Credentials;

  private constructor(options: ManagerIdentityOptions, credentials: Credentials) {
    this.#options = options;
    this.#credentials = credentials;
  }

  /** Takes up what lies on the disk if it is of this cluster and still good, else makes a new key and certificate. */
  static async open(options: ManagerIdentityOptions): Promise<ManagerIdentity> {
    const { directory, clock, logger } = options;
    const stored = await readCredentials(directory);
    if (stored.state === "ready" && isGood(stored.credentials, options)) {
      const known = new ManagerIdentity(options, stored.credentials);
      known.announce();
      return known;
    }
    const identity = new ManagerIdentity(options, await issue(options));
    await writeCredentials(directory, identity.#credentials);
    identity.announce();
    logger.info(
      { until: new Date(identity.#validity.notAfterMs).toISOString(), atMs: clock.nowMs() },
      "certificate made",
    );
    return identity;
  }

  /** What to keep. */
  get credentials(): Credentials {
    return this.#credentials;
  }

  /** For servers. */
  get server(): TlsPem {
    const { chain, key, trust } = this.#credentials;
    return { ca: trust, certificate: chain, key };
  }

  /** For calls to other managers. */
  get client(): ClientTls {
    const { chain, key, trust } = this.#credentials;
    return { ca: trust, certificate: chain, key, serverName: MANAGER_SERVER_NAME };
  }

  /** Tells of each new certificate. */
  onRenewed(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Who somebody is by a certificate that TLS has verified.
   * @throws permission_denied: it names nobody. unauthenticated: a user's that has ended since the connection was made; a node's
   * renews itself, while its connections stay.
   */
  identify(certificate: X509Certificate): PeerIdentity {
    const identity = this.#read(certificate);
    if (identity.kind === "user" && identity.notAfterMs < this.#options.clock.nowMs()) {
      const ended = new Date(identity.notAfterMs).toISOString();
      throw new SwarmError("unauthenticated", `the certificate of user ${identity.name} expired on ${ended}`);
    }
    return identity;
  }

  #read(certificate: X509Certificate): PeerIdentity {
    const key = certificate.fingerprint256;
    const known = this.#identities.get(key);
    if (known) return known;
    const read = identityOf(certificate, this.#options.authority.certificates.issuers);
    if (!read.ok) throw new SwarmError("permission_denied", `the caller's certificate: ${read.problem}`);
    if (read.identity.clusterId !== this.#options.authority.clusterId) {
      throw new SwarmError("permission_denied", "the caller's certificate is of another cluster");
    }
    if (this.#identities.size >= READ_MAX) this.#identities.clear();
    this.#identities.set(key, read.identity);
    return read.identity;
  }

  /** Renews the certificate in time, and when the cluster's authority changes, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await using scope = new Scope(signal);
    scope.spawn("follow the authority", (inner) => this.#follow(inner));
    scope.spawn("renew", (inner) => this.#renew(inner));
    await scope.join();
  }

  async #renew(signal: AbortSignal): Promise<never> {
    const { clock, random, logger, directory } = this.#options;
    let renewAtMs = drawRenewal(this.#validity, random);
    for (let failures = 0; ; ) {
      const isRotated = this.#isRotated;
      const plan = planRenewal(
        { validity: this.#validity, renewAtMs, nowMs: clock.nowMs(), failures, isRotated },
        random,
      );
      // Its own authority takes it however late it comes.
      const delayMs = plan.type === "expired" && failures === 0 ? 0 : plan.delayMs;
      const isChanged = await wokenWithin(this.#changed, { clock, delayMs }, signal);
      if (isChanged || plan.type === "wait") continue;
      try {
        this.#credentials = await issue(this.#options);
        await writeCredentials(directory, this.#credentials);
        failures = 0;
        renewAtMs = drawRenewal(this.#validity, random);
        this.announce();
        for (const listener of this.#listeners) listener();
        const until = new Date(this.#validity.notAfterMs).toISOString();
        logger.info({ until, reason: plan.type === "renew" ? plan.reason : plan.type }, "certificate renewed");
      } catch (reason) {
        if (!(reason instanceof SwarmError)) throw reason;
        failures += 1;
        logger.warn({ err: reason }, "certificate not renewed yet");
      }
    }
  }

  /** Wakes when the cluster's authority changes: what was read under the former one is read again. */
  async #follow(signal: AbortSignal): Promise<never> {
    for await (const _ of this.#options.authority.changes(signal)) this.#changed.wake();
    throw abortReason(signal);
  }

  /**
   * Tells the cluster what this manager has, and whom it trusts. Before an authority signs that nobody vouches for, its etcd must
   * trust it as well, or the managers' etcds would refuse one another.
   */
  announce(): void {
    const { authority, announce, storeTrust } = this.#options;
    const { certificates } = authority;
    const own = keyIdsIn(this.#credentials.trust);
    const store = certificates.awaitsTrust && storeTrust ? keyIdsIn(storeTrust()) : own;
    const trustedKeyIds = own.filter((keyId) => store.includes(keyId));
    announce(certificateFacts(leafOf(this.#credentials), { ...certificates, trustedKeyIds }));
  }

  get #validity(): Validity {
    return validityOf(leafOf(this.#credentials));
  }

  /** Whether the cluster trusts other roots now, or signs under another. */
  get #isRotated(): boolean {
    return !isGood(this.#credentials, this.#options);
  }
}

function keyIdsIn(trust: string): readonly KeyId[] {
  return readTrustBundle(trust).map(({ publicKey }) => keyIdOf(publicKey));
}

function leafOf({ chain }: Credentials): X509Certificate {
  return readCertificates(chain, "the manager's certificate")[0];
}

/** Whether credentials are this manager's, of the root that signs now, and valid. */
function isGood(credentials: Credentials, { authority, nodeId, clock }: ManagerIdentityOptions): boolean {
  const { issuers, issuerKeyId, trust } = authority.certificates;
  if (credentials.trust !== trust) return false;
  const read = identityOf(leafOf(credentials), issuers);
  if (!read.ok || read.identity.kind !== "node" || read.identity.issuerKeyId !== issuerKeyId) return false;
  const { identity } = read;
  const nowMs = clock.nowMs();
  return (
    identity.nodeId === nodeId &&
    identity.role === "swarm-manager" &&
    identity.clusterId === authority.clusterId &&
    identity.notBeforeMs <= nowMs &&
    nowMs < identity.notAfterMs
  );
}

async function issue({ authority, nodeId, hosts }: ManagerIdentityOptions): Promise<Credentials> {
  const keys = await generateKeyPair();
  const subject = { kind: "node", nodeId, role: "swarm-manager", clusterId: authority.clusterId } as const;
  const { chain } = await authority.issue(subject, await createCertificateRequest(keys), hosts);
  return { key: exportPrivateKey(keys), chain, trust: authority.roots };
}
