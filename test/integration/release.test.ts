/**
 * Goal: the same commit gives the same bytes wherever it is built, and the artefacts hold what they should. Method: build here and in a copy
 * of the checkout at another place, at another time of day for its files; look into both architectures' archives.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const ROOT = new URL("../..", import.meta.url).pathname;
const LONG = process.env.SWARM_TEST_LONG === "1";
const execute = promisify(execFile);
// Beside the checkout, for hard links.
const folder = mkdtempSync(join(dirname(ROOT.replace(/\/$/, "")), ".swarm-release-test-"));
const [first, second] = [join(folder, "first"), join(folder, "second")];

async function release(checkout: string, out: string, architectures: string): Promise<void> {
  const argv = ["deploy/release.ts", "--arch", architectures, "--out", out];
  await execute(join(checkout, "node_modules/.bin/node"), argv, {
    cwd: checkout,
    env: { ...process.env, SOURCE_DATE_EPOCH: "1700000000", TZ: "Pacific/Chatham" },
  });
}

/** The tracked files and their packages somewhere else; nothing of what was built. */
function copyCheckout(to: string): void {
  mkdirSync(to);
  const tracked = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], { cwd: ROOT });
  for (const path of tracked.toString().split("\0").filter(Boolean)) {
    cpSync(join(ROOT, path), join(to, path), { recursive: true });
  }
  execFileSync("cp", ["-al", join(ROOT, "node_modules"), join(to, "node_modules")]);
}

beforeAll(async () => {
  copyCheckout(join(folder, "checkout"));
  await release(ROOT, first, "amd64,arm64");
  await release(join(folder, "checkout"), second, LONG ? "amd64,arm64" : "amd64");
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

test("the same bytes in another place", () => {
  const artefacts = readdirSync(second).filter((name) => name !== "SHA256SUMS");
  expect(artefacts).toHaveLength(LONG ? 6 : 3);
  for (const name of artefacts) expect([name, digest(join(second, name))]).toEqual([name, digest(join(first, name))]);
});

test("SHA256SUMS is right, and of all", () => {
  expect(execFileSync("sha256sum", ["--check", "SHA256SUMS"], { cwd: first, encoding: "utf8" })).toMatch(
    /^(.*: OK\n){6}$/,
  );
  expect(readdirSync(first)).toHaveLength(7);
});

describe.each([
  ["amd64", "x86-64", 0x3e],
  ["arm64", "aarch64", 0xb7],
])("%s", (architecture, _, machine) => {
  const names = () => readdirSync(first).filter((name) => name.includes(architecture));
  const tarball = () => join(first, names().find((name) => name.endsWith(".tar.gz")) ?? "");

  test("Node and the shim are that architecture's, and the shim is static", () => {
    const extract = (path: string) =>
      execFileSync("tar", ["-xzOf", tarball(), "--wildcards", `*/lib/swarm/${path}`], { maxBuffer: 1 << 28 });
    for (const path of ["bin/node", "agent/shim/build/swarm-shim"]) {
      const elf = extract(path);
      expect(elf.subarray(0, 4).toString("latin1")).toBe("\x7fELF");
      expect(elf.readUInt16LE(18)).toBe(machine);
      // PT_INTERP (3) asks for a loader.
      const headers = Array.from({ length: elf.readUInt16LE(56) }, (__, index) =>
        elf.readUInt32LE(Number(elf.readBigUInt64LE(32)) + index * elf.readUInt16LE(54)),
      );
      expect(headers.includes(3)).toBe(path === "bin/node");
    }
  });

  test("everything is there, root's, and nothing that anybody else may write", () => {
    const listing = execFileSync("tar", ["-tvzf", tarball()], { encoding: "utf8" }).trim().split("\n");
    const paths = listing.map((line) => line.replace(/.*\d\d:\d\d /, "").replace(/^swarm-[^/]+\//, ""));
    const wanted = [
      "usr/local/bin/swarmctl -> ../lib/swarm/cli/swarmctl",
      "usr/local/lib/systemd/system/swarm-manager.service",
      "usr/local/share/man/man1/swarmctl-service-create.1.gz",
      "usr/local/share/man/man8/swarm-agent.8.gz",
      "usr/local/share/bash-completion/completions/swarmctl",
      "usr/local/share/zsh/site-functions/_swarmctl",
      "usr/local/share/fish/vendor_completions.d/swarmctl.fish",
      "usr/local/share/doc/swarm/licences/etcd3",
      "usr/local/share/doc/swarm/sbom.cdx.json",
      "etc/sysusers.d/swarm.conf",
      "etc/tmpfiles.d/swarm.conf",
      "etc/default/swarm-agent",
    ];
    expect(paths).toEqual(expect.arrayContaining(wanted));
    expect(
      listing.filter((line) => !/^[dl-]rwxr-xr-x root\/root|^-rw-r--r-- root\/root|^lrwxrwxrwx root\/root/.test(line)),
    ).toEqual([]);
  });
});

test("units of a local installation start local programs", () => {
  const tarball = readdirSync(first).find((name) => /amd64\.tar\.gz$/.test(name)) ?? "";
  const unit = execFileSync("tar", ["-xzOf", join(first, tarball), "--wildcards", "*/swarm-agent.service"], {
    encoding: "utf8",
  });
  expect(unit).toContain("ExecStart=/usr/local/bin/swarm-agent $SWARM_AGENT_FLAGS\n");
});

test("no shell script has what shellcheck warns of", () => {
  const scripts = execFileSync(
    "git",
    ["ls-files", "--cached", "--others", "--exclude-standard", "deploy/**.sh", "deploy/*.sh"],
    {
      cwd: ROOT,
      encoding: "utf8",
    },
  );
  // setup.sh is bash's and sourced by others, start.sh needs their variables.
  const own = scripts.split("\n").filter((path) => path !== "" && !/deploy\/(setup|start)\.sh$|examples\//.test(path));
  expect(own.length).toBeGreaterThan(3);
  expect(execFileSync("shellcheck", ["--shell=sh", ...own], { cwd: ROOT, encoding: "utf8" })).toBe("");
});
