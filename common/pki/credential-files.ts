/**
 * A node's key, certificate and trusted roots on its disk: always of one another, whenever the machine stops.
 *
 *   DIRECTORY/              0700
 *     current ─▶ generation-3
 *     generation-3/         0700   written whole and synced, then `current` is renamed onto it, then the others go
 *       key.pem             0600   PKCS#8, or sealed under an unlock key
 *       certificate.pem     0600   the node's certificate, then the authority's intermediates
 *       trust.pem           0600   the roots
 *
 * Other programs (etcd) can be pointed at `current/…`. One process at a time writes here: the one that holds the lock of the
 * data directory.
 */
import { constants, type Stats } from "node:fs";
import { chmod, lstat, mkdir, open, readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SwarmError } from "../base/error.ts";
import type { Entropy } from "../base/random.ts";
import { describeCertificate, readCertificates } from "./certificates.ts";
import { readPrivateKey } from "./key-pair.ts";
import { pemBlocks, toPem } from "./pem.ts";
import { seal, type Unlocking, unseal } from "./sealed-key.ts";
import { readTrustBundle } from "./trust-bundle.ts";

/** All PEM. */
export interface Credentials {
  readonly key: string;
  /** The certificate first, then what is sent with it. */
  readonly chain: string;
  /** The roots that vouch for others. */
  readonly trust: string;
}

export type StoredCredentials =
  | { readonly state: "absent" }
  /** The key is sealed, and nothing that opens it was given. */
  | ({ readonly state: "locked" } & Omit<Credentials, "key">)
  | { readonly state: "ready"; readonly credentials: Credentials };

const CURRENT = "current";
const GENERATION = /^generation-\d{1,15}$/;
/** And what a writer that was stopped may have left. */
const ANY_GENERATION = /^generation-(\d{1,15})(\.link)?$/;
const FILES = { key: "key.pem", chain: "certificate.pem", trust: "trust.pem" } as const;
const SEALED_LABEL = "SWARM SEALED KEY";
const PURPOSE = "node key";
const FILE_BYTES_MAX = 256 * 1024;
/** How often a generation may be replaced between a look at `current` and at its files. */
const ATTEMPTS_MAX = 3;

/**
 * Reads what was last written, and checks it: each file its owner's only, whole, and all of one another. Throws
 * `failed_precondition` that names the file, and what `unseal` throws.
 */
export async function readCredentials(directory: string, unlocking?: Unlocking): Promise<StoredCredentials> {
  for (let attempt = 1; ; attempt++) {
    const generation = await currentGeneration(directory);
    if (generation === undefined) return { state: "absent" };
    try {
      return await readGeneration(join(directory, generation), unlocking);
    } catch (reason) {
      const isReplaced = attempt < ATTEMPTS_MAX && (await currentGeneration(directory)) !== generation;
      if (!isReplaced) throw reason;
    }
  }
}

/** Writes all three as one. What does not belong together is refused (`invalid_argument`) before anything is written. */
export async function writeCredentials(
  directory: string,
  credentials: Credentials,
  sealing?: { readonly unlocking: Unlocking; readonly entropy: Entropy },
): Promise<void> {
  checkCredentials(credentials, { key: "the key", chain: "the certificate", trust: "the CA bundle" });
  const key = sealing === undefined ? credentials.key : await sealKey(credentials.key, sealing);
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    checkOwner(directory, "directory", await lstat(directory));
    await chmod(directory, 0o700);
    await syncDirectory(join(directory, ".."));
    const old = (await readdir(directory)).filter((name) => ANY_GENERATION.test(name));
    const name = `generation-${1 + Math.max(0, ...old.map((each) => Number(ANY_GENERATION.exec(each)?.[1])))}`;
    await writeGeneration(join(directory, name), { ...credentials, key });
    await symlink(name, join(directory, `${name}.link`));
    await rename(join(directory, `${name}.link`), join(directory, CURRENT));
    await syncDirectory(directory);
    // The old key must not stay: it may lie unsealed.
    for (const each of old) await rm(join(directory, each), { recursive: true, force: true });
    await syncDirectory(directory);
  } catch (reason) {
    throw SwarmError.wrap(`write credentials in ${directory}`, reason, "failed_precondition");
  }
}

async function sealKey(
  key: string,
  { unlocking, entropy }: { readonly unlocking: Unlocking; readonly entropy: Entropy },
): Promise<string> {
  return toPem(SEALED_LABEL, await seal(Buffer.from(key), unlocking, { purpose: PURPOSE, entropy }));
}

