/**
 * `npm run release [-- --arch amd64,arm64] [--out DIRECTORY]`: what is installed on hosts, in `deploy/out/release`:
 *
 * ```
 * swarm-VERSION-linux-ARCH.tar.gz       for install.sh                 swarm-cluster_VERSION_ARCH.deb   for dpkg and apt
 * swarm-VERSION-linux-ARCH.cdx.json     what is in it                  install.sh, SHA256SUMS
 * ```
 *
 * The same commit gives the same bytes, wherever and whenever it is built: times are the commit's (or SOURCE_DATE_EPOCH), the
 * compressor is the pinned Node's, the compilers are Debian's.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { Metafile } from "esbuild";
import { projectVersion } from "../common/base/version.ts";
import { bundleModule, bundleProgram } from "./bundle.ts";
import { PROGRAMS } from "./programs.ts";
import { compress, writeTar } from "./release/archive.ts";
import { debianPackage, PACKAGE } from "./release/debian.ts";
import { type Bundles, DEBIAN, installation, LOCAL } from "./release/installation.ts";
import { fetchNode } from "./release/node-binary.ts";
import { bundledPackages, readLock } from "./release/packages.ts";
import { billOfMaterials, type Parts, sha256 } from "./release/sbom.ts";
import { buildShim } from "./release/shim.ts";
import { ARCHITECTURES, type Architecture, maintainerOf, type Release, ReleaseError } from "./release/target.ts";
import { file, program, type Tree, under } from "./release/tree.ts";

const ROOT = new URL("..", import.meta.url).pathname;

interface Wanted {
  readonly architectures: readonly Architecture[];
  readonly out: string;
}

function readArguments(): Wanted {
  const { values } = parseArgs({ options: { arch: { type: "string" }, out: { type: "string" } } });
  const architectures = (values.arch ?? ARCHITECTURES.join(",")).split(",").map((name) => {
    const known = ARCHITECTURES.find((each) => each === name);
    if (known === undefined) throw new ReleaseError(`--arch: must be among ${ARCHITECTURES.join(", ")}, not ${name}`);
    return known;
  });
  return { architectures, out: resolve(values.out ?? join(ROOT, "deploy/out/release")) };
}

/** The commit's time, or what SOURCE_DATE_EPOCH says (https://reproducible-builds.org/specs/source-date-epoch). */
function sourceDate(): number {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) {
    if (!/^\d{1,11}$/.test(given)) throw new ReleaseError(`SOURCE_DATE_EPOCH: ${given} is no number of seconds`);
    return Number(given);
  }
  try {
    return Number(execFileSync("git", ["log", "-1", "--format=%ct"], { cwd: ROOT, encoding: "utf8" }));
  } catch {
    throw new ReleaseError("there is no commit to take the time from", "set SOURCE_DATE_EPOCH");
  }
}

/** All bundles by their place below lib/swarm, and what was put into them. */
async function bundle(): Promise<{ readonly bundles: Bundles; readonly metafiles: readonly Metafile[] }> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-release-"));
  try {
    const metafiles = await Promise.all([
      ...PROGRAMS.map((program) => bundleProgram(program, directory, "away")),
      bundleModule("deploy/warm-up.ts", join(directory, "warm-up.cjs")),
    ]);
    const bundles = new Map(
      readdirSync(directory).map((name) => [`deploy/out/${name}`, readFileSync(join(directory, name))]),
    );
    // Loaded by name, where a daemon writes to a terminal.
    const pretty = join(directory, "pino-pretty.js");
    metafiles.push(await bundleModule("pino-pretty", pretty));
    bundles.set("node_modules/pino-pretty.js", readFileSync(pretty));
    for (const name of ["auth", "kv", "rpc"]) {
      const path = `node_modules/etcd3/proto/${name}.proto`;
      bundles.set(path, readFileSync(join(ROOT, path)));
    }
    return { bundles, metafiles };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The artefacts of one architecture, by file name. */
async function artefacts(parts: Parts, bundles: Bundles): Promise<Tree> {
  const { release, architecture } = parts;
  const name = `swarm-${release.version}-linux-${architecture}`;
  const [local, debian] = [await installation(parts, bundles, LOCAL), await installation(parts, bundles, DEBIAN)];
  const [tarball, deb] = await Promise.all([
    compress(writeTar(under(name, local), { prefix: "", mtimeSeconds: release.epochSeconds })),
    debianPackage(debian, architecture, release),
  ]);
  return new Map([
    [`${name}.tar.gz`, file(tarball)],
    [`${PACKAGE}_${release.version}_${architecture}.deb`, file(deb)],
    [`${name}.cdx.json`, file(billOfMaterials(parts, local))],
  ]);
}

/** Puts the new artefacts in the place of the old ones, all at once. */
function publish(artefactsByName: Tree, out: string): void {
  const staging = `${out}.new`;
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const sums: string[] = [];
  for (const [name, entry] of artefactsByName) {
    if (entry.type !== "file") continue;
    writeFileSync(join(staging, name), entry.content, { mode: entry.mode });
    sums.push(`${sha256(entry.content)}  ${name}\n`);
  }
  writeFileSync(join(staging, "SHA256SUMS"), sums.toSorted().join(""));
  rmSync(out, { recursive: true, force: true });
  renameSync(staging, out);
}

async function main(): Promise<void> {
  const { architectures, out } = readArguments();
  const { author } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const release: Release = {
    version: projectVersion(),
    maintainer: maintainerOf(author),
    epochSeconds: sourceDate(),
  };
  const lock = readLock();
  const { bundles, metafiles } = await bundle();
  const packages = bundledPackages(metafiles, lock);
  const all = new Map([["install.sh", program(readFileSync(join(ROOT, "deploy/install.sh")))]]);
  for (const architecture of architectures) {
    const [node, shim] = await Promise.all([fetchNode(architecture, lock), buildShim(architecture)]);
    for (const [name, entry] of await artefacts({ release, architecture, packages, node, shim }, bundles))
      all.set(name, entry);
  }
  publish(all, out);
  process.stdout.write(`${[...all.keys(), "SHA256SUMS"].map((name) => `${out}/${name}`).join("\n")}\n`);
}

try {
  await main();
} catch (reason) {
  if (!(reason instanceof ReleaseError)) throw reason;
  process.stderr.write(`release: ${reason.message}\n`);
  process.exitCode = 1;
}
