/**
 * Key files that lie sealed: AES-256-GCM (NIST SP 800-38D) under an unlock key, or under a passphrase. Each sealing has its own
 * key, by a salt; what is sealed is bound to its purpose, so that one file cannot be put in another's place.
 *
 *   sealed = version 1 | derivation | salt (16) | check (8) | nonce (12) | ciphertext | tag (16)
 *
 *   derivation 1: HKDF-SHA-256 (RFC 5869) of an unlock key, which has 256 bits of chance
 *              2: scrypt (RFC 7914) with N = 2^15, r = 8, p = 1 of a passphrase: 32 MiB and 0.1 s for each guess
 *   check      tells another key from a damaged file; whoever can test it can test the tag, too
 */
import { createCipheriv, createDecipheriv, hkdfSync, scrypt } from "node:crypto";
import { promisify } from "node:util";
import { SwarmError } from "../base/error.ts";
import type { Entropy } from "../base/random.ts";
import { sameBytes } from "../base/same-bytes.ts";

/** What opens a sealed file. */
export type Unlocking =
  | { readonly type: "unlock-key"; readonly key: Uint8Array }
  | { readonly type: "passphrase"; readonly passphrase: string };

const VERSION = 1;
const DERIVATIONS = { "unlock-key": 1, passphrase: 2 } as const satisfies Record<Unlocking["type"], number>;
const SALT_BYTES = 16;
const CHECK_BYTES = 8;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const HEADER_BYTES = 2 + SALT_BYTES;
const SCRYPT = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };

const deriveSlowly = promisify<string, Uint8Array, number, typeof SCRYPT, Buffer>(scrypt);

/** `purpose` says what is sealed ("node key"). */
export async function seal(
  plaintext: Uint8Array,
  unlocking: Unlocking,
  { purpose, entropy }: { readonly purpose: string; readonly entropy: Entropy },
): Promise<Uint8Array> {
  const header = Buffer.concat([Buffer.of(VERSION, DERIVATIONS[unlocking.type]), entropy(SALT_BYTES)]);
  const { key, check } = await derive(unlocking, header.subarray(2));
  const nonce = entropy(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(boundTo(header, purpose));
  const ciphertext = [cipher.update(plaintext), cipher.final()];
  return Buffer.concat([header, check, nonce, ...ciphertext, cipher.getAuthTag()]);
}

/**
 * What was sealed. Throws `permission_denied` when it was sealed under another key, `data_loss` when it is damaged or was
 * sealed for another purpose, `unimplemented` when a later version sealed it.
 */
export async function unseal(
  sealed: Uint8Array,
  unlocking: Unlocking,
  { purpose }: { readonly purpose: string },
): Promise<Uint8Array> {
  const [version, derivation] = sealed;
  if (version !== VERSION) throw new SwarmError("unimplemented", `the sealed ${purpose} is of an unknown version`);
  if (derivation !== DERIVATIONS[unlocking.type]) {
    const wanted = derivation === DERIVATIONS.passphrase ? "a passphrase" : "an unlock key";
    throw new SwarmError("permission_denied", `the ${purpose} is sealed under ${wanted}`);
  }
  const rest = sealed.subarray(HEADER_BYTES);
  if (rest.length < CHECK_BYTES + NONCE_BYTES + TAG_BYTES) throw damaged(purpose);
  const { key, check } = await derive(unlocking, sealed.subarray(2, HEADER_BYTES));
  if (!sameBytes(check, rest.subarray(0, CHECK_BYTES))) {
    const given = unlocking.type === "passphrase" ? "passphrase" : "unlock key";
    throw new SwarmError("permission_denied", `the ${purpose} is sealed under another ${given}`);
  }
  const nonce = rest.subarray(CHECK_BYTES, CHECK_BYTES + NONCE_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(boundTo(sealed.subarray(0, HEADER_BYTES), purpose)).setAuthTag(rest.subarray(-TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(rest.subarray(CHECK_BYTES + NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
  } catch {
    throw damaged(purpose);
  }
}

function boundTo(header: Uint8Array, purpose: string): Buffer {
  return Buffer.concat([header, Buffer.from(purpose)]);
}

async function derive(
  unlocking: Unlocking,
  salt: Uint8Array,
): Promise<{ readonly key: Uint8Array; readonly check: Uint8Array }> {
  const bytes =
    unlocking.type === "passphrase"
      ? await deriveSlowly(unlocking.passphrase.normalize("NFC"), salt, KEY_BYTES + CHECK_BYTES, SCRYPT)
      : Buffer.from(hkdfSync("sha256", unlocking.key, salt, "swarm sealed key", KEY_BYTES + CHECK_BYTES));
  return { key: bytes.subarray(0, KEY_BYTES), check: bytes.subarray(KEY_BYTES) };
}

function damaged(purpose: string): SwarmError {
  return new SwarmError("data_loss", `the sealed ${purpose} is damaged`);
}
