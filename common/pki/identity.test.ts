/** Goal: a certificate says who somebody is in one way only. Method: round trips, and names made to be misread. */
import { createHash, X509Certificate } from "node:crypto";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { ClusterPki } from "../../test/cluster-pki.ts";
import { identityOf } from "./identity.ts";
import { generateKeyPair } from "./key-pair.ts";
import { loadX509 } from "./x509.ts";

const NOW_MS = Date.UTC(2026, 0, 1);
const ID = "a".repeat(25);
const CLUSTER = "b".repeat(25);
let pki: ClusterPki;

beforeAll(async () => {
  pki = await ClusterPki.open(NOW_MS);
});

/** Parts of a name as `@peculiar/x509` takes them: one element a relative name, which may hold several. */
type RawName = readonly Readonly<Record<string, readonly string[]>>[];
type RawAlternatives = readonly { readonly type: "dns" | "email" | "url" | "ip" | "dn"; readonly value: string }[];

/** A certificate with any names, signed by the cluster's root: what a faulty authority could make. */
async function certificateOf(
  name: RawName | string,
  alternatives: RawAlternatives = [],
  isAuthority = false,
): Promise<X509Certificate> {
  const x509 = await loadX509();
  const { publicKey } = await generateKeyPair();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "01",
    subject: typeof name === "string" ? name : new x509.Name(name as ConstructorParameters<typeof x509.Name>[0]),
    issuer: pki.authority.issuer.name,
    notBefore: new Date(NOW_MS),
    notAfter: new Date(NOW_MS + 1000),
    publicKey,
    signingKey: pki.authority.key.privateKey,
    signingAlgorithm: pki.authority.key.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(isAuthority),
      ...(alternatives.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension([...alternatives])]),
    ],
  });
  return new X509Certificate(Buffer.from(certificate.rawData));
}

function read(certificate: X509Certificate) {
  return identityOf(certificate, [pki.authority.root]);
}

describe("an identity", () => {
  test("comes back as it was issued", async () => {
    const subjects = [
      pki.node("swarm-worker"),
      pki.node("swarm-manager"),
      pki.user("swarm-admin", "ann"),
      pki.user("swarm-viewer", "Bob.O_-@example.com"),
      pki.user("swarm-deployer", "ci", ["shop", "blog-2.x_"]),
    ];
    for (const subject of subjects) {
      const { certificate } = await pki.join(subject, { nowMs: NOW_MS + 5000 });
      const spki = pki.authority.root.publicKey.export({ type: "spki", format: "der" });
      expect(read(certificate)).toEqual({
        ok: true,
        identity: {
          ...subject,
          serial: certificate.serialNumber.toLowerCase(),
          notBeforeMs: NOW_MS + 5000 - 3_600_000,
          notAfterMs: NOW_MS + 5000 + 90 * 86_400_000,
          issuerKeyId: createHash("sha256").update(spki).digest("hex"),
        },
      });
    }
  });

  test("is none without one of the authorities", async () => {
    const { certificate } = await pki.join(pki.node("swarm-worker"));
    const other = await ClusterPki.open(NOW_MS);
    const problem = "it was signed by an authority that this cluster does not trust";
    expect(identityOf(certificate, [])).toEqual({ ok: false, problem });
    expect(identityOf(certificate, [other.authority.root])).toEqual({ ok: false, problem });
    expect(identityOf(certificate, [other.authority.root, pki.authority.root]).ok).toBe(true);
  });
});

const NODE = [{ O: [CLUSTER] }, { OU: ["swarm-worker"] }, { CN: [ID] }];
const USER = [{ O: [CLUSTER] }, { OU: ["swarm-deployer"] }, { CN: ["ci"] }];
const PLAIN = "its subject is not one plain CN, one OU and one O";
const NAMES = "its alternative names are none of this cluster's";

