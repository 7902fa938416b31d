/**
 * Goal: whenever the machine stops, key, certificate and roots on the disk are of one another; what others could read, or
 * what is damaged, is refused by name. Method: a writer that is killed at each of its steps; files changed by hand.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ClusterPki, type Member } from "../../test/cluster-pki.ts";
import { SwarmError } from "../base/error.ts";
import { systemEntropy } from "../base/random.ts";
import { type Credentials, readCredentials, writeCredentials } from "./credential-files.ts";
import { seal, type Unlocking, unseal } from "./sealed-key.ts";
import { newUnlockKey } from "./unlock-key.ts";

const folder = mkdtempSync(join(tmpdir(), "swarm-credentials-"));
afterAll(() => rmSync(folder, { recursive: true }));
let count = 0;
let first: Credentials;
let second: Credentials;
let pki: ClusterPki;

beforeAll(async () => {
  pki = await ClusterPki.open(Date.UTC(2026, 0, 1));
  first = credentialsOf(await pki.join(pki.node("swarm-manager")));
  second = credentialsOf(await pki.join(pki.node("swarm-manager")));
});

function credentialsOf({ key, chain, trust }: Member): Credentials {
  return { key, chain, trust };
}

function newDirectory(): string {
  return join(folder, String(count++), "identity");
}

/** A new directory with `first` in it. */
async function written(sealing?: Parameters<typeof writeCredentials>[2]): Promise<string> {
  const directory = newDirectory();
  await writeCredentials(directory, first, sealing);
  return directory;
}

async function refusal(work: () => unknown): Promise<string> {
  try {
    await work();
    return "accepted";
  } catch (reason) {
    expect(reason).toBeInstanceOf(SwarmError);
    const { code, message } = SwarmError.from(reason);
    return `${code}: ${message}`;
  }
}

describe("credentials", () => {
  test("are absent, written, read, and replaced whole", async () => {
    const directory = newDirectory();
    expect(await readCredentials(directory)).toEqual({ state: "absent" });
    await writeCredentials(directory, first);
    expect(await readCredentials(directory)).toEqual({ state: "ready", credentials: first });
    await writeCredentials(directory, second);
    await writeCredentials(directory, {
      ...second,
      trust: second.trust + (await ClusterPki.open(pki.nowMs)).files.certificates,
    });
    expect(await readCredentials(directory)).toMatchObject({ state: "ready", credentials: { key: second.key } });
    expect(readdirSync(directory).toSorted()).toEqual(["current", "generation-3"]);
    expect(readFileSync(join(directory, "current/key.pem"), "utf8")).toBe(second.key);
  });

  test("are their owner's only", async () => {
    const directory = newDirectory();
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    await writeCredentials(directory, first);
    const modes = ["", "current", "current/key.pem", "current/certificate.pem", "current/trust.pem"].map((name) =>
      (statSync(join(directory, name)).mode & 0o777).toString(8),
    );
    expect(modes).toEqual(["700", "700", "600", "600", "600"]);
  });

  test("that do not belong together are not written", async () => {
    const directory = newDirectory();
    const { key, chain, trust } = first;
    expect(await refusal(() => writeCredentials(directory, { key: second.key, chain, trust }))).toMatch(
      /^invalid_argument: the key does not belong to the certificate \(CN=\w{25}, .*issued by CN=swarm-ca\)$/,
    );
    expect(await refusal(() => writeCredentials(directory, { key, chain, trust: chain }))).toMatch(
      /which is no root certificate$/,
    );
    expect(await refusal(() => writeCredentials(directory, { key, chain: "", trust }))).toMatch(
      /the certificate holds no/,
    );
    expect(existsSync(directory)).toBe(false);
  });

  test("leave other files of the directory alone", async () => {
    const directory = await written();
    writeFileSync(join(directory, "notes"), "mine");
    mkdirSync(join(directory, "generation-x"));
    await writeCredentials(directory, second);
    expect(readdirSync(directory).toSorted()).toEqual(["current", "generation-2", "generation-x", "notes"]);
  });

  test("are not written where something else is in the way", async () => {
    const directory = newDirectory();
    mkdirSync(join(directory, "current/full"), { recursive: true, mode: 0o700 });
    expect(await refusal(() => writeCredentials(directory, first))).toMatch(
      /^failed_precondition: write credentials in .*identity: E(ISDIR|NOTEMPTY|EXIST)/,
    );
    const file = newDirectory();
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(file, "");
    expect(await refusal(() => writeCredentials(file, first))).toMatch(
      /^failed_precondition: write credentials in .*: EEXIST/,
    );
  });
});

