/**
 * Goal: the cluster's authority is seen and set by Docker's words. Method: the real command dispatcher, wire, API, store and
 * loops; nodes are played.
 */
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, test } from "vitest";
import { rotationLines } from "../../cli/output/rotation-progress.ts";
import { systemClock } from "../../common/base/clock.ts";
import { systemEntropy } from "../../common/base/random.ts";
import { createRoot } from "../../common/pki/certificate-authority.ts";
import { GetCaResponseSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { eventually } from "../eventually.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarm-ca-"));
let plane: ControlPlane;
beforeAll(async () => {
  plane = await startControlPlane({ nodes: 3 });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}
const swarmctl = (...argv: string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });

test("swarm ca prints the root, and nothing secret leaves", async () => {
  const { code, out, err } = await swarmctl("swarm", "ca");
  expect([code, err]).toEqual([0, ""]);
  expect(new X509Certificate(out)).toMatchObject({ ca: true, subject: "CN=swarm-ca" });
  expect(await swarmctl("swarm", "ca", "x")).toMatchObject({ code: 2 });
  expect((await swarmctl("info", "--format", "json")).out).not.toMatch(/sealed/i);
});

test("certificates live for an hour or more", async () => {
  expect((await swarmctl("info")).out).toMatch(/CA Configuration:\n {2}Expiry Duration: 3 months\n/);
  expect(await swarmctl("swarm", "update", "--cert-expiry", "59m59s")).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: certificate_lifetime: must be at least 1h\n",
  });
  for (const bad of ["-1h", "0", "3"]) {
    expect((await swarmctl("swarm", "update", "--cert-expiry", bad)).code, bad).toBeGreaterThan(0);
  }
  expect((await swarmctl("swarm", "update", "--cert-expiry", "1h")).out).toBe("Swarm updated.\n");
  expect(plane.store.view.cluster?.spec?.certificateLifetime).toMatchObject({ seconds: 3600n });
  expect((await swarmctl("info")).out).toContain("Expiry Duration: About an hour\n");
});

test("swarm ca --rotate waits until every node has followed, in Docker's words, and prints the new root", async () => {
  const before = (await swarmctl("swarm", "ca")).out;
  const { code, out, err } = await swarmctl("swarm", "ca", "--rotate", "--cert-expiry", "2h");
  expect([code, err]).toEqual([0, ""]);
  const after = (await swarmctl("swarm", "ca")).out;
  expect(after).not.toBe(before);
  const digest = createHash("sha256").update(`${after.trim()}\n`).digest("hex");
  expect(out.startsWith(`desired root digest: sha256:${digest}\n`)).toBe(true);
  expect(out).toContain("rotated TLS certificates: 3/3 nodes\n");
  expect(out).toContain("rotated CA certificates: 3/3 nodes\n");
  expect(out.endsWith(after)).toBe(true);
  expect(plane.store.view.cluster?.spec?.certificateLifetime).toMatchObject({ seconds: 7200n });
  expect(plane.store.view.cluster?.ca).toMatchObject({ formerRoots: "", rotations: 1n });
  expect((await swarmctl("info")).out).toContain("  Force Rotate: 1\nRoot Rotation In Progress: false\n");
  expect(await swarmctl("swarm", "ca", "--rotate", "-q")).toEqual({ code: 0, out: "", err: "" });
  expect(await swarmctl("swarm", "ca", "--rotate", "-d")).toEqual({ code: 0, out: "", err: "" });
});

test("it is drawn in place on a terminal, with bars where there is room", async () => {
  const drawn = await runSwarmctl(["swarm", "ca", "--rotate"], {
    environment: { SWARM_HOST: plane.host },
    terminal: true,
  });
  expect(drawn.out).toContain("\u001b[3A\r\u001b[2Kdesired root digest: sha256:");
  expect(drawn.out).toContain("  rotated CA certificates:   3/3 nodes\n");
  const state = { nodes: 4, nodesRenewed: 2, nodesTrusting: 0, root: "", away: ["a", "b"], nodesAway: 12 };
  const lines = rotationLines(create(GetCaResponseSchema, state), 120);
  expect(lines[1]).toBe(`  rotated TLS certificates:  [${"=".repeat(25)}>${" ".repeat(24)}] 2/4 nodes`);
  expect(lines[3]).toBe("waiting for 12 nodes that are down: a, b, and 10 more");
});

