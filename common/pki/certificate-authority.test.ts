/**
 * Goal: certificates say what the manager decided and nothing else, others believe them, and a bad authority is refused at
 * the door. Method: OpenSSL reads and verifies what is written here, and makes the authorities that people bring.
 */
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ClusterPki } from "../../test/cluster-pki.ts";
import { SwarmError } from "../base/error.ts";
import { systemEntropy } from "../base/random.ts";
import { crossSign, openAuthority } from "./certificate-authority.ts";
import { toCertificatesPem } from "./certificates.ts";
import { exportPrivateKey, generateKeyPair, importKeyPair, importSigningKey } from "./key-pair.ts";
import { pathLengthOf } from "./path-length.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const folder = mkdtempSync(join(tmpdir(), "swarm-pki-"));
let pki: ClusterPki;

beforeAll(async () => {
  pki = await ClusterPki.open(NOW_MS);
});
afterAll(() => rmSync(folder, { recursive: true }));

function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return name;
}

function read(name: string): string {
  return readFileSync(join(folder, name), "utf8");
}

/** The code and message of what `promise` is refused with. */
async function refusal(work: () => unknown): Promise<string> {
  try {
    await work();
    return "accepted";
  } catch (reason) {
    expect(reason).toBeInstanceOf(SwarmError);
    const { code, message } = SwarmError.from(reason);
    return `${code}: ${message}`;
  }
}

describe("the root", () => {
  test("is what OpenSSL takes for one, for 20 years", () => {
    const text = openssl("x509", "-noout", "-text", "-in", file("root.pem", pki.files.certificates));
    expect(text).toMatch(/Subject: CN = swarm-ca\n/);
    expect(text).toMatch(/Issuer: CN = swarm-ca\n/);
    expect(text).toMatch(/Basic Constraints: critical\s+CA:TRUE, pathlen:2\n/);
    expect(text).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
    expect(text).toMatch(/NIST CURVE: P-256/);
    expect(openssl("verify", "-attime", String(NOW_MS / 1000), "-CAfile", "root.pem", "root.pem")).toBe(
      "root.pem: OK\n",
    );
    const { root } = pki.authority;
    expect(root.validFromDate.getTime()).toBe(NOW_MS - HOUR_MS);
    expect(root.validToDate.getTime()).toBe(NOW_MS + 20 * 365 * DAY_MS);
  });

  test("has another key and serial each time", async () => {
    const other = await ClusterPki.open(NOW_MS);
    expect(other.authority.keyId).not.toBe(pki.authority.keyId);
    expect(other.authority.root.serialNumber).not.toBe(pki.authority.root.serialNumber);
  });
});

