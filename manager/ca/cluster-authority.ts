/**
 * The cluster's certificate authority as this manager has it: its root, key and join secrets lie in the store, sealed under
 * the cluster key, so every manager can sign and none keeps more than the others.
 */
import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../common/base/clock.ts";
import { assert, SwarmError } from "../../common/base/error.ts";
import { type ClusterId, newId } from "../../common/base/id.ts";
import type { Entropy, Random } from "../../common/base/random.ts";
import { durationMs } from "../../common/model/duration.ts";
import {
  type AuthorityFiles,
  type CertificateAuthority,
  createRoot,
  type IssuedCertificate,
  issueCertificate,
  openAuthority,
} from "../../common/pki/certificate-authority.ts";
import { readCertificateRequest } from "../../common/pki/certificate-request.ts";
import { toCertificatesPem } from "../../common/pki/certificates.ts";
import type { Subject } from "../../common/pki/identity.ts";
import { certificateDigest, formatJoinToken, type JoinSecrets, newJoinSecret } from "../../common/pki/join-token.ts";
import { type ClusterCa, ClusterCaSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Sealer } from "../sealing/sealer.ts";
import type { Store } from "../store/store.ts";
import type { View } from "../store/view.ts";
import { beginRotation, type CaKeys } from "./begin-rotation.ts";
import { type CaCertificates, caCertificates } from "./cluster-ca.ts";

/** What makes an authority. */
export interface NewAuthorityOptions {
  readonly sealer: Sealer;
  readonly clock: Clock;
  readonly random: Random;
  readonly entropy: Entropy;
}

/** What an authority is opened with: of the store, no more than the cluster's object. */
export interface ClusterAuthorityOptions extends NewAuthorityOptions {
  readonly store: Pick<Store, "commit"> & { readonly view: Pick<View, "cluster" | "changes"> };
}

/** A new cluster's authority: root, key, tokens. */
export async function newClusterCa({ sealer, clock, random, entropy }: NewAuthorityOptions): Promise<ClusterCa> {
  const { certificates, key } = await createRoot({ nowMs: clock.nowMs(), entropy });
  return create(ClusterCaSchema, {
    clusterId: newId<ClusterId>(random),
    root: certificates,
    sealedKey: sealer.seal(Buffer.from(key), PLACES.key),
    sealedWorkerSecret: sealer.seal(newJoinSecret(entropy), PLACES.worker),
    sealedManagerSecret: sealer.seal(newJoinSecret(entropy), PLACES.manager),
  });
}

/** How the authority is to change. */
export interface RotateOptions {
  /** An authority that people bring: PEM. Absent: a new root. */
  readonly successor?: Pick<AuthorityFiles, "certificates" | "key">;
  /** Of certificates from then on. */
  readonly certificateLifetime?: Duration;
}

/** How often a write is tried again when the cluster's object changes meanwhile. */
const ATTEMPTS_MAX = 5;
/** Places of what is sealed: none can be put in another's. */
const PLACES = { key: "ca/key", worker: "ca/worker-secret", manager: "ca/manager-secret" } as const;

export class ClusterAuthority {
  readonly #options: ClusterAuthorityOptions;
  #opened: { readonly ca: ClusterCa; readonly authority: Promise<CertificateAuthority> } | undefined;

  /** Makes nothing yet: see `ensure`. */
  constructor(options: ClusterAuthorityOptions) {
    this.#options = options;
  }

