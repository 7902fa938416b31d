/**
 * Contexts of swarmctl. Goal: Docker's precedence, keys that nobody else can read, and refusals that name what is wrong.
 * Method: the real dispatcher on a folder of its own, a real API behind a socket and behind TLS.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { MutualTls } from "../../common/rpc/tls.ts";
import { CertificateAuthority } from "../certificates.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-context-"));
const config = join(folder, "config");
const ca = new CertificateAuthority(folder, "ca");
const client = ca.issue({ name: "alice" });
let plane: ControlPlane;
let address = "";

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  address = await plane.serveTls(new MutualTls(ca.pem(ca.issue({ name: "m", subjectAltName: "IP:127.0.0.1" }))));
});
beforeEach(() => rmSync(config, { recursive: true, force: true }));
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const swarmctl = (argv: readonly string[], environment: Record<string, string> = {}, stdin = "") =>
  runSwarmctl(argv, { environment: { SWARM_CONFIG: config, ...environment }, stdin });
const hostnames = ["node", "ls", "--format", "{{.Hostname}}"];

test("create, use, list, show, inspect, update, remove", async () => {
  const files = `ca=${ca.file},cert=${client.certificate},key=${client.key}`;
  const create = ["context", "create", "--description", "far", "--docker", `host=tcp://${address},${files}`, "prod"];
  expect(await swarmctl(create)).toEqual({ code: 0, out: "prod\n", err: 'Successfully created context "prod"\n' });
  expect(await swarmctl(create)).toMatchObject({ code: 1, err: 'swarmctl: context "prod" already exists\n' });
  for (const [path, mode] of [
    ["contexts/prod", 0o700],
    ["contexts/prod/key.pem", 0o600],
    ["contexts/prod/meta.json", 0o600],
  ] as const) {
    expect(statSync(join(config, path)).mode & 0o777).toBe(mode);
  }

  expect(await swarmctl(["--context", "prod", ...hostnames])).toEqual({ code: 0, out: "node-1\n", err: "" });
  expect(await swarmctl(["context", "use", "prod"])).toMatchObject({ code: 0, err: 'Current context is now "prod"\n' });
  expect((await swarmctl(hostnames)).out).toBe("node-1\n");
  expect((await swarmctl(["context", "ls"])).out.split("\n").map((line) => line.split(/ {3,}/))).toEqual([
    ["NAME", "DESCRIPTION", "ENDPOINT", "ERROR"],
    ["default", "What holds without a context", "unix:///run/swarm/manager.sock", ""],
    ["prod *", "far", `tcp://${address}`, ""],
    [""],
  ]);
  const [shown] = JSON.parse((await swarmctl(["context", "inspect"])).out);
  expect(shown).toMatchObject({ Name: "prod", Endpoints: { docker: { Host: `tcp://${address}` } } });
  expect(JSON.stringify(shown)).not.toContain("PRIVATE");

  await swarmctl(["context", "update", "--description", "near", "prod"]);
  expect((await swarmctl(["context", "inspect", "-f", "{{.Metadata.Description}}"])).out).toBe("near\n");
  expect((await swarmctl(hostnames)).out).toBe("node-1\n");
  expect((await swarmctl(["context", "rm", "prod"])).err).toContain('context "prod" is in use, set -f flag');
  expect(await swarmctl(["context", "rm", "-f", "prod"])).toEqual({ code: 0, out: "prod\n", err: "" });
  expect((await swarmctl(["context", "show"])).out).toBe("default\n");
});

test("export and import carry the key, in a file that nobody else can read", async () => {
  const { certificate, key } = client;
  const flags = ["--host", `tcp://${address}`, "--ca", ca.file, "--cert", certificate, "--key", key];
  await swarmctl(["context", "create", ...flags, "here"]);
  const file = join(folder, "here.swarmcontext");
  expect(await swarmctl(["context", "export", "here", file])).toMatchObject({ code: 0, out: "" });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect((await swarmctl(["context", "export", "here", file])).err).toBe(`swarmctl: ${file}: file already exists\n`);
  expect(await swarmctl(["context", "import", "there", "-"], {}, readFileSync(file, "utf8"))).toMatchObject({
    code: 0,
  });
  expect((await swarmctl(["--context", "there", ...hostnames])).out).toBe("node-1\n");
});

describe("precedence: --host, --context, SWARM_HOST, SWARM_CONTEXT, current", () => {
  test.each<[string, string[], Record<string, string>, string]>([
    ["current", [], {}, "unix:///current"],
    ["SWARM_CONTEXT", [], { SWARM_CONTEXT: "other" }, "unix:///other"],
    ["SWARM_HOST", [], { SWARM_CONTEXT: "other", SWARM_HOST: "unix:///env" }, "unix:///env"],
    ["--context", ["--context", "other"], { SWARM_HOST: "unix:///env" }, "unix:///other"],
    ["--host", ["-H", "unix:///flag"], { SWARM_CONTEXT: "other", SWARM_HOST: "unix:///env" }, "unix:///flag"],
    ["default by name", ["-c", "default"], {}, "unix:///run/swarm/manager.sock"],
  ])("%s", async (_, flags, environment, tried) => {
    for (const name of ["current", "other"]) await swarmctl(["context", "create", "--host", `unix:///${name}`, name]);
    await swarmctl(["context", "use", "current"]);
    const { code, err } = await swarmctl([...flags, "node", "ls"], environment);
    expect([code, err]).toEqual([1, expect.stringContaining(`tried ${tried} (`)]);
  });
});

test.each<[string, string[], number, string | RegExp]>([
  ["both", ["-H", "unix:///a", "--context", "x", "node", "ls"], 2, /either specify --host or --context, not both/],
  ["unknown", ["--context", "nope", "node", "ls"], 1, 'context "nope" not found'],
  ["path as name", ["--context", "../../etc", "node", "ls"], 1, 'context "../../etc" not found'],
  ["bad name", ["context", "create", "--host", "unix:///a", "a/b"], 1, /^context name "a\/b" must match/],
  ["reserved name", ["context", "create", "--host", "unix:///a", "default"], 1, /"default" is what holds without/],
  ["no host", ["context", "create", "x1"], 2, "--host is needed: unix:///path or tcp://host:port"],
  ["bad host", ["context", "create", "--host", "ftp://x", "x1"], 2, "--host ftp://x: unix:///path or tcp://host:port"],
  ["far without files", ["context", "create", "--host", "tcp://192.0.2.1:1", "x1"], 1, /give --ca, --cert and --key$/],
  [
    "half a pair",
    ["context", "create", "--host", "unix:///a", "--key", "k", "x1"],
    2,
    "--cert and --key belong together",
  ],
  [
    "docker key",
    ["context", "create", "--docker", "hst=a", "x1"],
    2,
    /^--docker: hst: unrecognized config key; one of host/,
  ],
  ["no such file", ["context", "create", "--host", "unix:///a", "--ca", "/none", "x1"], 1, "CA file /none: ENOENT"],
  ["use unknown", ["context", "use", "nope"], 1, 'context "nope" not found'],
  ["tls flags", ["--tlsverify", "--context", "nope", "node", "ls"], 2, /^--tlsverify: the context nope has its own/],
])("refused: %s", async (_, argv, code, message) => {
  const result = await swarmctl(argv);
  expect(result).toMatchObject({ code, out: "" });
  const said = result.err.slice("swarmctl: ".length, -1);
  if (typeof message === "string") expect(said).toBe(message);
  else expect(said).toMatch(message);
});

test("a folder that cannot be is named", async () => {
  writeFileSync(config, "a file");
  expect(await swarmctl(["context", "create", "--host", "unix:///a", "x1"])).toMatchObject({
    code: 1,
    err: `swarmctl: ${config}/contexts/x1: not a directory\n`,
  });
});

test("a broken file is named", async () => {
  await swarmctl(["context", "create", "--host", "unix:///a", "x1"]);
  writeFileSync(join(config, "contexts/x1/meta.json"), "{");
  expect((await swarmctl(["--context", "x1", "node", "ls"])).err).toMatch(/meta\.json: is no JSON object; remove it/);
});
