/** What the Control API stands on. Each is the narrowest part of its room that the API needs. */
import type { Clock } from "../../common/base/clock.ts";
import type { ClusterId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Entropy, Random } from "../../common/base/random.ts";
import type { ImageReference } from "../../common/model/image-reference.ts";
import type { IssuedCertificate } from "../../common/pki/certificate-authority.ts";
import type { Subject } from "../../common/pki/identity.ts";
import type { RegistryCredentials } from "../../common/registry/auth.ts";
import type { AuditRecord, ReadAuditRequest } from "../../proto/gen/swarm/v1/audit_pb.js";
import type { LogMessages } from "../../proto/gen/swarm/v1/control_pb.js";
import type { AgentFrame, ManagerFrame } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { LogOptions, LogSelector } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { RotateOptions } from "../ca/cluster-authority.ts";
import type { CaCertificates } from "../ca/cluster-ca.ts";
import type { Sealer } from "../sealing/sealer.ts";
import type { Store } from "../store/store.ts";

/** The blobs that this manager keeps, by digest. */
export interface ImageBlobs {
  /** Which of `digests` are not here. */
  missing(digests: readonly string[]): Promise<readonly string[]>;
  /** Stores one blob. Throws `invalid_argument` unless size and digest agree; then nothing stays. */
  put(
    blob: { readonly digest: string; readonly sizeBytes: number },
    data: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void>;
  /** A blob's bytes from `offset`. Throws `not_found`. */
  open(digest: string, offset: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Forgets a blob; none is no error. */
  delete(digest: string): Promise<void>;
}

/** Gathers logs from the nodes that hold them. */
export interface LogSource {
  subscribe(selector: LogSelector, options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessages>;
}

/** Streams to the agents that have what is asked for: of one task, or of the node. */
export interface StreamSource {
  open(
    place: { readonly nodeId: string; readonly taskId?: string },
    outgoing: AsyncIterable<ManagerFrame>,
    signal: AbortSignal,
  ): AsyncIterable<AgentFrame>;
}

/** What registries know. */
export interface Registries {
  /**
   * The digest of what `reference` names now: an image or an index of several platforms' images. Undefined: there is no
   * such image. Throws what the registry, or the way to it, refuses.
   */
  digestOf(
    reference: ImageReference,
    credentials: RegistryCredentials | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined>;
}

/** The cluster's certificate authority, and what hosts join with. */
export interface Authority {
  /** To be awaited before all else. */
  ensure(signal: AbortSignal): Promise<void>;
  readonly clusterId: ClusterId;
  readonly certificates: CaCertificates;
  /** PEM: what new nodes trust. */
  readonly root: string;
  /** Those that are trusted now, PEM. */
  readonly roots: string;
  /** A certificate for the key that signed the request, for as long as nodes' live unless it is said. */
  issue(
    subject: Subject,
    request: string,
    hosts?: readonly string[],
    lifetimeMs?: number,
  ): Promise<Pick<IssuedCertificate, "certificate" | "chain">>;
  rotate(rotation: RotateOptions, signal: AbortSignal): Promise<void>;
  tokens(): Promise<{ readonly worker: string; readonly manager: string }>;
  /** The old token of the role is refused from now on. */
  rotateToken(role: "worker" | "manager", signal: AbortSignal): Promise<void>;
}

/** The audit logs of all managers. */
export interface AuditLogs {
  /** The newest records of all of them, oldest first; managers that did not answer, with why. */
  read(
    request: ReadAuditRequest,
    signal: AbortSignal,
  ): Promise<{ readonly records: readonly AuditRecord[]; readonly unreachable: readonly string[] }>;
}

/** The etcd that the managers have among themselves. */
export interface OwnStore {
  /** Frees a manager's place in it, whether it runs or not. */
  takeOut(nodeId: string, signal: AbortSignal): Promise<void>;
  /** Whose places there are, by their nodes' ids. */
  places(): Promise<readonly string[]>;
}

/** Everything that the Control API is handed. */
export interface ControlDependencies {
  readonly store: Store;
  readonly blobs: ImageBlobs;
  readonly registry: Registries;
  /** Seals secrets under the cluster's key. */
  readonly sealer: Sealer;
  readonly entropy: Entropy;
  readonly authority: Authority;
  /** Absent where the store is somebody else's. */
  readonly ownStore?: OwnStore | undefined;
  /** Whether this manager reaches the store. */
  readonly isInTouch: () => boolean;
  readonly audits: AuditLogs;
  readonly logs: LogSource;
  readonly streams: StreamSource;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: string;
  /** The program's version, for `swarmctl version`. */
  readonly version: string;
}
