/**
 * Goal: members believe one another and nobody else, and who is not believed is told why. Method: every case is judged by
 * `verifyChain` and by a TLS 1.3 handshake with the same certificates, both ends with one; both must agree.
 */
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type TLSSocket } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { ClusterPki, type Member } from "../../test/cluster-pki.ts";
import { systemEntropy } from "../base/random.ts";
import { type CertificateAuthority, crossSign, issueCertificate } from "./certificate-authority.ts";
import { createCertificateRequest, readCertificateRequest } from "./certificate-request.ts";
import { keyIdOf, readCertificates } from "./certificates.ts";
import type { Credentials } from "./credential-files.ts";
import { exportPrivateKey, generateKeyPair, importSigningKey } from "./key-pair.ts";
import { formatTrustBundle, mergeRoots, readTrustBundle } from "./trust-bundle.ts";
import { type ChainExpectation, type ChainFault, verifyChain } from "./verify-chain.ts";
import { loadX509 } from "./x509.ts";

/** Handshakes go by the machine's clock. */
const NOW_MS = Math.floor(Date.now() / 1000) * 1000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

interface Handshake {
  /** What the client says of the server; undefined when it believes it. */
  readonly ofServer: string | undefined;
  /** What the server says of the client. */
  readonly ofClient: string | undefined;
  readonly protocol: string | null;
}

