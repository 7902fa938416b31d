/** The Node that is shipped: npm's package of it, the very one that package-lock.json names. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { cleanTarPath, TarParser } from "../../common/model/tar.ts";
import type { Lock } from "./packages.ts";
import { type Architecture, NAMES, ReleaseError } from "./target.ts";

const execute = promisify(execFile);

/** What is taken of the package. */
export interface NodeBinary {
  readonly packageName: string;
  readonly version: string;
  /** As package-lock.json has it. */
  readonly integrity: string;
  readonly program: Buffer;
  readonly licence: Buffer;
}

/** Gets the package from npm (or its cache), and refuses one whose bytes are not those of the lock file. */
export async function fetchNode(architecture: Architecture, lock: Lock): Promise<NodeBinary> {
  const packageName = NAMES[architecture].nodePackage;
  const { version, integrity } = lock.packages[`node_modules/${packageName}`] ?? {};
  if (version === undefined || integrity === undefined) {
    throw new ReleaseError(`package-lock.json has no ${packageName}`, "npm install, and commit the lock file");
  }
  const archive = await packed(`${packageName}@${version}`);
  const [algorithm = "", digest] = integrity.split("-");
  if (createHash(algorithm).update(archive).digest("base64") !== digest) {
    throw new ReleaseError(`${packageName}@${version} is not the package that package-lock.json names (${algorithm})`);
  }
  const files = unpack(archive, ["package/bin/node", "package/LICENSE"]);
  const [program, licence] = [files.get("package/bin/node"), files.get("package/LICENSE")];
  if (program === undefined || licence === undefined) {
    throw new ReleaseError(`${packageName}@${version} has no bin/node or no LICENSE`);
  }
  return { packageName, version, integrity, program, licence };
}

async function packed(specifier: string): Promise<Buffer> {
  const directory = mkdtempSync(join(tmpdir(), "swarm-node-"));
  try {
    const argv = ["pack", specifier, "--silent", "--prefer-offline", "--pack-destination", directory];
    const { stdout } = await execute("npm", argv, { cwd: directory });
    return readFileSync(join(directory, stdout.trim().split("\n").at(-1) ?? ""));
  } catch (reason) {
    const problem = reason instanceof Error ? reason.message : String(reason);
    throw new ReleaseError(
      `npm pack ${specifier}: ${problem}`,
      "it needs npm, and a registry or npm's cache with the package",
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function unpack(archive: Buffer, wanted: readonly string[]): ReadonlyMap<string, Buffer> {
  const pieces = new Map<string, Uint8Array[]>();
  let current: Uint8Array[] | undefined;
  for (const event of new TarParser().push(gunzipSync(archive))) {
    if (event.event === "data") {
      current?.push(event.bytes);
      continue;
    }
    const path = cleanTarPath(event.entry.path);
    current = wanted.includes(path) ? [] : undefined;
    if (current !== undefined) pieces.set(path, current);
  }
  return new Map([...pieces].map(([path, bytes]) => [path, Buffer.concat(bytes)]));
}
