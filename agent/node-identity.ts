/**
 * Who this node is: its key and certificate, how it gets them, and that they stay valid.
 *
 *   token ─┬─ GetRootCertificates, from whoever answers ─▶ a root of the token's digest?
 *          └─ IssueCertificate, from a manager under that root ─▶ certificate, on the disk
 *   run ── at 50-80 % of its life, or when a manager asks for it ── IssueCertificate by the certificate itself
 *   hear ── other roots are trusted now ─▶ on the disk          held ─▶ managers: what it has now
 */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { ClusterId, NodeId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { type Random, shuffled } from "../common/base/random.ts";
import { Wakeup, wokenWithin } from "../common/base/wakeup.ts";
import { createCertificateRequest } from "../common/pki/certificate-request.ts";
import { type KeyId, keyIdOf, readCertificates, toCertificatesPem, validityOf } from "../common/pki/certificates.ts";
import { type Credentials, readCredentials, writeCredentials } from "../common/pki/credential-files.ts";
import { identityOf } from "../common/pki/identity.ts";
import { isTokensRoot, type JoinToken, parseJoinToken } from "../common/pki/join-token.ts";
import { exportPrivateKey, generateKeyPair } from "../common/pki/key-pair.ts";
import { drawRenewal, planRenewal } from "../common/pki/renewal.ts";
import { readTrustBundle } from "../common/pki/trust-bundle.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import type { ClientTls } from "../common/rpc/tls.ts";
import { type IssueCertificateResponse, NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import type { SessionMessage } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { BeginJoinResponse } from "../proto/gen/swarm/v1/local_pb.js";
import type { NodeSpec_Availability } from "../proto/gen/swarm/v1/types_pb.js";
import type { ManagerList } from "./session.ts";

/** Managers are verified by it, whatever their address. */
const SERVER_NAME = "swarm-manager";
/** Of one manager: another one may be there. */
const JOIN_TIMEOUT_MS = 10_000;
/** Nodes that hear of other roots at once tell within this time that they have taken them. */
const ROOTS_SPREAD_MS = 1_000;

/** What an identity is made with. */
export interface NodeIdentityOptions {
  /** Its directory below the data directory. */
  readonly directory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** A node's certificate, as it tells managers of it. */
export interface HeldCertificate {
  /** PEM. */
  readonly certificate: string;
  readonly trustedKeys: readonly KeyId[];
}

/** How a host asks to be let in. */
export interface JoinRequest {
  /** "host:port". */
  readonly managers: readonly string[];
  readonly token: string;
  readonly availability?: NodeSpec_Availability;
}

/** A key, and the certificate that a manager gave for it. */
export interface GivenCertificate {
  readonly key: string;
  readonly answer: Pick<IssueCertificateResponse, "certificates" | "roots">;
}

export class NodeIdentity {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly #options: NodeIdentityOptions;
  readonly #changed = new Wakeup();
  readonly #news = new Wakeup();
  #heard: Pick<SessionMessage, "roots" | "renewUnder"> = { roots: "", renewUnder: "" };
  #credentials: Credentials;

  private constructor(options: NodeIdentityOptions, credentials: Credentials) {
    this.#options = options;
    this.#credentials = credentials;
    const { nodeId, clusterId } = subjectOf(credentials);
    this.nodeId = nodeId;
    this.clusterId = clusterId;
  }

  /** What lies on the disk; undefined: this host is no node yet. Throws `failed_precondition` for what is damaged. */
  static async read(options: NodeIdentityOptions): Promise<NodeIdentity | undefined> {
    const stored = await readCredentials(options.directory);
    return stored.state === "ready" ? new NodeIdentity(options, stored.credentials) : undefined;
  }

  /** Makes this host a node of the cluster that the token is of. Throws what `askToJoin` does. */
  static async join(options: NodeIdentityOptions, request: JoinRequest, signal: AbortSignal): Promise<NodeIdentity> {
    return NodeIdentity.adopt(options, await askToJoin(request, signal));
  }

  /** Takes a certificate that was given for a key of ours, and keeps both. */
  static async adopt(options: NodeIdentityOptions, given: GivenCertificate): Promise<NodeIdentity> {
    const credentials = { key: given.key, chain: given.answer.certificates, trust: given.answer.roots };
    const identity = new NodeIdentity(options, credentials);
    await writeCredentials(options.directory, credentials);
    return identity;
  }

  /** For calls to managers. Asked for each connection: a new one is made with the newest certificate. */
  get client(): ClientTls {
    const { chain, key, trust } = this.#credentials;
    return { ca: trust, certificate: chain, key, serverName: SERVER_NAME };
  }

  /** What managers are told of it: now, and on each change. */
  async *held(signal: AbortSignal): AsyncGenerator<HeldCertificate, never, undefined> {
    while (true) {
      const { chain, trust } = this.#credentials;
      const trustedKeys = readTrustBundle(trust).map(({ publicKey }) => keyIdOf(publicKey));
      yield { certificate: toCertificatesPem([leafOf({ chain })]), trustedKeys };
      await this.#changed.wait(signal);
    }
  }

  /** Hears what a manager says: which roots to trust, and whether it is this node's turn to renew. */
  hear({ roots, renewUnder }: Pick<SessionMessage, "roots" | "renewUnder">): void {
    if (roots === this.#heard.roots && renewUnder === this.#heard.renewUnder) return;
    this.#heard = { roots, renewUnder };
    this.#news.wake();
  }

  /**
   * Renews the certificate in time or when a manager asks for it, by any of the managers, and takes the roots that they tell of,
   * until `signal` aborts.
   */
  async run(managers: ManagerList, signal: AbortSignal): Promise<never> {
    const { clock, random, logger } = this.#options;
    let validity = validityOf(leafOf(this.#credentials));
    let renewAtMs = drawRenewal(validity, random);
    for (let failures = 0; ; ) {
      const isRotated = this.#isRotated;
      const plan = planRenewal({ validity, renewAtMs, nowMs: clock.nowMs(), failures, isRotated }, random);
      if (plan.type === "expired" && failures === 0) {
        failures = 1;
        logger.error(
          { until: new Date(validity.notAfterMs).toISOString() },
          "the node's certificate has expired: its containers run on, and it must join again with a token",
        );
      }
      // A certificate that is renewed brings the roots along.
      if (!isRotated && this.#isToldOtherRoots) await this.#takeRoots(signal);
      const hasNews = await wokenWithin(this.#news, { clock, delayMs: plan.delayMs }, signal);
      if (hasNews || plan.type !== "renew") continue;
      try {
        await this.#renew(managers, signal);
        failures = 0;
        validity = validityOf(leafOf(this.#credentials));
        renewAtMs = drawRenewal(validity, random);
        logger.info({ until: new Date(validity.notAfterMs).toISOString(), reason: plan.reason }, "certificate renewed");
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        failures += 1;
        logger.warn({ err: reason }, "certificate not renewed yet");
      }
    }
  }

  /** A certificate for the manager on this host: managers give it to a node whose role is manager. */
  async managerCertificate(
    { certificateRequest, hosts }: Pick<BeginJoinResponse, "certificateRequest" | "hosts">,
    managers: ManagerList,
    signal: AbortSignal,
  ): Promise<IssueCertificateResponse> {
    return await firstManager(managers.all, signal, async (address, inner) => {
      await using transport = openGrpcTransport({ address, tls: this.client });
      return await createClient(NodeCa, transport).issueCertificate(
        { certificateRequest, hosts, manager: true },
        { signal: inner },
      );
    });
  }

  /** Whether another authority is to have signed the certificate. */
  get #isRotated(): boolean {
    const { renewUnder } = this.#heard;
    return renewUnder !== "" && renewUnder !== subjectOf(this.#credentials).issuerKeyId;
  }

  get #isToldOtherRoots(): boolean {
    const { roots } = this.#heard;
    return roots !== "" && roots !== this.#credentials.trust;
  }

  /** A manager of this cluster says whom to trust, whoever was trusted before: a former root must not stay. */
  async #takeRoots(signal: AbortSignal): Promise<void> {
    const { clock, random, logger, directory } = this.#options;
    await clock.sleep(random.next() * ROOTS_SPREAD_MS, signal);
    const { roots } = this.#heard;
    try {
      readTrustBundle(roots, "the roots that a manager told of");
      const credentials = { ...this.#credentials, trust: roots };
      await writeCredentials(directory, credentials);
      this.#credentials = credentials;
      this.#changed.wake();
      logger.info("trusted roots changed");
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      logger.error({ err: reason }, "trusted roots not changed");
      // Not again and again: until a manager tells of others.
      this.#heard = { ...this.#heard, roots: "" };
    }
  }

  async #renew(managers: ManagerList, signal: AbortSignal): Promise<void> {
    const { random, directory } = this.#options;
    const keys = await generateKeyPair();
    const certificateRequest = await createCertificateRequest(keys);
    const answer = await firstManager(shuffled(random, managers.all), signal, async (address, inner) => {
      await using transport = openGrpcTransport({ address, tls: this.client });
      return await createClient(NodeCa, transport).issueCertificate({ certificateRequest }, { signal: inner });
    });
    const credentials = { key: exportPrivateKey(keys), chain: answer.certificates, trust: answer.roots };
    const { nodeId } = subjectOf(credentials);
    if (nodeId !== this.nodeId) throw new SwarmError("data_loss", `the new certificate is that of node ${nodeId}`);
    await writeCredentials(directory, credentials);
    this.#credentials = credentials;
    this.#changed.wake();
  }
}

/**
 * Has this host taken into the cluster that the token is of, by the first of the managers that can be reached.
 * @throws invalid_argument: not a token; before anything is dialled. failed_precondition: a manager of another cluster, which
 * is not told the token. permission_denied: the token is not valid, or was rotated. unavailable: nobody answers.
 */
export async function askToJoin(request: JoinRequest, signal: AbortSignal): Promise<GivenCertificate> {
  const token = parseJoinToken(request.token);
  const keys = await generateKeyPair();
  const certificateRequest = await createCertificateRequest(keys);
  const { availability = 0 } = request;
  const answer = await firstManager(request.managers, signal, async (address, inner) => {
    const root = await rootOf(address, token, inner);
    await using transport = openGrpcTransport({ address, tls: { ca: root, serverName: SERVER_NAME } });
    const call = { certificateRequest, token: request.token.trim(), availability };
    return await createClient(NodeCa, transport).issueCertificate(call, { signal: inner, timeoutMs: JOIN_TIMEOUT_MS });
  });
  return { key: exportPrivateKey(keys), answer };
}

/** Asks one manager after the other. A refusal is final: the others would say the same. */
async function firstManager<T>(
  managers: readonly string[],
  signal: AbortSignal,
  ask: (address: string, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  let failure = new SwarmError("invalid_argument", "no manager is known: name one");
  for (const address of managers) {
    try {
      return await ask(address, signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      failure = SwarmError.wrap(`manager ${address}`, reason);
      if (!["unavailable", "deadline_exceeded", "unimplemented"].includes(reason.code)) break;
    }
  }
  throw failure;
}

/** The root that the token names, from whoever answers: nothing else of the answer is believed. */
async function rootOf(address: string, token: JoinToken, signal: AbortSignal): Promise<string> {
  await using transport = openGrpcTransport({ address, tls: { verify: false, serverName: SERVER_NAME } });
  const options = { signal, timeoutMs: JOIN_TIMEOUT_MS };
  const { roots } = await createClient(NodeCa, transport).getRootCertificates({}, options);
  const root = readTrustBundle(roots, "the manager's CA certificates").find((each) => isTokensRoot(token, each));
  if (root) return toCertificatesPem([root]);
  throw new SwarmError(
    "failed_precondition",
    "its CA is not the token's: this is another cluster, or somebody between; the token was not sent",
  );
}

function leafOf({ chain }: Pick<Credentials, "chain">) {
  return readCertificates(chain, "the node's certificate")[0];
}

function subjectOf({ chain, trust }: Pick<Credentials, "chain" | "trust">) {
  const [leaf, ...sent] = readCertificates(chain, "the node's certificate");
  const read = identityOf(leaf, [...readTrustBundle(trust), ...sent]);
  if (!read.ok) throw new SwarmError("failed_precondition", `the node's certificate: ${read.problem}`);
  if (read.identity.kind !== "node") {
    throw new SwarmError("failed_precondition", "the node's certificate is a user's");
  }
  return read.identity;
}
