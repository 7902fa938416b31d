/**
 * Seals secrets: AES-256-GCM (NIST SP 800-38D) under a key derived from the cluster's, with a random 96-bit nonce. What is
 * sealed is bound to its place, so that whoever can write to the store cannot put one secret in another's.
 *
 *   sealed = version 1 | nonce (12 bytes) | ciphertext | tag (16 bytes)
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import { assert, SwarmError } from "../../common/base/error.ts";
import type { Entropy } from "../../common/base/random.ts";
import { KEY_BYTES, keyId } from "./cluster-key.ts";

const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export class Sealer {
  /** Of the cluster's key. */
  readonly keyId: string;
  readonly #sealing: Uint8Array;
  readonly #marking: Uint8Array;
  readonly #entropy: Entropy;

  constructor(key: Uint8Array, entropy: Entropy) {
    assert(key.length === KEY_BYTES, "a cluster key of another length");
    this.keyId = keyId(key);
    this.#entropy = entropy;
    // One key for each purpose (RFC 5869).
    this.#sealing = derive(key, "seal");
    this.#marking = derive(key, "fingerprint");
  }

  /** `place` names what is sealed: an object's id and version. */
  seal(plaintext: Uint8Array, place: string): Uint8Array {
    const nonce = this.#entropy(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#sealing, nonce).setAAD(Buffer.from(place));
    const ciphertext = [cipher.update(plaintext), cipher.final()];
    return Buffer.concat([Buffer.of(VERSION), nonce, ...ciphertext, cipher.getAuthTag()]);
  }

  /** @throws data_loss: it was sealed elsewhere, under another key, or was changed. */
  open(sealed: Uint8Array, place: string): Uint8Array {
    if (sealed.length < 1 + NONCE_BYTES + TAG_BYTES || sealed[0] !== VERSION) throw unreadable(place);
    const nonce = sealed.subarray(1, 1 + NONCE_BYTES);
    const decipher = createDecipheriv("aes-256-gcm", this.#sealing, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(place)).setAuthTag(sealed.subarray(-TAG_BYTES));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(1 + NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
    } catch {
      throw unreadable(place);
    }
  }

  /** Tells equal content without helping to guess it: HMAC-SHA-256. */
  fingerprint(plaintext: Uint8Array): Uint8Array {
    return createHmac("sha256", this.#marking).update(plaintext).digest();
  }
}

function derive(key: Uint8Array, purpose: string): Uint8Array {
  return Buffer.from(hkdfSync("sha256", key, "", `swarm ${purpose}`, KEY_BYTES));
}

function unreadable(place: string): SwarmError {
  return new SwarmError(
    "data_loss",
    `secret content ${place} cannot be opened: it was changed, or sealed under another key`,
  );
}
