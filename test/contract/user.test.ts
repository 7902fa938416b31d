/**
 * Users and invites. Goal: one file gives somebody elsewhere exactly what they may do, for as long as the cluster knows them.
 * Method: the real dispatcher; the API behind the managers' own door, under certificates of the cluster's own CA.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ClusterPki } from "../cluster-pki.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { runSwarmctl } from "../swarmctl.ts";

const folder = mkdtempSync(join(tmpdir(), "swarmctl-user-"));
const HOUR_MS = 3_600_000;
let plane: ControlPlane;
let address = "";

beforeAll(async () => {
  plane = await startControlPlane({ nodes: 1 });
  address = await plane.serveMembers();
});
afterAll(async () => {
  await plane[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** On the manager's host. */
const host = (...argv: readonly string[]) => runSwarmctl(argv, { environment: { SWARM_HOST: plane.host } });
/** Elsewhere. */
const elsewhere = (argv: readonly string[], stdin = "") =>
  runSwarmctl(argv, { environment: { SWARM_CONFIG: join(folder, "config") }, stdin });
const as = (context: string, ...argv: readonly string[]) => elsewhere(["--context", context, ...argv]);
const HOSTNAMES = ["node", "ls", "--format", "{{.Hostname}}"];

let invites = 0;
async function invite(...argv: readonly string[]): Promise<string> {
  const file = join(folder, `${++invites}.invite`);
  const { code, err } = await host("user", "create", "--out", file, ...argv);
  expect([code, err]).toEqual([0, expect.stringContaining("it holds a key")]);
  expect(err).toContain("the managers have addresses of this host only");
  return file;
}

async function enter(name: string, file: string): Promise<void> {
  expect(await elsewhere(["context", "create", name, "--from-invite", file])).toMatchObject({
    code: 0,
    out: `${name}\n`,
  });
}

test("from an invite to a call: a file of its owner's only, a manager that is known by its name", async () => {
  const file = await invite("ci", "--role", "deployer", "--stack", "shop", "--stack", "blog", "--expiry", "48h");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await enter("ci", file);
  expect(await as("ci", "service", "ls", "-q")).toEqual({ code: 0, out: "", err: "" });
  const [shown] = JSON.parse((await elsewhere(["context", "inspect", "ci"])).out);
  expect(shown).toMatchObject({
    Metadata: { Description: "ci, deployer of the stacks shop, blog" },
    Endpoints: { docker: { Host: `tcp://${address}`, SkipTLSVerify: false, TLSServerName: "swarm-manager" } },
  });
  expect((await host("user", "ls", "--format", "{{.Name}} {{.Role}} {{.Stacks}} {{.Expires}}")).out).toBe(
    "ci deployer shop,blog in 2 days\n",
  );
  const [user] = JSON.parse((await host("user", "inspect", "ci")).out);
  expect(user).toMatchObject({ Name: "ci", Role: "deployer", StackPrefixes: ["shop", "blog"] });
});

test("the invite may come by stdin, the managers are tried in turn, an exported context keeps the name", async () => {
  const text = readFileSync(await invite("bob", "--role", "viewer"), "utf8");
  const managers = ["127.0.0.1:1", ...JSON.parse(text).managers];
  const first = JSON.stringify({ ...JSON.parse(text), managers });
  expect(await elsewhere(["context", "create", "bob", "--from-invite", "-"], first)).toMatchObject({ code: 0 });
  expect(await as("bob", ...HOSTNAMES)).toEqual({ code: 0, out: "node-1\n", err: "" });
  const exported = (await elsewhere(["context", "export", "bob", "-"])).out;
  await elsewhere(["context", "import", "bob2", "-"], exported);
  expect(await as("bob2", ...HOSTNAMES)).toEqual({ code: 0, out: "node-1\n", err: "" });
});