test("a node that is down is waited for by name, and an interrupt leaves the rotation going on", async () => {
  const { store, signal } = plane;
  const [node] = [...store.view.nodes.values()].filter(({ description }) => description?.hostname === "node-3");
  if (node === undefined) throw new Error("no such node");
  const session = store.view.sessions.get(node.id);
  if (session === undefined) throw new Error("no session");
  await store.commit([{ type: "delete", kind: "session", id: node.id }], { signal });
  const stop = new AbortController();
  const { code, out, err } = await runSwarmctl(["swarm", "ca", "--rotate"], {
    environment: { SWARM_HOST: plane.host },
    signal: stop.signal,
    onOut: (text) => {
      if (text.includes("certificates: 2/3") && text.includes("waiting for 1 node that is down: node-3\n"))
        stop.abort();
    },
  });
  expect(code).toBe(130);
  expect(out).not.toContain("BEGIN CERTIFICATE");
  expect(err).toMatch(/^Operation continuing in background/);
  const status = ["node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"];
  expect((await swarmctl(...status)).out).toBe("node-1 Ready\nnode-2 Ready\nnode-3 Needs Rotation\n");
  expect((await swarmctl("info")).out).toContain("Root Rotation In Progress: true\n");
  await store.commit([{ type: "create", kind: "session", object: session }], { signal });
  await eventually(async () => expect((await swarmctl("info")).out).toContain("In Progress: false\n"));
  await eventually(async () => expect((await swarmctl(...status)).out).toContain("node-3 Ready\n"));
});

test("node inspect tells the certificate's end and whose it is", async () => {
  const root = new X509Certificate((await swarmctl("swarm", "ca")).out);
  const { out } = await swarmctl("node", "inspect", "node-1");
  const [node] = JSON.parse(out) as readonly { readonly Description: { readonly TLSInfo: Record<string, string> } }[];
  expect(node).toMatchObject({ CertificateExpiresAt: "2030-03-17T17:46:40.000000000Z" });
  expect(node?.Description.TLSInfo).toEqual({
    TrustRoot: root.toString(),
    // As Docker shows its own.
    CertIssuerSubject: "MBMxETAPBgNVBAMTCHN3YXJtLWNh",
    CertIssuerPublicKey: root.publicKey.export({ type: "spki", format: "der" }).toString("base64"),
  });
  const pretty = (await swarmctl("node", "inspect", "--pretty", "node-1")).out;
  expect(pretty).toMatch(
    /TLS Info:\n Status:\s+Ready\n Certificate expires:\s+2030-03-17T17:46:40.000000000Z\n Issuer:\s+CN=swarm-ca\n/,
  );
  expect(pretty).toContain(` TrustRoot:\n${root.toString()}\n Issuer Subject:`);
});

test("an authority of one's own comes by files, and bad ones are told", async () => {
  const { certificates, key } = await createRoot({ nowMs: systemClock.nowMs(), entropy: systemEntropy });
  const other = await createRoot({ nowMs: systemClock.nowMs(), entropy: systemEntropy });
  const [cert, keyFile, otherKey] = [file("ca.pem", certificates), file("key.pem", key), file("other.pem", other.key)];
  const rotate = (...argv: string[]) => swarmctl("swarm", "ca", "--rotate", ...argv);
  const told = async (...argv: string[]) => (await rotate(...argv)).err;
  expect(await told("--ca-cert", cert, "--ca-key", otherKey)).toMatch(
    /the CA key does not belong to the first CA certificate/,
  );
  expect(await told("--ca-cert", keyFile, "--ca-key", keyFile)).toMatch(/holds a private key, not a certificate/);
  expect(await rotate("--ca-cert", cert)).toMatchObject({
    code: 2,
    err: expect.stringContaining("--ca-cert requires --ca-key"),
  });
  expect(await rotate("--ca-key", keyFile)).toMatchObject({ code: 2 });
  expect(await told("--external-ca", "protocol=cfssl,url=https://ca")).toMatch(
    /not by a CFSSL service.*--ca-cert FILE/,
  );
  expect(await told("--cert-expiry", "1m")).toBe("swarmctl: certificate_lifetime: must be at least 1h\n");
  expect(await swarmctl("swarm", "ca", "--ca-cert", cert)).toEqual({
    code: 2,
    out: "",
    err: expect.stringContaining("--ca-cert requires the --rotate flag to update the CA"),
  });
  expect(await rotate("--ca-cert", cert, "--ca-key", keyFile, "-q")).toMatchObject({ code: 0 });
  expect((await swarmctl("swarm", "ca")).out).toBe(certificates);
  expect(await told("--ca-cert", cert, "--ca-key", keyFile)).toBe("swarmctl: the cluster's CA is that one already\n");
});
