/** Goal: whatever is read, it is understood or refused with a reason. Method: properties over damaged PEM and DER, for every reader. */
import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { ClusterPki, type Member } from "../../test/cluster-pki.ts";
import { SwarmError } from "../base/error.ts";
import { systemEntropy } from "../base/random.ts";
import { openAuthority } from "./certificate-authority.ts";
import { createCertificateRequest, readCertificateRequest } from "./certificate-request.ts";
import { readCertificates } from "./certificates.ts";
import { generateKeyPair, importKeyPair, importSigningKey } from "./key-pair.ts";
import { pemBlocks, toPem } from "./pem.ts";
import { unseal } from "./sealed-key.ts";
import { readTrustBundle } from "./trust-bundle.ts";
import { newUnlockKey } from "./unlock-key.ts";
import { verifyChain } from "./verify-chain.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const NUM_RUNS = 400;
let pki: ClusterPki;
let member: Member;
let request: string;

beforeAll(async () => {
  pki = await ClusterPki.open(NOW_MS);
  member = await pki.join(pki.node("swarm-manager"), { hosts: ["m.example", "10.0.0.1"] });
  request = await createCertificateRequest(await generateKeyPair());
});

/** PEM that was changed: in a byte or a few of the DER, or in its text. */
function damaged(pem: string): fc.Arbitrary<string> {
  const [{ label, der } = { label: "", der: Buffer.of() }] = pemBlocks(pem);
  const place = fc.nat(der.length - 1);
  const inDer = fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 3 }).map((changes) => {
    const bytes = Buffer.from(der);
    for (const [at, value] of changes) bytes[at] = value;
    return toPem(label, bytes);
  });
  const cut = fc
    .tuple(place, place)
    .map(([from, to]) => toPem(label, Buffer.concat([der.subarray(0, from), der.subarray(to)])));
  const inText = fc
    .tuple(fc.nat(pem.length), fc.nat(40), fc.string({ maxLength: 5, unit: "binary" }))
    .map(([at, length, put]) => pem.slice(0, at) + put + pem.slice(at + length));
  return fc.oneof(inDer, cut, inText);
}

/** Fails unless `work` does, or is refused by a SwarmError of one of the codes. */
async function understoodOrRefused(
  work: () => unknown,
  codes: readonly string[] = ["invalid_argument"],
): Promise<void> {
  try {
    await work();
  } catch (reason) {
    expect(reason).toBeInstanceOf(SwarmError);
    expect(codes).toContain(SwarmError.from(reason).code);
  }
}

test("keys", async () => {
  await fc.assert(
    fc.asyncProperty(damaged(member.key), async (pem) => {
      await understoodOrRefused(() => importKeyPair(pem));
      await understoodOrRefused(() => importSigningKey(pem, "the CA key"));
      await understoodOrRefused(() => openAuthority({ ...pki.files, key: pem }, NOW_MS));
    }),
    { numRuns: NUM_RUNS },
  );
});

test("roots", async () => {
  await fc.assert(
    fc.asyncProperty(damaged(pki.files.certificates), async (pem) => {
      await understoodOrRefused(() => readTrustBundle(pem));
      await understoodOrRefused(() => openAuthority({ ...pki.files, certificates: pem }, NOW_MS));
      await understoodOrRefused(() => openAuthority({ ...pki.files, crossSigned: pem }, NOW_MS));
    }),
    { numRuns: NUM_RUNS },
  );
});

test("requests", async () => {
  const any = fc.oneof(damaged(request), fc.string({ unit: "binary" }));
  await fc.assert(
    fc.asyncProperty(any, (pem) => understoodOrRefused(() => readCertificateRequest(pem))),
    { numRuns: NUM_RUNS },
  );
});

test("certificates: a changed one is never believed", async () => {
  await fc.assert(
    fc.asyncProperty(damaged(member.chain), async (pem) => {
      await understoodOrRefused(async () => {
        const chain = readCertificates(pem, "it");
        const verdict = await verifyChain(chain, [pki.authority.root], {
          nowMs: NOW_MS,
          usage: "server",
          clusterId: pki.clusterId,
        });
        const isSame = chain[0].raw.equals(member.certificate.raw);
        // Its outermost bytes aside, which are not signed.
        if (verdict.ok && !isSame)
          expect(verdict.identity).toMatchObject({ role: "swarm-manager", clusterId: pki.clusterId });
        if (!verdict.ok) expect(verdict.message).toMatch(/^the certificate /);
      });
    }),
    { numRuns: NUM_RUNS },
  );
  expect(new X509Certificate(member.chain).raw.equals(member.certificate.raw)).toBe(true);
});

test("sealed keys", async () => {
  const key = newUnlockKey(systemEntropy);
  const codes = ["unimplemented", "permission_denied", "data_loss"];
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ maxLength: 200 }).map((rest) => Uint8Array.of(1, 1, ...rest)),
  );
  await fc.assert(
    fc.asyncProperty(bytes, (sealed) =>
      understoodOrRefused(() => unseal(sealed, { type: "unlock-key", key }, { purpose: "node key" }), codes),
    ),
    { numRuns: NUM_RUNS },
  );
});