test("roles: a viewer reads, a deployer changes what runs, an admin everything", async () => {
  for (const role of ["viewer", "deployer", "admin"]) await enter(role, await invite(role, "--role", role));
  const create = (name: string) => ["service", "create", "-d", "--name", name, "demo/web:1"];
  expect(await as("viewer", ...create("v"))).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: CreateService is not for users with role viewer\n",
  });
  expect(await as("deployer", ...create("d"))).toMatchObject({ code: 0 });
  expect((await as("viewer", "service", "ls", "--format", "{{.Name}}")).out).toBe("d\n");
  expect((await as("deployer", "user", "ls")).err).toBe("swarmctl: ListUsers is not for users with role deployer\n");
  expect((await as("deployer", "swarm", "join-token", "worker")).err).toContain("GetJoinTokens is not for");
  expect((await as("admin", "user", "ls", "-q")).out.split("\n").length).toBeGreaterThan(3);
  expect(await as("admin", "service", "rm", "d")).toMatchObject({ code: 0 });
});

test("another certificate for the same name: asked for, and the old one is refused at once", async () => {
  const old = await invite("eve", "--role", "viewer");
  await enter("eve", old);
  const again = ["user", "create", "eve", "--role", "viewer", "--out"];
  expect(await host(...again, join(folder, "eve.invite"))).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: use --force to give it another certificate: user eve is there already\n",
  });
  expect(await as("eve", ...HOSTNAMES)).toMatchObject({ code: 0 });
  // Nothing was left behind that would stand in the way.
  expect(await host(...again, join(folder, "eve.invite"), "--force")).toMatchObject({ code: 0, out: "eve\n" });
  expect(await as("eve", ...HOSTNAMES)).toEqual({
    code: 1,
    out: "",
    err: "swarmctl: user eve was given another certificate since this one\n",
  });
  const update = ["context", "update", "eve", "--from-invite", join(folder, "eve.invite")];
  expect(await elsewhere(update)).toMatchObject({ code: 0 });
  expect(await as("eve", ...HOSTNAMES)).toMatchObject({ code: 0 });
});

test("who is removed is refused at once, and the name is free", async () => {
  await enter("gone", await invite("gone", "--role", "admin"));
  expect(await host("user", "rm", "gone")).toEqual({ code: 0, out: "gone\n", err: "" });
  expect((await as("gone", ...HOSTNAMES)).err).toBe("swarmctl: user gone was removed from the cluster\n");
  expect(await host("user", "rm", "gone")).toMatchObject({ code: 1, err: "swarmctl: no such user: gone\n" });
  await invite("gone", "--role", "viewer");
  expect((await as("gone", ...HOSTNAMES)).err).toContain("given another certificate");
});

test("an invite never takes another file's place, and nobody is made for one that cannot be written", async () => {
  const file = join(folder, "taken");
  writeFileSync(file, "mine");
  const create = ["user", "create", "late", "--role", "viewer", "--out", file];
  expect(await host(...create)).toMatchObject({ code: 1, err: `swarmctl: ${file}: file already exists\n` });
  expect(readFileSync(file, "utf8")).toBe("mine");
  expect((await host("user", "ls", "--format", "{{.Name}}")).out).not.toContain("late");
  const { out } = await host("user", "create", "late", "--role", "viewer", "--out", "-");
  expect(JSON.parse(out)).toMatchObject({ swarmInvite: 1, managers: [address] });
});

test.each<[string, string[], number, string | RegExp]>([
  ["no role", ["x"], 2, "--role is needed: viewer, deployer or admin"],
  ["unknown role", ["x", "--role", "root"], 2, "unknown role root: viewer, deployer or admin"],
  ["bad name", ["../x", "--role", "viewer"], 1, /^name: must be 1 to 63 letters/],
  ["admin of stacks", ["x", "--role", "admin", "--stack", "a"], 1, /^stack prefixes: are for viewers and deployers/],
  ["bad prefix", ["x", "--role", "viewer", "--stack", "a/b"], 1, /^stack prefixes: must be beginnings of stack names/],
  ["short", ["x", "--role", "viewer", "--expiry", "59m"], 1, "lifetime: must be at least 1h"],
])("refused: %s", async (_, argv, code, message) => {
  const result = await host("user", "create", "--out", join(folder, "refused.invite"), ...argv);
  expect(result).toMatchObject({ code, out: "" });
  const said = result.err.slice("swarmctl: ".length, -1);
  if (typeof message === "string") expect(said).toBe(message);
  else expect(said).toMatch(message);
});

