/** Goal: what is sealed comes back for who has the key and the right place, and for nobody else. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { systemEntropy } from "../../common/base/random.ts";
import { sameBytes } from "../../common/base/same-bytes.ts";
import { KEY_BYTES, keyId } from "./cluster-key.ts";
import { keyFile } from "./key-file.ts";
import { Sealer } from "./sealer.ts";

const PLACE = "a/0000000001";
const secret = Buffer.from("correct horse battery staple");
const key = systemEntropy(KEY_BYTES);
const sealer = new Sealer(key, systemEntropy);

describe("sealing", () => {
  test("opens what it sealed, each time under another nonce", () => {
    const [first, second] = [sealer.seal(secret, PLACE), sealer.seal(secret, PLACE)];
    expect(Buffer.from(sealer.open(first, PLACE))).toEqual(secret);
    expect(Buffer.from(sealer.open(second, PLACE))).toEqual(secret);
    expect(Buffer.from(first).equals(second)).toBe(false);
    expect(Buffer.from(first).includes(secret)).toBe(false);
    expect(Buffer.from(sealer.open(sealer.seal(Buffer.of(), PLACE), PLACE))).toEqual(Buffer.of());
  });

  test("a changed byte, another place, another key and garbage are refused", () => {
    const sealed = sealer.seal(secret, PLACE);
    for (let at = 0; at < sealed.length; at++) {
      const changed = Uint8Array.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => sealer.open(changed, PLACE), `byte ${at}`).toThrow(/cannot be opened/);
    }
    expect(() => sealer.open(sealed, "b/0000000001")).toThrow(/cannot be opened/);
    expect(() => sealer.open(sealed, "a/0000000002")).toThrow(/cannot be opened/);
    const other = new Sealer(systemEntropy(KEY_BYTES), systemEntropy);
    expect(() => other.open(sealed, PLACE)).toThrow(/cannot be opened/);
    for (const length of [0, 1, 28]) expect(() => sealer.open(sealed.subarray(0, length), PLACE)).toThrow(/cannot/);
  });

  test("fingerprints tell equal content, and nothing without the key", () => {
    const other = new Sealer(systemEntropy(KEY_BYTES), systemEntropy);
    expect(sameBytes(sealer.fingerprint(secret), sealer.fingerprint(Buffer.from(secret)))).toBe(true);
    expect(sameBytes(sealer.fingerprint(secret), sealer.fingerprint(Buffer.from("other")))).toBe(false);
    expect(sameBytes(sealer.fingerprint(secret), other.fingerprint(secret))).toBe(false);
    expect(other.keyId).not.toBe(sealer.keyId);
    expect(keyId(key)).toBe(sealer.keyId);
  });
});

describe("the key's file", () => {
  const folder = mkdtempSync(join(tmpdir(), "swarm-key-"));
  const path = join(folder, "cluster.key");
  afterAll(() => rmSync(folder, { recursive: true }));

  test("is made once, for its owner only, and read again", () => {
    const file = keyFile(path, systemEntropy);
    expect(file.read()).toBeUndefined();
    expect(existsSync(path)).toBe(false);
    const made = file.create();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(Buffer.from(file.read() ?? [])).toEqual(Buffer.from(made));
  });

  test("that others may read, or that holds no key, is refused without its content", () => {
    writeFileSync(path, readFileSync(path), { mode: 0o600 });
    const open = join(folder, "open.key");
    writeFileSync(open, readFileSync(path), { mode: 0o644 });
    expect(() => keyFile(open, systemEntropy).read()).toThrow(/open\.key has mode 0644: it must be its owner's only/);
    const bad = join(folder, "bad.key");
    writeFileSync(bad, "hunter2", { mode: 0o600 });
    expect(() => keyFile(bad, systemEntropy).read()).toThrow(/bad\.key is not a cluster key/);
    expect(() => keyFile(bad, systemEntropy).read()).not.toThrow(/hunter2/);
  });
});
