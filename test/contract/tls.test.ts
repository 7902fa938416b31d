/**
 * swarmctl over TLS. Goal: it reaches a manager on a TCP address with certificates, and says which file, name or date is
 * wrong when it cannot (hardening §5, cases 60 and 61). Method: certificates by openssl, the real dispatcher, wire and API.
 */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MutualTls } from "../../common/rpc/tls.ts";
import { CertificateAuthority } from "../certificates.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-tls-"));
const ours = new CertificateAuthority(folder, "our-ca");
const theirs = new CertificateAuthority(folder, "their-ca");
const server = ours.issue({ name: "manager", subjectAltName: "DNS:manager.example,IP:127.0.0.1" });
const client = ours.issue({ name: "alice", extendedKeyUsage: "clientAuth" });
const stranger = theirs.issue({ name: "mallory" });
const home = join(folder, "home");

let plane: ControlPlane;
let tls: MutualTls;
let address = "";

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  tls = new MutualTls(ours.pem(server));
  address = await plane.serveTls(tls);
  mkdirSync(join(home, ".swarm"), { recursive: true });
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** `node ls` at `host` with these files. */
function ask(
  files: { ca?: string; certificate?: string; key?: string },
  options: { host?: string; flags?: readonly string[]; environment?: Record<string, string> } = {},
) {
  const { ca, certificate, key } = files;
  const argv = [
    "-H",
    `tcp://${options.host ?? address}`,
    ...(options.flags ?? ["--tlsverify"]),
    ...(ca === undefined ? [] : ["--tlscacert", ca]),
    ...(certificate === undefined ? [] : ["--tlscert", certificate]),
    ...(key === undefined ? [] : ["--tlskey", key]),
    "node",
    "ls",
    "--format",
    "{{.Hostname}}",
  ];
  return runSwarmctl(argv, { environment: { HOME: home, ...options.environment } });
}

const good = { ca: ours.file, ...client };
const reached = { code: 0, out: "node-1\n", err: "" };

describe("the way it is meant", () => {
  test("with files named, and with files at their places", async () => {
    expect(await ask(good)).toEqual(reached);
    const places = join(folder, "certs");
    mkdirSync(places);
    copyFileSync(ours.file, join(places, "ca.pem"));
    copyFileSync(client.certificate, join(places, "cert.pem"));
    copyFileSync(client.key, join(places, "key.pem"));
    const environment = { SWARM_CERT_PATH: places, SWARM_TLS_VERIFY: "1" };
    expect(await ask({}, { flags: [], environment })).toEqual(reached);
  });

  test("--tls alone does not look who answers, as with Docker", async () => {
    expect(await ask({ ca: theirs.file, ...client }, { flags: ["--tls"] })).toEqual(reached);
  });

  test("a renewed certificate counts for new connections", async () => {
    const own = new MutualTls(ours.pem(server));
    const host = await plane.serveTls(own);
    const theirOwn = { ca: theirs.file, ...stranger };
    expect(await ask(theirOwn, { host })).toMatchObject({ code: 1 });
    own.renew(theirs.pem(theirs.issue({ name: "renewed", subjectAltName: "IP:127.0.0.1" })));
    expect(await ask(theirOwn, { host })).toEqual(reached);
  });
});