describe("a certificate", () => {
  test("of a manager says its id, role, cluster and hosts", async () => {
    const subject = pki.node("swarm-manager");
    const { chain, certificate, key } = await pki.join(subject, { hosts: ["10.1.2.3", "fe80::1", "m1.example"] });
    const text = openssl("x509", "-noout", "-text", "-in", file("manager.pem", chain));
    expect(text).toContain(`Subject: O = ${pki.clusterId}, OU = swarm-manager, CN = ${subject.nodeId}\n`);
    expect(text).toContain(
      `DNS:${subject.nodeId}, DNS:swarm-manager, IP Address:10.1.2.3, IP Address:FE80:0:0:0:0:0:0:1, DNS:m1.example`,
    );
    expect(text).toMatch(/Extended Key Usage:\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
    expect(text).toMatch(/Key Usage: critical\s+Digital Signature\n/);
    expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE\n/);
    file("root.pem", pki.files.certificates);
    for (const purpose of ["sslserver", "sslclient"]) {
      const args = ["-x509_strict", "-attime", String(NOW_MS / 1000), "-purpose", purpose, "-CAfile", "root.pem"];
      expect(openssl("verify", ...args, "-verify_hostname", "swarm-manager", "manager.pem")).toBe("manager.pem: OK\n");
    }
    expect(certificate.validFromDate.getTime()).toBe(NOW_MS - HOUR_MS);
    expect(certificate.validToDate.getTime()).toBe(NOW_MS + 90 * DAY_MS);
    expect(certificate.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/);
    expect(openssl("pkey", "-noout", "-text", "-in", file("key.pem", key))).toContain("P-256");
  });

  test("of a worker is no server's; of a user it names the stacks", async () => {
    const worker = await pki.join(pki.node("swarm-worker"));
    expect(worker.certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    const user = await pki.join(pki.user("swarm-deployer", "ci@example", ["shop", "blog-"]));
    expect(user.certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    const text = openssl("x509", "-noout", "-text", "-in", file("user.pem", user.chain));
    expect(text).toContain("URI:swarm:stack-prefix:shop, URI:swarm:stack-prefix:blog-");
    expect(text).toContain("OU = swarm-deployer, CN = ci@example");
  });

  test("lives as long as it is told, at least an hour, and never longer than its authority", async () => {
    const lifeOf = async (lifetimeMs: number, nowMs = NOW_MS) => {
      const { certificate } = await pki.join(pki.node("swarm-worker"), { lifetimeMs, nowMs });
      return certificate.validToDate.getTime() - nowMs;
    };
    expect(await lifeOf(HOUR_MS)).toBe(HOUR_MS);
    expect(await lifeOf(1000 * 365 * DAY_MS)).toBe(20 * 365 * DAY_MS);
    expect(await lifeOf(Number.MAX_SAFE_INTEGER)).toBe(20 * 365 * DAY_MS);
    const nearEndMs = NOW_MS + 20 * 365 * DAY_MS - 5000;
    expect(await lifeOf(HOUR_MS, nearEndMs)).toBe(5000);
    for (const lifetimeMs of [HOUR_MS - 1, 0, -1, Number.NaN]) {
      expect(await refusal(() => lifeOf(lifetimeMs))).toBe("invalid_argument: lifetime: must be one hour or more");
    }
    expect(await refusal(() => lifeOf(HOUR_MS, nearEndMs + 6000))).toBe(
      "failed_precondition: the authority CN=swarm-ca expired on 2045-12-27T00:00:00Z",
    );
    expect(await refusal(() => lifeOf(HOUR_MS, NOW_MS - 2 * HOUR_MS))).toMatch(
      /CN=swarm-ca is not valid before 2025-12-31T23:00:00Z/,
    );
  });

  test.each([
    ["a node id with a newline", { nodeId: "a\nOU=swarm-manager" }, [], /^invalid_argument: node id: /],
    ["an empty cluster id", { clusterId: "" }, [], /^invalid_argument: cluster id: /],
    ["hosts of a worker", { role: "swarm-worker" }, ["w.example"], /hosts: only a manager's certificate/],
    ["a host called as a role", {}, ["swarm-worker"], /hosts: must not look like a role or a node's id/],
    ["a host called as the CA", {}, ["Swarm-CA"], /hosts: must not look like a role or a node's id/],
    ["a host called as a node", {}, ["a".repeat(25)], /hosts: must not look like a role or a node's id/],
    ["a host that is none", {}, ["a b"], /hosts: must be host names and addresses/],
    ["too many hosts", {}, Array.from({ length: 17 }, (_, index) => `h${index}`), /hosts: must be 16 or fewer/],
    ["a user without a name", { kind: "user", name: "", role: "swarm-admin" }, [], /name: must be 1 to 63/],
    ["a user with a comma", { kind: "user", name: "a,OU=b", role: "swarm-admin" }, [], /name: must be 1 to 63/],
    [
      "no stacks at all",
      { kind: "user", name: "ci", role: "swarm-admin", stackPrefixes: [] },
      [],
      /stack prefixes: must be 1 to 16/,
    ],
    [
      "stacks of any name",
      { kind: "user", name: "ci", role: "swarm-admin", stackPrefixes: [""] },
      [],
      /stack prefixes: must be beginnings/,
    ],
  ])("is not made for %s", async (_, change, hosts, problem) => {
    const subject = { ...pki.node("swarm-manager"), ...change } as ReturnType<ClusterPki["node"]>;
    expect(await refusal(() => pki.join(subject, { hosts }))).toMatch(problem);
  });
});

describe("a cross-signed root", () => {
  test("lets those who know the old root believe the new one", async () => {
    const next = await ClusterPki.open(NOW_MS + DAY_MS);
    const options = { nowMs: NOW_MS + DAY_MS, entropy: systemEntropy };
    const crossSigned = await crossSign(pki.authority, next.authority.root, options);
    const rotating = await ClusterPki.open(options.nowMs, { ...next.files, crossSigned });
    const { chain } = await rotating.join(rotating.node("swarm-manager"));
    const [leaf = "", cross = "", ...more] = chain.split(/(?<=-----END CERTIFICATE-----\n)/);
    expect(more).toEqual([]);
    file("leaf.pem", leaf);
    file("cross.pem", cross);
    file("old.pem", pki.files.certificates);
    file("new.pem", next.files.certificates);
    const at = ["-x509_strict", "-attime", String(options.nowMs / 1000)];
    const verify = (...args: readonly string[]) => openssl("verify", ...at, ...args, "leaf.pem");
    expect(verify("-CAfile", "old.pem", "-untrusted", "cross.pem")).toBe("leaf.pem: OK\n");
    expect(verify("-CAfile", "new.pem", "-untrusted", "cross.pem")).toBe("leaf.pem: OK\n");
    expect(verify("-CAfile", "new.pem")).toBe("leaf.pem: OK\n");
    expect(() => verify("-CAfile", "old.pem")).toThrow(/unable to get local issuer/);
    const certificate = new X509Certificate(cross);
    expect(await pathLengthOf(certificate)).toBe(1);
    expect(certificate.subject).toBe(next.authority.root.subject);
    expect(certificate.validToDate <= pki.authority.root.validToDate).toBe(true);
  });

  test("of somebody else's root is not sent along", async () => {
    const [next, other] = [await ClusterPki.open(NOW_MS), await ClusterPki.open(NOW_MS)];
    const crossSigned = await crossSign(pki.authority, other.authority.root, { nowMs: NOW_MS, entropy: systemEntropy });
    expect(await refusal(() => openAuthority({ ...next.files, crossSigned }, NOW_MS))).toBe(
      "invalid_argument: the cross-signed certificate is not of this CA's root",
    );
  });
});

describe("an authority that people bring", () => {
  const KEYS = {
    rsa: ["genrsa", "-out", "KEY", "2048"],
    p384: ["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "KEY"],
    p521: ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", "KEY"],
    p256: ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "KEY"],
  } as const;

  function makeKey(name: string, kind: keyof typeof KEYS): string {
    openssl(...KEYS[kind].map((word) => (word === "KEY" ? `${name}-key.pem` : word)));
    return `${name}-key.pem`;
  }

  function makeRoot(name: string, kind: keyof typeof KEYS, extensions: readonly string[] = []): void {
    const more = extensions.flatMap((extension) => ["-addext", extension]);
    const subject = `/C=DE/O=Müller & Söhne/CN=${name}/emailAddress=ca@example`;
    openssl(
      "req",
      "-x509",
      "-utf8",
      "-days",
      "9999",
      "-subj",
      subject,
      "-key",
      makeKey(name, kind),
      "-out",
      `${name}.pem`,
      ...more,
    );
  }

  function makeIntermediate(name: string, issuer: string, extensions: string): void {
    openssl("req", "-new", "-subj", `/CN=${name}`, "-key", makeKey(name, "p256"), "-out", `${name}.csr`);
    const by = ["-CA", `${issuer}.pem`, "-CAkey", `${issuer}-key.pem`, "-CAcreateserial", "-days", "999"];
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-out",
      `${name}.pem`,
      ...by,
      "-extfile",
      file(`${name}.ext`, extensions),
    );
  }

  // OpenSSL makes them by the machine's clock, and while the test runs.
  const nowMs = Date.now() + HOUR_MS / 2;

  test.each(["rsa", "p384", "p521", "p256"] as const)("a root with a key of the kind %s signs", async (kind) => {
    makeRoot(`root-${kind}`, kind);
    const files = { certificates: read(`root-${kind}.pem`), key: read(`root-${kind}-key.pem`) };
    const theirs = await ClusterPki.open(nowMs, files);
    const { chain } = await theirs.join(theirs.node("swarm-manager"));
    const args = ["-CAfile", `root-${kind}.pem`, file("leaf.pem", chain)];
    expect(openssl("verify", ...args)).toBe("leaf.pem: OK\n");
    // Names and key ids are those of the certificate, as it spells them.
    expect(theirs.authority.root.subject).toContain("CN=root-");
  });

  test("an intermediate below their root signs, and is sent along; of a root with no room it signs no other root", async () => {
    makeRoot("top", "rsa", ["basicConstraints=critical,CA:TRUE,pathlen:1", "keyUsage=critical,keyCertSign"]);
    makeIntermediate("middle", "top", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n");
    const files = { certificates: read("middle.pem") + read("top.pem"), key: read("middle-key.pem") };
    const theirs = await ClusterPki.open(nowMs, files);
    const { chain, trust } = await theirs.join(theirs.node("swarm-worker"));
    expect(chain.match(/BEGIN/g)).toHaveLength(2);
    expect(trust).toBe(new X509Certificate(read("top.pem")).toString());
    expect(openssl("verify", "-CAfile", "top.pem", "-untrusted", "middle.pem", file("leaf.pem", chain))).toBe(
      "leaf.pem: OK\n",
    );
    const own = await ClusterPki.open(nowMs);
    expect(
      await refusal(() => crossSign(theirs.authority, own.authority.root, { nowMs, entropy: systemEntropy })),
    ).toBe("failed_precondition: the authority CN=middle may sign no other authority (path length)");
    expect(await refusal(() => openAuthority({ ...files, certificates: read("middle.pem") }, nowMs))).toMatch(
      /^invalid_argument: the chain of CA certificates ends with CN=middle, which is not self-signed: add its root$/,
    );
    expect(
      await refusal(() => openAuthority({ ...files, certificates: read("top.pem") + read("middle.pem") }, nowMs)),
    ).toBe("invalid_argument: the CA key does not belong to the first CA certificate");
    const twisted = toCertificatesPem([own.authority.root]) + read("top.pem");
    expect(await refusal(() => openAuthority({ certificates: twisted, key: own.files.key }, nowMs))).toMatch(
      /the CA certificate CN=swarm-ca was not signed by the one after it, emailAddress=/,
    );
    makeIntermediate("below", "middle", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
    const long = { certificates: read("below.pem") + files.certificates, key: read("below-key.pem") };
    expect(await refusal(() => openAuthority(long, nowMs))).toBe(
      "invalid_argument: the chain of CA certificates is longer than its root allows",
    );
  });

  test("one that may not sign, or no longer, or not yet, is refused with the reason", async () => {
    makeRoot("noca", "p256", ["basicConstraints=critical,CA:FALSE"]);
    const open = (name: string, ms = nowMs) =>
      refusal(() => openAuthority({ certificates: read(`${name}.pem`), key: read(`${name}-key.pem`) }, ms));
    expect(await open("noca")).toMatch(/the certificate .*CN=noca.* is no authority's \(CA:TRUE\)$/);
    makeRoot("plain", "p256");
    expect(await open("plain")).toBe("accepted");
    expect(await open("plain", nowMs + 1e12)).toMatch(
      /^invalid_argument: the authority .*CN=plain.* expired on 20\d\d-/,
    );
    expect(await open("plain", nowMs - 1e12)).toMatch(/CN=plain.* is not valid before .*; this machine's clock says /);
    expect(
      await refusal(() =>
        openAuthority({ certificates: read("plain.pem").repeat(2), key: read("plain-key.pem") }, nowMs),
      ),
    ).toBe("invalid_argument: the CA certificates are the same ones again");
    expect(await refusal(() => openAuthority({ certificates: "hello", key: read("plain-key.pem") }, nowMs))).toBe(
      "invalid_argument: the CA certificate holds no certificate in PEM form",
    );
    expect(await refusal(() => openAuthority({ certificates: read("plain-key.pem"), key: "" }, nowMs))).toBe(
      "invalid_argument: the CA certificate holds a private key, not a certificate",
    );
    const damaged = read("plain.pem").replace(/\n(.{20})/, "\nAAAA");
    expect(await refusal(() => openAuthority({ certificates: damaged, key: read("plain-key.pem") }, nowMs))).toMatch(
      /^invalid_argument: the CA certificate holds a damaged certificate \(/,
    );
  });
});

describe("keys", () => {
  test("go to PEM and back", async () => {
    const pem = exportPrivateKey(await generateKeyPair());
    expect(pem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(exportPrivateKey(importKeyPair(pem))).toBe(pem);
    expect(exportPrivateKey(importKeyPair(openssl("ec", "-in", file("pk8.pem", pem)).replace(/^read.*\n/, "")))).toBe(
      pem,
    );
  });

  test.each([
    ["RSA", ["genrsa", "2048"], "is RSA of 2048 bits; a node's is ECDSA on P-256"],
    ["P-384", ["ecparam", "-name", "secp384r1", "-genkey", "-noout"], "is ECDSA on P-384; a node's is ECDSA on P-256"],
    ["secp256k1", ["ecparam", "-name", "secp256k1", "-genkey", "-noout"], "is ECDSA on secp256k1; a node's is"],
    ["Ed25519", ["genpkey", "-algorithm", "ed25519"], "is of the type ed25519; a node's is ECDSA on P-256"],
  ])("of the kind %s are no node's", async (_, command, problem) => {
    expect(await refusal(() => importKeyPair(openssl(...command), "the key"))).toContain(
      `invalid_argument: the key ${problem}`,
    );
  });

  test.each([
    ["short RSA", ["genrsa", "1024"], /is RSA of 1024 bits; an authority's is RSA of 2048 to 8192 bits or ECDSA/],
    ["RSA-PSS", ["genpkey", "-algorithm", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], /an authority's is/],
    ["Ed25519", ["genpkey", "-algorithm", "ed25519"], /is of the type ed25519; an authority's is/],
  ])("of the kind %s are no authority's", async (_, command, problem) => {
    expect(await refusal(() => importSigningKey(openssl(...command), "the CA key"))).toMatch(problem);
  });

  test("that are none are refused without what they held", async () => {
    const pem = exportPrivateKey(await generateKeyPair());
    const encrypted = openssl(
      "pkcs8",
      "-topk8",
      "-in",
      file("k.pem", pem),
      "-passout",
      "pass:hunter2",
      "-v2",
      "aes256",
    );
    expect(await refusal(() => importKeyPair(encrypted))).toMatch(/the key is encrypted, and nobody is there to ask/);
    expect(await refusal(() => importKeyPair("hunter2"))).toBe(
      "invalid_argument: the key is no private key in PEM form",
    );
    expect(await refusal(() => importKeyPair(pki.files.certificates))).toMatch(/the key is a certificate, not a key$/);
    expect(await refusal(() => importKeyPair("x".repeat(100_000)))).toMatch(/the key is larger than 32768 bytes$/);
    const damaged = pem.replace(/\n.{10}/, "\n");
    expect(await refusal(() => importKeyPair(damaged))).toMatch(/^invalid_argument: the key is damaged \(/);
    expect(await refusal(() => importKeyPair(damaged))).not.toContain(pem.slice(50, 70));
  });
});
