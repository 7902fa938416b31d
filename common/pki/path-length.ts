/** How long a chain may be (RFC 5280, 4.2.1.9): what Node's `X509Certificate` does not tell. */
import type { X509Certificate } from "node:crypto";
import { loadX509 } from "./x509.ts";

/** How many authorities an authority allows between itself and a leaf; undefined for any number. */
export async function pathLengthOf(authority: X509Certificate): Promise<number | undefined> {
  const { BasicConstraintsExtension, X509Certificate: Reader } = await loadX509();
  return new Reader(authority.raw).getExtension(BasicConstraintsExtension)?.pathLength;
}

/**
 * How many more authorities a chain of them, from the signer to its root, allows below the signer; negative for a chain that
 * is too long itself. One that is signed under its own name (a cross-signed root may be) does not count.
 */
export async function roomBelow(chain: readonly X509Certificate[]): Promise<number> {
  let room = Number.POSITIVE_INFINITY;
  let below = 0;
  for (const each of chain) {
    room = Math.min(room, ((await pathLengthOf(each)) ?? room) - below);
    if (each.subject !== each.issuer) below++;
  }
  return room;
}