/** One handshake between two members; the client wants a manager, whatever its address. */
async function shakeHands(server: Credentials, client: Credentials, servername = "swarm-manager"): Promise<Handshake> {
  const { key, chain, trust } = server;
  const listener = createServer({
    ...{ key, cert: chain, ca: trust, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" },
  });
  const judged = Promise.withResolvers<string | undefined>();
  listener.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => {});
    judged.resolve(undefined);
    socket.end("welcome");
  });
  listener.on("tlsClientError", ({ message }: Error, { authorizationError }: TLSSocket) => {
    judged.resolve(String(authorizationError ?? message));
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as AddressInfo;
  const options = { key: client.key, cert: client.chain, ca: client.trust, minVersion: "TLSv1.3" } as const;
  const socket = connect({ ...options, host: "127.0.0.1", port, servername });
  try {
    const believed = Promise.withResolvers<string | undefined>();
    socket.once("secureConnect", () => believed.resolve(undefined));
    socket.on("error", ({ message }) => believed.resolve(message));
    socket.resume();
    const ofServer = await believed.promise;
    return {
      ofServer,
      ofClient: ofServer === undefined ? await judged.promise : undefined,
      protocol: socket.getProtocol(),
    };
  } finally {
    socket.destroy();
    listener.close();
  }
}

function judge(shown: Pick<Credentials, "chain">, trust: string, expectation: Partial<ChainExpectation> = {}) {
  return verifyChain(readCertificates(shown.chain, "it"), readTrustBundle(trust), {
    nowMs: NOW_MS,
    usage: "server",
    ...expectation,
  });
}

let pki: ClusterPki;
let other: ClusterPki;
let manager: Member;
let worker: Member;

beforeAll(async () => {
  [pki, other] = [await ClusterPki.open(NOW_MS), await ClusterPki.open(NOW_MS)];
  manager = await pki.join(pki.node("swarm-manager"));
  worker = await pki.join(pki.node("swarm-worker"));
});

describe("members", () => {
  test("believe one another", async () => {
    for (const client of [worker, manager, await pki.join(pki.user("swarm-viewer", "ann", ["shop"]))]) {
      expect(await shakeHands(manager, client)).toEqual({
        ofServer: undefined,
        ofClient: undefined,
        protocol: "TLSv1.3",
      });
    }
    const { clusterId } = pki;
    const ofServer = await judge(manager, worker.trust, { clusterId, name: "swarm-manager" });
    expect(ofServer).toMatchObject({ ok: true, identity: { role: "swarm-manager", clusterId } });
    const ofClient = await judge(worker, manager.trust, { clusterId, usage: "client" });
    expect(ofClient).toMatchObject({ ok: true, identity: { role: "swarm-worker", clusterId } });
  });

  test("are known by id, role and host, and not by another name", async () => {
    const member = await pki.join(pki.node("swarm-manager"), { hosts: ["m.example", "10.0.0.7"] });
    const id = member.certificate.subjectAltName?.slice(4, 29) ?? "";
    for (const name of [id, "swarm-manager", "m.example"]) {
      expect(await shakeHands(member, worker, name), name).toMatchObject({ ofServer: undefined });
      expect(await judge(member, worker.trust, { name }), name).toMatchObject({ ok: true });
    }
    expect(await judge(member, worker.trust, { name: "10.0.0.7" })).toMatchObject({ ok: true });
    for (const name of ["swarm-worker", "n.example", "10.0.0.8", "a".repeat(25)]) {
      expect(await judge(member, worker.trust, { name }), name).toMatchObject({ fault: "wrong-name" });
    }
    expect((await shakeHands(member, worker, "n.example")).ofServer).toMatch(/does not match certificate's altnames/);
  });
});

interface Case {
  readonly what: string;
  readonly shown: () => Promise<Member> | Member;
  /** Whose certificate is judged; default the client's. */
  readonly usage?: ChainExpectation["usage"];
  readonly fault: ChainFault;
  readonly message: RegExp;
  /** What OpenSSL says; undefined where it sees nothing wrong. */
  readonly openssl: RegExp | undefined;
}

const CASES: readonly Case[] = [
  {
    what: "of another cluster",
    shown: () => other.join(other.node("swarm-worker")),
    fault: "other-cluster",
    message: /^the certificate CN=\w{25}, OU=swarm-worker, O=\w{25} is of another cluster: \w{25}, not \w{25}$/,
    openssl: /UNABLE_TO_VERIFY_LEAF_SIGNATURE/,
  },
  {
    what: "of another cluster, as a server's",
    shown: () => other.join(other.node("swarm-manager")),
    usage: "server",
    fault: "other-cluster",
    message: /is of another cluster/,
    openssl: /unable to verify the first certificate|self-signed certificate in certificate chain/,
  },
  {
    what: "of another cluster with the same root",
    shown: () => pki.join({ ...pki.node("swarm-worker"), clusterId: other.clusterId }),
    fault: "other-cluster",
    message: /is of another cluster/,
    openssl: undefined,
  },
  {
    what: "of an authority that nobody knows",
    shown: () => other.join({ ...other.node("swarm-worker"), clusterId: pki.clusterId }),
    fault: "unknown-authority",
    message: /was signed by CN=swarm-ca, which is none of the authorities trusted here$/,
    openssl: /UNABLE_TO_VERIFY_LEAF_SIGNATURE/,
  },
  {
    what: "that has expired",
    shown: () =>
      olderBy(100 * DAY_MS).then((old) => old.join(pki.node("swarm-worker"), { nowMs: NOW_MS - 100 * DAY_MS })),
    fault: "expired",
    message: /^the certificate CN=.* expired on 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
    openssl: /CERT_HAS_EXPIRED/,
  },
  {
    what: "of an hour and a half ahead",
    shown: () => pki.join(pki.node("swarm-worker"), { nowMs: NOW_MS + 1.5 * HOUR_MS }),
    fault: "not-yet-valid",
    message: /is not valid before .*Z; this machine's clock says .*Z$/,
    openssl: /CERT_NOT_YET_VALID/,
  },
  {
    what: "of a worker that plays the manager",
    shown: () => worker,
    usage: "server",
    fault: "wrong-usage",
    message: /is not for use as a server$/,
    openssl: /unsuitable certificate purpose/,
  },
  {
    what: "of an authority",
    shown: () => ({ ...manager, chain: pki.files.certificates, key: pki.files.key }),
    fault: "malformed",
    message: /^the certificate CN=swarm-ca is no identity: it is an authority's own$/,
    openssl: /INVALID_PURPOSE/,
  },
];

let past: ClusterPki | undefined;

/** The same cluster's authority as it was: its root must be older than what it signed. */
async function olderBy(ms: number): Promise<ClusterPki> {
  past ??= await ClusterPki.open(NOW_MS - ms);
  return past;
}

describe("a certificate", () => {
  test.each(CASES)("$what is refused", async ({ what, shown, usage = "client", fault, message, openssl }) => {
    const member = await shown();
    const roots = [pki.authority.root, ...(what.includes("expired") && past ? [past.authority.root] : [])];
    const trust = formatTrustBundle(roots);
    const verdict = await judge(member, trust, { usage, clusterId: pki.clusterId });
    expect(verdict).toMatchObject({ ok: false, fault });
    expect(verdict.ok ? "" : verdict.message).toMatch(message);
    const [server, client] = usage === "server" ? [member, { ...worker, trust }] : [{ ...manager, trust }, member];
    const handshake = await shakeHands(server, { ...client, trust });
    const said = usage === "server" ? handshake.ofServer : handshake.ofClient;
    if (openssl === undefined) expect(said).toBeUndefined();
    else expect(said).toMatch(openssl);
  });

  test("of less than an hour ahead is believed: clocks differ", async () => {
    const early = await pki.join(pki.node("swarm-worker"), { nowMs: NOW_MS + 0.9 * HOUR_MS });
    expect(await judge(early, manager.trust, { usage: "client" })).toMatchObject({ ok: true });
    expect(await shakeHands(manager, early)).toMatchObject({ ofClient: undefined });
  });

  test("is refused when it is none, or comes with too many", async () => {
    const want = { nowMs: NOW_MS, usage: "client" } as const;
    expect(await verifyChain([], [pki.authority.root], want)).toMatchObject({ fault: "no-certificate" });
    const many = Array.from({ length: 6 }, () => worker.certificate);
    expect(await verifyChain(many, [pki.authority.root], want)).toMatchObject({ fault: "too-long" });
    expect(await verifyChain([worker.certificate], [], want)).toMatchObject({ fault: "unknown-authority" });
  });

  test("of an expired authority is refused with that authority's date", async () => {
    const endMs = pki.authority.root.validToDate.getTime();
    const late = await judge(worker, manager.trust, { usage: "client", nowMs: endMs + 1000 });
    expect(late).toMatchObject({ fault: "expired" });
    const member = { ...worker, chain: worker.chain };
    expect(await judge(member, manager.trust, { usage: "client", nowMs: NOW_MS + 91 * DAY_MS })).toMatchObject({
      fault: "expired",
      message: expect.stringContaining("OU=swarm-worker"),
    });
  });
});

describe("while the root rotates", () => {
  let next: ClusterPki;
  let rotating: ClusterPki;
  let newManager: Member;
  let newWorker: Member;

  beforeAll(async () => {
    next = await ClusterPki.open(NOW_MS);
    const crossSigned = await crossSign(pki.authority, next.authority.root, { nowMs: NOW_MS, entropy: systemEntropy });
    rotating = await ClusterPki.open(NOW_MS, { ...next.files, crossSigned });
    const both = formatTrustBundle([pki.authority.root, next.authority.root]);
    const { clusterId } = pki;
    newManager = { ...(await rotating.join({ ...rotating.node("swarm-manager"), clusterId })), trust: both };
    newWorker = { ...(await rotating.join({ ...rotating.node("swarm-worker"), clusterId })), trust: both };
  });

  test("old and new members believe one another, whichever roots they have", async () => {
    const oldManager = { ...manager, trust: newManager.trust };
    const oldWorker = { ...worker, trust: newManager.trust };
    const lateWorker = { ...newWorker, trust: next.files.certificates };
    // `worker` has heard nothing yet: it trusts the old root only.
    for (const server of [manager, oldManager, newManager]) {
      for (const client of [worker, oldWorker, newWorker]) {
        expect(await shakeHands(server, client)).toMatchObject({ ofServer: undefined, ofClient: undefined });
        const { clusterId } = pki;
        expect(await judge(server, client.trust, { clusterId })).toMatchObject({ ok: true });
        expect(await judge(client, server.trust, { clusterId, usage: "client" })).toMatchObject({ ok: true });
      }
    }
    // Once it is over, the old ones are out.
    expect(await shakeHands(newManager, lateWorker)).toMatchObject({ ofServer: undefined, ofClient: undefined });
    expect((await shakeHands(manager, lateWorker)).ofServer).toMatch(/verify|issuer|self-signed/);
    expect(await judge(manager, next.files.certificates, { clusterId: pki.clusterId })).toMatchObject({
      fault: "unknown-authority",
    });
  });

  test("an identity tells which root signed it", async () => {
    const of = async (member: Member, trust: string) => {
      const verdict = await judge(member, trust);
      return verdict.ok ? [verdict.identity.issuerKeyId, verdict.root.serialNumber] : verdict.message;
    };
    const [oldRoot, newRoot] = [pki.authority.root.serialNumber, next.authority.root.serialNumber];
    expect(await of(manager, newManager.trust)).toEqual([pki.authority.keyId, oldRoot]);
    expect(await of(newManager, newManager.trust)).toEqual([next.authority.keyId, newRoot]);
    expect(await of(newManager, manager.trust)).toEqual([next.authority.keyId, oldRoot]);
  });

  test("a root that stands in for a root that stands in for another is believed", async () => {
    const third = await ClusterPki.open(NOW_MS);
    const options = { nowMs: NOW_MS, entropy: systemEntropy };
    const links =
      (await crossSign(next.authority, third.authority.root, options)) +
      (await crossSign(pki.authority, next.authority.root, options));
    const deep = await third.join({ ...third.node("swarm-manager"), clusterId: pki.clusterId });
    const member = { ...deep, chain: deep.chain + links };
    expect(await judge(member, worker.trust)).toMatchObject({ ok: true });
    expect(await shakeHands(member, worker)).toMatchObject({ ofServer: undefined });
  });

  test("a chain longer than an authority allows is refused", async () => {
    const middle = await authorityBelow(pki.authority, "middle");
    const short = await managerOf(middle);
    expect(await judge(short, worker.trust)).toMatchObject({ ok: true });
    expect(await shakeHands(short, worker)).toMatchObject({ ofServer: undefined });
    const long = await managerOf(await authorityBelow(middle, "below"));
    expect(await judge(long, worker.trust)).toMatchObject({ fault: "unknown-authority" });
    expect((await shakeHands(long, worker)).ofServer).toMatch(/path length/);
  });
});

/** An authority that allows none below it, signed by one that may not allow it either: `openAuthority` would refuse it. */
async function authorityBelow(above: CertificateAuthority, name: string): Promise<CertificateAuthority> {
  const x509 = await loadX509();
  const keys = await generateKeyPair();
  const subject = new x509.Name([{ CN: [name] }]);
  const signed = await x509.X509CertificateGenerator.create({
    serialNumber: "01",
    subject,
    issuer: above.issuer.name,
    notBefore: new Date(NOW_MS),
    notAfter: new Date(NOW_MS + 365 * DAY_MS),
    publicKey: keys.publicKey,
    signingKey: above.key.privateKey,
    signingAlgorithm: above.key.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  const certificate = new X509Certificate(Buffer.from(signed.rawData));
  const key = importSigningKey(exportPrivateKey(keys), "the key");
  return {
    ...{ chain: [certificate, ...above.chain], root: above.root, intermediates: [certificate, ...above.intermediates] },
    ...{ keyId: keyIdOf(key.publicKey), key, issuer: { name: subject, subjectKeyId: undefined } },
  };
}

async function managerOf(authority: CertificateAuthority): Promise<Credentials> {
  const keys = await generateKeyPair();
  const request = await readCertificateRequest(await createCertificateRequest(keys));
  const options = { nowMs: NOW_MS, entropy: systemEntropy };
  const { chain } = await issueCertificate(authority, pki.node("swarm-manager"), request, options);
  return { key: exportPrivateKey(keys), chain, trust: worker.trust };
}

describe("a trust bundle", () => {
  test("holds each root once", () => {
    const roots = [pki.authority.root, other.authority.root];
    expect(readTrustBundle(formatTrustBundle([...roots, ...roots])).map(({ raw }) => raw)).toEqual(
      roots.map(({ raw }) => raw),
    );
    expect(mergeRoots([])).toEqual([]);
  });

  test("holds roots only", () => {
    expect(() => readTrustBundle(worker.chain)).toThrow(
      /^the CA bundle holds CN=\w{25}, OU=.*, which is no root certificate$/,
    );
    expect(() => readTrustBundle("", "trust.pem")).toThrow(/^trust.pem holds no certificate in PEM form$/);
    expect(() => readTrustBundle(pki.files.certificates.repeat(17))).toThrow(/holds 17 certificates; 16 are the most/);
    expect(() => readTrustBundle("x".repeat(300_000))).toThrow(/is larger than 262144 bytes/);
  });
});