describe("invites that are none", () => {
  const nowMs = Date.parse("2026-01-01T00:00:00Z");
  const file = join(folder, "bad.invite");
  const read = async (text: string, ...flags: readonly string[]) => {
    writeFileSync(file, text, { mode: 0o600 });
    const { code, err } = await elsewhere(["context", "create", "bad", "--from-invite", file, ...flags]);
    expect(code).toBeGreaterThan(0);
    return err.slice("swarmctl: ".length, -1).replace(`${file}: `, "");
  };
  const good = async (pki: ClusterPki, subject = pki.user("swarm-viewer", "x"), lifetimeMs = 48 * HOUR_MS) => {
    const { chain, key, trust } = await pki.join(subject, { lifetimeMs });
    return { swarmInvite: 1, managers: ["m:2377"], roots: trust, certificates: chain, key };
  };

  test("by their form", async () => {
    const invited = await good(await ClusterPki.open(Date.now()));
    expect(await read("{")).toBe("is no invite; is it from 'swarmctl user create'?");
    expect(await read("{}")).toBe("is no invite; is it from 'swarmctl user create'?");
    expect(await read(JSON.stringify({ ...invited, swarmInvite: 2 }))).toBe("is of another version of swarmctl");
    for (const managers of [undefined, [], ["m"], [1], Array(65).fill("m:1")]) {
      expect(await read(JSON.stringify({ ...invited, managers }))).toBe("managers: must be 1 to 64 of HOST:PORT");
    }
    for (const field of ["roots", "certificates", "key"]) {
      expect(await read(JSON.stringify({ ...invited, [field]: 1 }))).toBe(`${field}: missing`);
      expect(await read(JSON.stringify({ ...invited, [field]: "x" }))).toMatch(`${field}:`);
    }
    expect(await read(JSON.stringify(invited), "--host", "tcp://m:1")).toBe("--host: an invite has its own");
  });

  test("by what they hold", async () => {
    const pki = await ClusterPki.open(Date.now());
    const other = await ClusterPki.open(Date.now());
    const [mine, theirs] = [await good(pki), await good(other)];
    expect(await read(JSON.stringify({ ...mine, key: theirs.key }))).toBe("the key does not belong to the certificate");
    expect(await read(JSON.stringify({ ...mine, roots: theirs.roots }))).toMatch(/none of the authorities trusted/);
    expect(await read(JSON.stringify(await good(pki, pki.node("swarm-worker") as never)))).toMatch(
      /node's, not a user/,
    );
    const old = await ClusterPki.open(nowMs - 72 * HOUR_MS);
    expect(await read(JSON.stringify(await good(old)))).toMatch(/expired on/);
  });

  test("that lie open are told of", async () => {
    const open = await invite("open", "--role", "viewer");
    rmSync(file, { force: true });
    writeFileSync(file, readFileSync(open), { mode: 0o644 });
    const { code, err } = await elsewhere(["context", "create", "open", "--from-invite", file]);
    expect([code, err]).toEqual([0, expect.stringContaining(`${file} holds a key and can be read by others`)]);
  });
});

test("whoever has a certificate of the CA before a rotation is told to need another", async () => {
  await invite("old", "--role", "viewer");
  expect(await host("swarm", "ca", "--rotate", "--detach", "--quiet")).toMatchObject({ code: 0 });
  const ends = async () => (await host("user", "ls", "--format", "{{.Name}}: {{.Expires}}")).out;
  expect(await ends()).toContain("old: with the CA before: make another\n");
  await invite("old", "--role", "viewer", "--force");
  expect(await ends()).toContain("old: in 3 months\n");
});