  /** Makes the cluster's CA unless there is one. To be awaited before all else. */
  async ensure(signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    for (let attempt = 0; store.view.cluster?.ca === undefined; attempt++) {
      const { cluster } = store.view;
      assert(cluster, "a cluster whose settings were not written");
      if (attempt === ATTEMPTS_MAX) throw new SwarmError("aborted", "make the cluster's CA: the store keeps changing");
      const ca = await newClusterCa(this.#options);
      // Who loses this race takes the winner's.
      await store.commit([{ type: "update", kind: "cluster", object: { ...cluster, ca } }], { signal });
    }
  }

  get clusterId(): ClusterId {
    return this.#ca.clusterId as ClusterId;
  }

  /** The root that new hosts are to trust, PEM. */
  get root(): string {
    return toCertificatesPem([this.certificates.root]);
  }

  /** The roots that are trusted now, PEM. */
  get roots(): string {
    return this.certificates.trust;
  }

  get certificates(): CaCertificates {
    return caCertificates(this.#ca);
  }

  /** Tells of each change of the authority, until `signal` aborts. */
  async *changes(signal: AbortSignal): AsyncGenerator<void, void, undefined> {
    for await (const batch of this.#options.store.view.changes(signal)) {
      if (batch.some((change) => change.kind === "cluster" && change.before?.ca !== change.after?.ca)) yield;
    }
  }

  /**
   * Signs a certificate for `subject` and the key that signed the request; it lives as long as nodes' do, unless it is said.
   * Throws `invalid_argument` for a bad request.
   */
  async issue(
    subject: Subject,
    request: string,
    hosts: readonly string[] = [],
    lifetimeMs?: number,
  ): Promise<IssuedCertificate> {
    const { clock, entropy, store } = this.#options;
    const wantedMs = lifetimeMs ?? (durationMs(store.view.cluster?.spec?.certificateLifetime) || undefined);
    const options = {
      nowMs: clock.nowMs(),
      entropy,
      hosts,
      ...(wantedMs === undefined ? {} : { lifetimeMs: wantedMs }),
    };
    return issueCertificate(await this.#authority(), subject, await readCertificateRequest(request), options);
  }

  /** The secret parts of the join tokens. */
  get secrets(): JoinSecrets {
    const { sealer } = this.#options;
    const { sealedWorkerSecret, sealedManagerSecret } = this.#ca;
    return {
      worker: sealer.open(sealedWorkerSecret, PLACES.worker),
      manager: sealer.open(sealedManagerSecret, PLACES.manager),
    };
  }

  /** The join tokens as people get them. */
  async tokens(): Promise<{ readonly worker: string; readonly manager: string }> {
    const digest = certificateDigest((await this.#authority()).root);
    const { worker, manager } = this.secrets;
    return {
      worker: formatJoinToken({ digest, secret: worker }),
      manager: formatJoinToken({ digest, secret: manager }),
    };
  }

  /** Makes a new secret for a role: its old token is refused from now on. */
  async rotateToken(role: keyof JoinSecrets, signal: AbortSignal): Promise<void> {
    const { sealer, entropy } = this.#options;
    const sealed = sealer.seal(newJoinSecret(entropy), PLACES[role]);
    const secret = role === "worker" ? { sealedWorkerSecret: sealed } : { sealedManagerSecret: sealed };
    await this.#update("rotate the join token", signal, async (ca) => ({ ca: { ...ca, ...secret } }));
  }

  /**
   * Begins to change the authority, to `successor` or to a new root; every manager takes it up by the store, and the leader's
   * loop sees to it that nodes follow.
   * @throws invalid_argument: a bad successor. failed_precondition: it is the authority already.
   */
  async rotate({ successor, certificateLifetime }: RotateOptions, signal: AbortSignal): Promise<void> {
    const { sealer, clock, entropy, random } = this.#options;
    const keys: CaKeys = {
      seal: (key) => sealer.seal(Buffer.from(key), PLACES.key),
      open: (sealed) => Buffer.from(sealer.open(sealed, PLACES.key)).toString("utf8"),
    };
    const shared = { id: newId(random), successor, keys, entropy };
    await this.#update("rotate the cluster's CA", signal, async (ca) => ({
      ca: await beginRotation(ca, { ...shared, nowMs: clock.nowMs() }),
      ...(certificateLifetime && { certificateLifetime }),
    }));
  }

  /** Changes the stored authority, on what stands there when it is written. */
  async #update(
    operation: string,
    signal: AbortSignal,
    change: (ca: ClusterCa) => Promise<{ readonly ca: ClusterCa; readonly certificateLifetime?: Duration }>,
  ): Promise<void> {
    const { store } = this.#options;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { cluster } = store.view;
      assert(cluster?.ca && cluster.spec, "a CA that was open is gone");
      const { ca, certificateLifetime } = await change(cluster.ca);
      const spec = certificateLifetime ? { ...cluster.spec, certificateLifetime } : cluster.spec;
      const object = { ...cluster, ca, spec };
      const { conflicts } = await store.commit([{ type: "update", kind: "cluster", object }], { signal });
      if (conflicts.length === 0) return;
    }
    throw new SwarmError("aborted", `${operation}: the store keeps changing, try again`);
  }

  get #ca(): ClusterCa {
    const ca = this.#options.store.view.cluster?.ca;
    if (ca === undefined) throw new SwarmError("unavailable", "the cluster's CA is not in the store");
    return ca;
  }

  /** Opened once for each root: to check it costs more than to sign. */
  #authority(): Promise<CertificateAuthority> {
    const { sealer, clock } = this.#options;
    const ca = this.#ca;
    const { root, crossCertificate, sealedKey } = ca;
    if (this.#opened?.ca.root !== root || this.#opened.ca.crossCertificate !== crossCertificate) {
      const key = Buffer.from(sealer.open(sealedKey, PLACES.key)).toString("utf8");
      const crossSigned = crossCertificate === "" ? {} : { crossSigned: crossCertificate };
      const authority = openAuthority({ certificates: root, key, ...crossSigned }, clock.nowMs());
      this.#opened = { ca, authority };
    }
    return this.#opened.authority;
  }
}
