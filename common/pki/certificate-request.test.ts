/** Goal: only who has the key gets a certificate for it, and decides nothing else. Method: OpenSSL on the other side, and damage. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { ClusterPki } from "../../test/cluster-pki.ts";
import { SwarmError } from "../base/error.ts";
import { systemEntropy } from "../base/random.ts";
import { issueCertificate } from "./certificate-authority.ts";
import { createCertificateRequest, readCertificateRequest } from "./certificate-request.ts";
import { identityOf } from "./identity.ts";
import { exportPrivateKey, generateKeyPair } from "./key-pair.ts";
import { pemBlocks, toPem } from "./pem.ts";

const folder = mkdtempSync(join(tmpdir(), "swarm-csr-"));
afterAll(() => rmSync(folder, { recursive: true }));

function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** A request by OpenSSL, with a new key. */
function requestOf(key: readonly string[], ...args: readonly string[]): string {
  openssl(
    "req",
    "-new",
    "-nodes",
    "-newkey",
    ...key,
    "-keyout",
    "key.pem",
    "-out",
    "request.pem",
    "-subj",
    "/CN=x",
    ...args,
  );
  return readFileSync(join(folder, "request.pem"), "utf8");
}

async function refusal(pem: string): Promise<string> {
  try {
    await readCertificateRequest(pem);
    return "accepted";
  } catch (reason) {
    expect(reason).toBeInstanceOf(SwarmError);
    expect(SwarmError.from(reason).code).toBe("invalid_argument");
    return SwarmError.from(reason).message.replace("invalid certificate request: ", "");
  }
}

const P256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] as const;

test("OpenSSL verifies ours; it holds a key and no name", async () => {
  const keys = await generateKeyPair();
  const pem = await createCertificateRequest(keys);
  writeFileSync(join(folder, "ours.pem"), pem);
  expect(openssl("req", "-verify", "-noout", "-subject", "-in", "ours.pem")).toMatch(/^subject=\n$/);
  writeFileSync(join(folder, "ours-key.pem"), exportPrivateKey(keys));
  const ofKey = openssl("pkey", "-pubout", "-in", "ours-key.pem");
  expect(openssl("req", "-noout", "-pubkey", "-in", "ours.pem")).toBe(ofKey);
  expect(toPem("PUBLIC KEY", (await readCertificateRequest(pem)).publicKey)).toBe(ofKey);
});

test("what a request says of names and rights is not heard", async () => {
  const pki = await ClusterPki.open(Date.UTC(2026, 0, 1));
  const wishes = ["-addext", "subjectAltName=DNS:swarm-manager", "-addext", "basicConstraints=critical,CA:TRUE"];
  const pem = requestOf(
    P256,
    "-subj",
    "/O=x/OU=swarm-manager/CN=y",
    ...wishes,
    "-addext",
    "extendedKeyUsage=serverAuth",
  );
  const subject = pki.node("swarm-worker");
  const options = { nowMs: pki.nowMs, entropy: systemEntropy };
  const { certificate } = await issueCertificate(pki.authority, subject, await readCertificateRequest(pem), options);
  expect(identityOf(certificate, [pki.authority.root])).toMatchObject({ ok: true, identity: subject });
  expect(certificate.ca).toBe(false);
  expect(certificate.subjectAltName).toBe(`DNS:${subject.nodeId}, DNS:swarm-worker`);
  expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
});

test.each([
  ["RSA", ["rsa:2048"], "its key is RSA of 2048 bits; a node's is ECDSA on P-256"],
  ["P-384", ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], "its key is ECDSA on P-384; a node's is ECDSA on P-256"],
  ["Ed25519", ["ed25519"], "its key is of the type ed25519; a node's is ECDSA on P-256"],
])("a key of the kind %s is refused", async (_, key, problem) => {
  expect(await refusal(requestOf(key))).toBe(problem);
});

test("hashes that can be forged are refused, others are not", async () => {
  expect(await refusal(requestOf(P256, "-sha1"))).toBe("its signature is not by its own key");
  for (const hash of ["-sha256", "-sha384", "-sha512"]) expect(await refusal(requestOf(P256, hash))).toBe("accepted");
});

test("another's key is refused: the signature is not by it", async () => {
  const [own, other] = [
    await createCertificateRequest(await generateKeyPair()),
    await createCertificateRequest(await generateKeyPair()),
  ];
  const der = Buffer.from(pemBlocks(own)[0]?.der ?? []);
  const { publicKey } = await readCertificateRequest(own);
  const at = der.indexOf(publicKey);
  expect(at).toBeGreaterThan(0);
  (await readCertificateRequest(other)).publicKey.copy(der, at);
  expect(await refusal(toPem("CERTIFICATE REQUEST", der))).toBe("its signature is not by its own key");
});

test.each([
  ["", "it is not one block of PEM"],
  ["hello", "it is not one block of PEM"],
  [toPem("CERTIFICATE", Buffer.of(48, 0)), "it is not one block of PEM"],
  [toPem("CERTIFICATE REQUEST", Buffer.of(48, 0)).repeat(2), "it is not one block of PEM"],
  ["x".repeat(5000), "it is larger than 4096 bytes"],
])("refuses %j", async (pem, problem) => {
  expect(await refusal(pem)).toBe(problem);
});

test("deep and endless DER is refused, and soon", async () => {
  const nested = Buffer.concat(Array.from({ length: 560 }, () => Buffer.of(0x30, 0x84, 0x7f, 0xff, 0xff)));
  for (const der of [Buffer.of(), Buffer.of(0x30, 0x80), Buffer.alloc(2800, 0x30), Buffer.alloc(2800, 0x80), nested]) {
    expect(await refusal(toPem("CERTIFICATE REQUEST", der))).toMatch(/^it is (damaged|not one block)/);
  }
});

test("property: a request with any byte changed is refused, or still for the same key", async () => {
  const pem = await createCertificateRequest(await generateKeyPair());
  const der = pemBlocks(pem)[0]?.der ?? Buffer.of();
  const { publicKey } = await readCertificateRequest(pem);
  await fc.assert(
    fc.asyncProperty(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), async (at, bits) => {
      const changed = Buffer.from(der);
      changed[at] = (changed[at] ?? 0) ^ bits;
      const request = toPem("CERTIFICATE REQUEST", changed);
      // The library forgives some lengths that do not matter.
      if ((await refusal(request)) === "accepted")
        expect((await readCertificateRequest(request)).publicKey).toEqual(publicKey);
    }),
    { numRuns: 1000 },
  );
});