describe("a writer that is killed", () => {
  /** Kills its process at the n-th call of what changes a disk, before it is done. */
  const KILLER = `
    import { syncBuiltinESMExports } from "node:module";
    import files from "node:fs/promises";
    let left = Number(process.argv[2]);
    const step = () => { if (--left === 0) process.kill(process.pid, "SIGKILL"); };
    for (const name of ["mkdir", "chmod", "open", "symlink", "rename", "rm"]) {
      const real = files[name];
      files[name] = (...args) => { step(); return real(...args); };
    }
    const handle = await files.open("/dev/null");
    const prototype = Object.getPrototypeOf(handle);
    await handle.close();
    left += 1;
    for (const name of ["sync", "writeFile"]) {
      const real = prototype[name];
      prototype[name] = function (...args) { step(); return real.apply(this, args); };
    }
    syncBuiltinESMExports();
    const { writeCredentials } = await import(process.argv[1]);
    let text = "";
    for await (const part of process.stdin) text += part;
    const { directory, credentials } = JSON.parse(text);
    await writeCredentials(directory, credentials);
  `;

  function writeKilledAt(step: number, directory: string, credentials: Credentials): NodeJS.Signals | null {
    const module = new URL("credential-files.ts", import.meta.url).href;
    const { signal, status, stderr } = spawnSync(
      process.execPath,
      ["--input-type=module", "-e", KILLER, module, String(step)],
      {
        input: JSON.stringify({ directory, credentials }),
        encoding: "utf8",
      },
    );
    if (signal === null) expect(`${status} ${stderr}`).toBe("0 ");
    return signal;
  }

  test("leaves the old or the new ones, whatever it was at, and the next one goes on", {
    timeout: 120_000,
  }, async () => {
    const found: string[] = [];
    for (let step = 1; ; step++) {
      const directory = await written();
      const signal = writeKilledAt(step, directory, second);
      const stored = await readCredentials(directory);
      expect(stored.state).toBe("ready");
      const key = stored.state === "ready" ? stored.credentials.key : "";
      expect([first.key, second.key]).toContain(key);
      found.push(key === first.key ? "old" : "new");
      await writeCredentials(directory, first);
      expect(await readCredentials(directory)).toEqual({ state: "ready", credentials: first });
      expect(readdirSync(directory)).toHaveLength(2);
      if (signal === null) break;
    }
    // Some steps before the one that counts, some after it.
    expect(found.length).toBeGreaterThan(18);
    expect(found.join(" ")).toMatch(/^(old ){12,}(new ?){4,}$/);
  });

  test("leaves none, or the new ones, where there were none", { timeout: 120_000 }, async () => {
    for (const step of [1, 3, 6, 9, 12, 14, 16]) {
      const directory = newDirectory();
      expect(writeKilledAt(step, directory, second)).toBe("SIGKILL");
      const stored = await readCredentials(directory);
      expect(stored).toEqual(stored.state === "absent" ? { state: "absent" } : { state: "ready", credentials: second });
      await writeCredentials(directory, first);
      expect(await readCredentials(directory)).toEqual({ state: "ready", credentials: first });
    }
  });
});

