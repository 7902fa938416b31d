/**
 * The one door to `@peculiar/x509`, which writes certificates and reads requests for them. It is loaded at first use, since it
 * takes 0.15 s and 20 MB: who only reads certificates (swarmctl, an agent between two renewals) goes without, by Node's own
 * `X509Certificate`.
 */
import type * as Library from "@peculiar/x509";

export type { Name } from "@peculiar/x509";

let library: Promise<typeof Library> | undefined;

export function loadX509(): Promise<typeof Library> {
  library ??= load();
  return library;
}

async function load(): Promise<typeof Library> {
  // The library's own parts find one another by it.
  await import("reflect-metadata");
  const loaded = await import("@peculiar/x509");
  loaded.cryptoProvider.set(globalThis.crypto);
  return loaded;
}
