/** The shim for an architecture: the same sources, static, by that architecture's compiler. */
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Architecture, NAMES, ReleaseError } from "./target.ts";

const SOURCES = new URL("../../agent/shim", import.meta.url).pathname;
const execute = promisify(execFile);

/** The program, and the C library that is in it. */
export interface Shim {
  readonly program: Buffer;
  /** glibc's: "2.36". */
  readonly libraryVersion: string;
}

/** Builds it beside the checkout's own, which stays as it is. */
export async function buildShim(architecture: Architecture): Promise<Shim> {
  const compiler = compilerOf(architecture);
  const directory = mkdtempSync(join(tmpdir(), "swarm-shim-"));
  try {
    await execute("make", ["--silent", "-C", SOURCES, `CC=${compiler}`, `BUILD=${directory}`]);
    return { program: readFileSync(join(directory, "swarm-shim")), libraryVersion: libraryVersion(compiler) };
  } catch (reason) {
    const output = reason instanceof Error && "stderr" in reason ? String(reason.stderr).trim() : String(reason);
    throw new ReleaseError(`the shim for ${architecture} did not build: ${output}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function compilerOf(architecture: Architecture): string {
  const { triple, node } = NAMES[architecture];
  const compiler = process.arch === node ? "gcc" : `${triple}-gcc`;
  try {
    execFileSync(compiler, ["--version"], { stdio: "ignore" });
    return compiler;
  } catch {
    const packages =
      process.arch === node ? "gcc libc6-dev" : `gcc-${triple.replace("_", "-")} libc6-dev-${architecture}-cross`;
    throw new ReleaseError(
      `${compiler} is missing, which builds the shim for ${architecture}`,
      `apt-get install ${packages}; or leave it out: npm run release -- --arch ${process.arch === "arm64" ? "arm64" : "amd64"}`,
    );
  }
}

function libraryVersion(compiler: string): string {
  const defined = execFileSync(compiler, ["-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null"], {
    encoding: "utf8",
  });
  const [major, minor] = ["__GLIBC__", "__GLIBC_MINOR__"].map(
    (name) => new RegExp(`^#define ${name} (\\d+)$`, "m").exec(defined)?.[1],
  );
  if (major === undefined || minor === undefined) {
    throw new ReleaseError(`${compiler} has no glibc: a static shim of another library is not tested`);
  }
  return `${major}.${minor}`;
}