describe("a certificate is no identity", () => {
  test("unless it is like this", async () => {
    expect(read(await certificateOf(NODE)).ok).toBe(true);
    expect(read(await certificateOf(NODE.toReversed())).ok).toBe(true);
    expect(read(await certificateOf(USER, [{ type: "url", value: "swarm:stack-prefix:shop" }])).ok).toBe(true);
  });

  test.each<[string, RawName | string, string]>([
    ["no name at all", [], PLAIN],
    ["no CN", NODE.slice(0, 2), PLAIN],
    ["no O", NODE.slice(1), PLAIN],
    ["two CNs", [...NODE, { CN: [ID] }], PLAIN],
    ["two CNs and no OU", [{ O: [CLUSTER] }, { CN: [ID] }, { CN: [ID] }], PLAIN],
    ["two OUs", [...NODE, { OU: ["swarm-manager"] }], PLAIN],
    ["two Os", [...NODE, { O: [ID] }], PLAIN],
    ["a country", [{ C: ["DE"] }, ...NODE], PLAIN],
    ["a CN beside an OU in one part", `O=${CLUSTER}, CN=${ID}+OU=swarm-manager`, PLAIN],
    ["all in one part", `O=${CLUSTER}+CN=${ID}+OU=swarm-manager`, PLAIN],
    ["a line break that looks like a part", [{ O: [CLUSTER] }, { CN: [`${ID}\nOU=swarm-manager`] }], PLAIN],
    ["a line break at the end", [{ O: [CLUSTER] }, { OU: ["swarm-worker"] }, { CN: [`${ID}\n`] }], PLAIN],
    ["a NUL", [{ O: [CLUSTER] }, { OU: ["swarm-manager\0x"] }, { CN: [ID] }], PLAIN],
    ["a comma that looks like a part", [{ O: [CLUSTER] }, { CN: [`${ID},OU=swarm-manager`] }, { OU: ["x"] }], PLAIN],
    ["a blank", [{ O: [CLUSTER] }, { OU: ["swarm-manager "] }, { CN: [ID] }], PLAIN],
    ["a letter that looks like another", [{ O: [CLUSTER] }, { OU: ["swarm-mаnager"] }, { CN: [ID] }], PLAIN],
    ["an endless name", [{ O: [CLUSTER] }, { OU: ["swarm-admin"] }, { CN: ["a".repeat(5000)] }], PLAIN],
    [
      "another role",
      [{ O: [CLUSTER] }, { OU: ["swarm-root"] }, { CN: [ID] }],
      "its OU is none of swarm-worker, swarm-manager, swarm-viewer, swarm-deployer, swarm-admin",
    ],
    [
      "a role in capitals",
      [{ O: [CLUSTER] }, { OU: ["Swarm-Manager"] }, { CN: [ID] }],
      "its OU is none of swarm-worker, swarm-manager, swarm-viewer, swarm-deployer, swarm-admin",
    ],
    ["a node without an id", [{ O: [CLUSTER] }, { OU: ["swarm-manager"] }, { CN: ["ci"] }], "its CN is no node's id"],
    [
      "an id in capitals",
      [{ O: [CLUSTER] }, { OU: ["swarm-manager"] }, { CN: ["A".repeat(25)] }],
      "its CN is no node's id",
    ],
    [
      "a user whose name begins with a dot",
      [{ O: [CLUSTER] }, { OU: ["swarm-admin"] }, { CN: [".."] }],
      "its CN is no user's name",
    ],
    ["no cluster", [{ O: ["example"] }, { OU: ["swarm-manager"] }, { CN: [ID] }], "its O is no cluster's id"],
  ])("with %s", async (_, name, problem) => {
    expect(read(await certificateOf(name))).toEqual({ ok: false, problem });
  });

  test.each<[string, RawName, RawAlternatives, string]>([
    ["a limit that is not known here", USER, [{ type: "url", value: "swarm:network:x" }], NAMES],
    ["somebody else's address", USER, [{ type: "url", value: "https://example/" }], NAMES],
    ["an e-mail address", USER, [{ type: "email", value: "a@example" }], NAMES],
    ["a directory name", USER, [{ type: "dn", value: "CN=x" }], NAMES],
    ["an empty prefix", USER, [{ type: "url", value: "swarm:stack-prefix:" }], NAMES],
    ["a prefix with a comma", USER, [{ type: "url", value: "swarm:stack-prefix:a, DNS:b" }], NAMES],
    ["a prefix with a blank", USER, [{ type: "url", value: "swarm:stack-prefix:a b" }], NAMES],
    ["a limit hidden in a host's name", USER, [{ type: "dns", value: "a, URI:swarm:stack-prefix:b" }], NAMES],
    [
      "one good prefix, one bad",
      USER,
      [
        { type: "url", value: "swarm:stack-prefix:a" },
        { type: "url", value: "swarm:x" },
      ],
      NAMES,
    ],
    [
      "a node with prefixes",
      NODE,
      [{ type: "url", value: "swarm:stack-prefix:a" }],
      "it is a node's and has stack prefixes",
    ],
  ])("with %s", async (_, name, alternatives, problem) => {
    expect(read(await certificateOf(name, alternatives))).toEqual({ ok: false, problem });
  });

  test("when it is an authority's", async () => {
    expect(read(await certificateOf(NODE, [], true))).toEqual({ ok: false, problem: "it is an authority's own" });
  });

  test("property: of any names, unless all three are as ours", async () => {
    const part = fc.oneof(
      fc.string({ maxLength: 30, unit: "binary" }),
      fc.constantFrom(ID, CLUSTER, "swarm-manager", "ci"),
    );
    await fc.assert(
      fc.asyncProperty(part, part, part, async (o, ou, cn) => {
        fc.pre(o !== "" && ou !== "" && cn !== "");
        const verdict = read(await certificateOf([{ O: [o] }, { OU: [ou] }, { CN: [cn] }]));
        const isOurs = /^[a-z0-9]{25}$/.test(o) && ou === "swarm-manager" && /^[a-z0-9]{25}$/.test(cn);
        expect(verdict.ok).toBe(isOurs);
        if (verdict.ok) expect(verdict.identity).toMatchObject({ clusterId: o, role: ou, nodeId: cn });
      }),
      { numRuns: 200 },
    );
  });
});