async function writeGeneration(path: string, credentials: Credentials): Promise<void> {
  await mkdir(path, { mode: 0o700 });
  for (const [role, file] of Object.entries(FILES) as [keyof Credentials, string][]) {
    const handle = await open(join(path, file), "wx", 0o600);
    try {
      await handle.writeFile(credentials[role]);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
  await syncDirectory(path);
}

/** A name in it, made or renamed, is on the disk only after this. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The generation that counts; undefined where none was ever written whole. */
async function currentGeneration(directory: string): Promise<string | undefined> {
  const path = join(directory, CURRENT);
  let generation: string;
  try {
    generation = await readlink(path);
  } catch (reason) {
    const errno = errnoOf(reason);
    if (errno === "ENOENT") return undefined;
    throw refused(path, errno === "EINVAL" ? "is not a link to a generation" : String(errno));
  }
  if (!GENERATION.test(generation)) throw refused(path, "does not lead to a generation beside it");
  return generation;
}

async function readGeneration(path: string, unlocking: Unlocking | undefined): Promise<StoredCredentials> {
  await checkDirectory(join(path, ".."));
  await checkDirectory(path);
  const places = { key: join(path, FILES.key), chain: join(path, FILES.chain), trust: join(path, FILES.trust) };
  const chain = await readOwn(places.chain);
  const trust = await readOwn(places.trust);
  let key = await readOwn(places.key);
  const sealed = pemBlocks(key).find(({ label }) => label === SEALED_LABEL);
  try {
    if (sealed !== undefined) {
      if (unlocking === undefined) {
        checkCertificates({ chain, trust }, places);
        return { state: "locked", chain, trust };
      }
      key = Buffer.from(await unseal(sealed.der, unlocking, { purpose: PURPOSE })).toString();
    }
    checkCredentials({ key, chain, trust }, places);
  } catch (reason) {
    const { code, message } = SwarmError.from(reason);
    // What is wrong with a file is not the caller's argument.
    throw new SwarmError(code === "invalid_argument" ? "failed_precondition" : code, message, { cause: reason });
  }
  return { state: "ready", credentials: { key, chain, trust } };
}

function checkCredentials(credentials: Credentials, what: { readonly [Role in keyof Credentials]: string }): void {
  const key = readPrivateKey(credentials.key, what.key);
  const leaf = checkCertificates(credentials, what);
  if (leaf.checkPrivateKey(key)) return;
  const whose = `${what.chain} (${describeCertificate(leaf)})`;
  throw new SwarmError("invalid_argument", `${what.key} does not belong to ${whose}`);
}

function checkCertificates(
  { chain, trust }: Omit<Credentials, "key">,
  what: { readonly [Role in keyof Omit<Credentials, "key">]: string },
) {
  const [leaf] = readCertificates(chain, what.chain);
  readTrustBundle(trust, what.trust);
  return leaf;
}

/** Reads a small file that must be ours, and nobody else's to read. */
async function readOwn(path: string): Promise<string> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    // A FIFO must not make us wait, nor a link lead elsewhere.
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (reason) {
    const errno = errnoOf(reason);
    throw refused(path, errno === "ENOENT" ? "is missing" : errno === "ELOOP" ? "is a symbolic link" : String(errno));
  }
  try {
    const stat = await handle.stat();
    checkOwner(path, "file", stat);
    checkMode(path, stat);
    if (stat.size > FILE_BYTES_MAX) throw refused(path, `is larger than ${FILE_BYTES_MAX} bytes`);
    return await handle.readFile("latin1");
  } finally {
    await handle.close();
  }
}

async function checkDirectory(path: string): Promise<void> {
  try {
    const stat = await lstat(path);
    checkOwner(path, "directory", stat);
    checkMode(path, stat);
  } catch (reason) {
    throw errnoOf(reason) === "ENOENT" ? refused(path, "is missing") : reason;
  }
}

function checkOwner(path: string, kind: "file" | "directory", stat: Stats): void {
  if (!(kind === "file" ? stat.isFile() : stat.isDirectory())) throw refused(path, `is no ${kind}`);
  const uid = process.geteuid?.();
  if (uid === undefined || stat.uid === uid) return;
  throw refused(path, `belongs to the user with id ${stat.uid}, not to this program's, ${uid}`);
}

function checkMode(path: string, stat: Stats): void {
  const mode = stat.mode & 0o777;
  if ((mode & 0o077) === 0) return;
  const shown = mode.toString(8).padStart(4, "0");
  throw refused(path, `has mode ${shown}: it must be its owner's only (chmod go= ${path})`);
}

function refused(path: string, problem: string): SwarmError {
  return new SwarmError("failed_precondition", `${path} ${problem}`);
}
