/** Keys of WireGuard's kind: X25519, 32 bytes each. */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";

/** What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410 §7). */
const PKCS8_HEAD = Buffer.from("302e020100300506032b656e04220420", "hex");

export function generatePrivateKey(): Uint8Array {
  const der = generateKeyPairSync("x25519").privateKey.export({ format: "der", type: "pkcs8" });
  return new Uint8Array(der.subarray(PKCS8_HEAD.length));
}

export function publicKeyOf(privateKey: Uint8Array): Uint8Array {
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, privateKey]), format: "der", type: "pkcs8" });
  const { x = "" } = createPublicKey(key).export({ format: "jwk" });
  return new Uint8Array(Buffer.from(x, "base64url"));
}