describe("60 certificates that do not fit together", () => {
  const expired = ours.issue({ name: "bob", notAfter: "20240203040506Z" });
  const early = ours.issue({ name: "carol", notBefore: "20470203040506Z" });
  const serverOnly = ours.issue({ name: "dave", extendedKeyUsage: "serverAuth" });
  test.each<[string, Parameters<typeof ask>[0], RegExp]>([
    [
      "wrong CA",
      { ...good, ca: theirs.file },
      /\(the manager's certificate \(CN=manager, issued by CN=our-ca\) is not signed by the CA in \S+\/their-ca\/ca\.pem \(CN=their-ca\) \[/,
    ],
    [
      "expired",
      { ca: ours.file, ...expired },
      /: certificate \S+\/bob\.pem \(CN=bob\): expired on 2024-02-03T04:05:06Z$/,
    ],
    [
      "not yet valid",
      { ca: ours.file, ...early },
      /carol\.pem \(CN=carol\): is not valid before 2047-02-03T04:05:06Z; this/,
    ],
    [
      "another key",
      { ...good, key: stranger.key },
      /key \S+\/mallory-key\.pem does not belong to the certificate \S+\/alice\.pem$/,
    ],
    ["another use", { ca: ours.file, ...serverOnly }, /dave\.pem \(CN=dave\): its extended key usage does not allow/],
    [
      "no client certificate",
      { ca: ours.file },
      /\(the manager demands a client certificate: give --tlscert and --tlskey/,
    ],
    [
      "a stranger's",
      { ca: ours.file, ...stranger },
      /\(the manager refuses the client certificate \S+\/mallory\.pem \(CN=mallory, issued by CN=their-ca\): it is not/,
    ],
  ])("%s", async (_, files, message) => {
    const { code, out, err } = await ask(files);
    expect([code, out]).toEqual([1, ""]);
    expect(err).toMatch(/^swarmctl: [^\n]+\n$/);
    expect(err.trimEnd()).toMatch(message);
    expect(err).not.toContain("Is swarm-manager running?");
  });

  test("a manager by another name; with a certificate that has expired", async () => {
    const other = await plane.serveTls(
      new MutualTls(ours.pem(ours.issue({ name: "else", subjectAltName: "DNS:else.example" }))),
    );
    expect((await ask(good, { host: other })).err).toContain("is for DNS:else.example, not for 127.0.0.1)");
    const old = ours.issue({ name: "old", subjectAltName: "IP:127.0.0.1", notAfter: "20240203040506Z" });
    const stale = await plane.serveTls(new MutualTls(ours.pem(old)));
    expect((await ask(good, { host: stale })).err).toContain("expired on 2024-02-03T04:05:06Z)");
  });

  test("TLS where there is none, none where there is TLS, and options that contradict each other", async () => {
    const plain = createServer((socket) => socket.resume().end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
    const bound = plain.address();
    const host = `127.0.0.1:${typeof bound === "object" ? bound?.port : 0}`;
    expect((await ask(good, { host })).err).toMatch(/does not speak TLS 1\.3 \(\w+\); is it a manager's --api-addr\?/);
    await new Promise((resolve) => plain.close(resolve));
    expect((await ask({}, { flags: [] })).err).toContain("add --tlsverify if it has TLS");
    const refusals: [readonly string[], string][] = [
      [["-H", "tcp://192.0.2.1:2376"], "can be reached without a client certificate; add --tlsverify"],
      [
        ["--tlsverify"],
        "--tlsverify: unix:///run/swarm/manager.sock is a unix socket; TLS is for --host tcp://HOST:PORT",
      ],
      [["-H", `tcp://${address}`, "--tlskey", client.key], "--tlskey: TLS is off; add --tlsverify"],
      [["-H", `tcp://${address}`, "--tls", "--tlskey", client.key], "--tlscert is needed beside the key "],
    ];
    for (const [flags, message] of refusals) {
      const result = await runSwarmctl([...flags, "node", "ls"], { environment: { HOME: home } });
      expect(result).toMatchObject({ code: 2, out: "" });
      expect(result.err).toContain(message);
    }
  });
});

describe("61 files that lie open, cannot be read, or hold something else", () => {
  test("a key that others can read: a warning with its mode", async () => {
    const open = ours.issue({ name: "erin" });
    chmodSync(open.key, 0o644);
    const { code, err } = await ask({ ca: ours.file, ...open });
    expect(code).toBe(0);
    expect(err).toBe(`swarmctl: warning: key ${open.key} can be read by others (mode 0644): chmod 600 ${open.key}\n`);
  });

  test.each<[string, string | undefined, RegExp]>([
    ["missing", undefined, /key \S+: ENOENT$/],
    ["empty", "", /key \S+: holds no private key in PEM form$/],
    ["other", "hello\n", /key \S+: holds no private key in PEM form$/],
    ["torn", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", /key \S+: is no valid private key \(/],
    ["encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", /key \S+: is encrypted, and nobody is there to ask/],
  ])("key: %s", async (name, content, message) => {
    const key = join(folder, `bad-${name}.pem`);
    if (content !== undefined) writeFileSync(key, content, { mode: 0o600 });
    const { code, err } = await ask({ ...good, key });
    expect([code, err.trimEnd()]).toEqual([1, expect.stringMatching(message)]);
  });

  test("every bad file is named at once; a folder is no file; swapped files are recognized", async () => {
    const all = await ask({ ca: folder, certificate: client.key, key: client.certificate });
    expect(all.err).toContain(`CA file ${folder}: EISDIR; `);
    expect(all.err).toContain(`certificate ${client.key}: holds no certificate in PEM form; it holds a private key; `);
    expect(all.err).toContain(`key ${client.certificate}: holds no private key in PEM form; it holds a certificate\n`);
  });
});