describe("files that are not as they were written", () => {
  test.each<[string, (generation: string) => void, RegExp]>([
    [
      "a key that others may read",
      (path) => chmodSync(join(path, "key.pem"), 0o644),
      /key\.pem has mode 0644: it must be its owner's only \(chmod go= .*key\.pem\)$/,
    ],
    ["a key of a group", (path) => chmodSync(join(path, "key.pem"), 0o640), /key\.pem has mode 0640/],
    ["roots that others may change", (path) => chmodSync(join(path, "trust.pem"), 0o622), /trust\.pem has mode 0622/],
    ["an open generation", (path) => chmodSync(path, 0o755), /generation-1 has mode 0755/],
    ["an open directory", (path) => chmodSync(join(path, ".."), 0o711), /identity has mode 0711/],
    ["no key", (path) => rmSync(join(path, "key.pem")), /key\.pem is missing$/],
    ["no generation", (path) => rmSync(path, { recursive: true }), /generation-1 is missing$/],
    ["a link instead of a key", (path) => link(join(path, "key.pem")), /key\.pem is a symbolic link$/],
    ["a directory instead of a key", (path) => replaceByDirectory(join(path, "key.pem")), /key\.pem is no file$/],
    [
      "an endless key",
      (path) => writeFileSync(join(path, "key.pem"), "x".repeat(300_000)),
      /key\.pem is larger than 262144 bytes$/,
    ],
    ["an empty key", (path) => writeFileSync(join(path, "key.pem"), ""), /key\.pem is no private key in PEM form$/],
    ["half a key", (path) => writeFileSync(join(path, "key.pem"), first.key.slice(0, 90)), /key\.pem is damaged/],
    [
      "another's key",
      (path) => writeFileSync(join(path, "key.pem"), second.key),
      /key\.pem does not belong to .*certificate\.pem \(CN=/,
    ],
    [
      "an empty certificate",
      (path) => writeFileSync(join(path, "certificate.pem"), ""),
      /certificate\.pem holds no certificate in PEM form$/,
    ],
    [
      "a key for a certificate",
      (path) => writeFileSync(join(path, "certificate.pem"), first.key),
      /certificate\.pem holds a private key, not a certificate$/,
    ],
    [
      "half a certificate",
      (path) => writeFileSync(join(path, "certificate.pem"), first.chain.replace(/\n.{30}/, "\n")),
      /certificate\.pem holds a damaged certificate/,
    ],
    [
      "no root",
      (path) => writeFileSync(join(path, "trust.pem"), first.chain),
      /trust\.pem holds CN=.*, which is no root certificate$/,
    ],
  ])("%s", async (_, change, problem) => {
    const directory = await written();
    change(join(directory, readlinkSync(join(directory, "current"))));
    const said = await refusal(() => readCredentials(directory));
    expect(said).toMatch(/^failed_precondition: \//);
    expect(said).toMatch(problem);
    expect(said).not.toContain(first.key.slice(40, 60));
  });

  test("a `current` that leads elsewhere, or is no link", async () => {
    const directory = await written();
    const current = join(directory, "current");
    rmSync(current);
    symlinkSync("../other/generation-1", current);
    expect(await refusal(() => readCredentials(directory))).toMatch(/current does not lead to a generation beside it$/);
    rmSync(current);
    renameSync(join(directory, "generation-1"), current);
    expect(await refusal(() => readCredentials(directory))).toMatch(/current is not a link to a generation$/);
  });

  test.runIf(process.geteuid?.() === 0)("somebody else's", async () => {
    const directory = await written();
    chownSync(join(directory, "generation-1/key.pem"), 1234, 1234);
    expect(await refusal(() => readCredentials(directory))).toMatch(
      /key\.pem belongs to the user with id 1234, not to this program's, 0$/,
    );
  });

  function link(path: string): void {
    renameSync(path, `${path}.moved`);
    symlinkSync(`${path}.moved`, path);
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
  }

  function replaceByDirectory(path: string): void {
    rmSync(path);
    mkdirSync(path);
  }
});

describe("a sealed key", () => {
  const unlocking: Unlocking = { type: "unlock-key", key: newUnlockKey(systemEntropy) };
  const passphrase: Unlocking = { type: "passphrase", passphrase: "correct horse" };

  test.each([unlocking, passphrase])("opens with its $type only", async (own) => {
    const directory = await written({ unlocking: own, entropy: systemEntropy });
    const text = readFileSync(join(directory, "current/key.pem"), "utf8");
    expect(text).toMatch(/^-----BEGIN SWARM SEALED KEY-----\n/);
    expect(text).not.toContain(first.key.split("\n")[1]);
    const { chain, trust } = first;
    expect(await readCredentials(directory)).toEqual({ state: "locked", chain, trust });
    expect(await readCredentials(directory, own)).toEqual({ state: "ready", credentials: first });
    const another: Unlocking =
      own.type === "passphrase"
        ? { type: "passphrase", passphrase: "x" }
        : { type: "unlock-key", key: newUnlockKey(systemEntropy) };
    expect(await refusal(() => readCredentials(directory, another))).toMatch(
      /^permission_denied: the node key is sealed under another (passphrase|unlock key)$/,
    );
    const kind = own.type === "passphrase" ? unlocking : passphrase;
    expect(await refusal(() => readCredentials(directory, kind))).toMatch(
      /^permission_denied: the node key is sealed under an? /,
    );
  });

  test("takes the place of an open one, which does not stay, and the other way round", async () => {
    const directory = await written();
    await writeCredentials(directory, first, { unlocking, entropy: systemEntropy });
    expect(readdirSync(directory).toSorted()).toEqual(["current", "generation-2"]);
    await writeCredentials(directory, first);
    expect(await readCredentials(directory, unlocking)).toEqual({ state: "ready", credentials: first });
  });

  test("that is damaged, of a later version, or for another purpose, is told apart", async () => {
    const plaintext = Buffer.from("a key");
    const purpose = { purpose: "node key" };
    const sealed = await seal(plaintext, unlocking, { ...purpose, entropy: systemEntropy });
    expect(Buffer.from(await unseal(sealed, unlocking, purpose))).toEqual(plaintext);
    expect(await seal(plaintext, unlocking, { ...purpose, entropy: systemEntropy })).not.toEqual(sealed);
    expect(await refusal(() => unseal(sealed, unlocking, { purpose: "cluster key" }))).toBe(
      "data_loss: the sealed cluster key is damaged",
    );
    for (let at = 0; at < sealed.length; at++) {
      const changed = Uint8Array.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await refusal(() => unseal(changed, unlocking, purpose)), `byte ${at}`).toMatch(
        at === 0
          ? /^unimplemented: the sealed node key is of an unknown version$/
          : /^(permission_denied|data_loss): the /,
      );
    }
    for (let length = 0; length < sealed.length; length++) {
      expect(await refusal(() => unseal(sealed.subarray(0, length), unlocking, purpose))).not.toBe("accepted");
    }
  });
});
