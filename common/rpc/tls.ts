/**
 * TLS as both ends of this project's wire speak it: 1.3 only (RFC 8446), since both ends are ours, and on the server's side
 * never without a client's certificate, except where hosts come to get their first one.
 */
import type { ConnectionOptions, SecureContextOptions, TlsOptions } from "node:tls";

/** One end's proof of identity and whom it trusts, as PEM. */
export interface TlsPem {
  /** Certificates of the authorities that may vouch for the other end. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** A caller's side. */
export interface ClientTls {
  /** Absent: the authorities that Node trusts. */
  readonly ca?: string | undefined;
  /** With `key`, or both absent: then the server must not ask for one. */
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  /** The name that the server's certificate must have, whatever its address. Absent: that of its address. */
  readonly serverName?: string;
  /** Whether the server must prove who it is. Default true; false is dockerd's `--tls` without `--tlsverify`. */
  readonly verify?: boolean;
}

/** What a caller's `tls.createSecureContext` or `tls.connect` is told. */
export function clientTlsOptions({ ca, certificate, key }: ClientTls): SecureContextOptions & ConnectionOptions {
  return {
    minVersion: "TLSv1.3",
    ...(ca === undefined ? {} : { ca }),
    ...(certificate === undefined || key === undefined ? {} : { cert: certificate, key }),
  };
}

/** A server's certificate and whose clients it takes, renewable while the server runs. */
export class MutualTls {
  readonly #anonymous: boolean;
  readonly #listeners = new Set<() => void>();
  #pem: TlsPem;

  /** `anonymous`: callers without a certificate, or with one that nobody vouches for, come through without an identity. */
  constructor(pem: TlsPem, { anonymous = false }: { readonly anonymous?: boolean } = {}) {
    this.#pem = pem;
    this.#anonymous = anonymous;
  }

  /** What a `tls.Server` is told now. */
  get serverOptions(): TlsOptions {
    const { ca, certificate, key } = this.#pem;
    return {
      minVersion: "TLSv1.3",
      ca,
      cert: certificate,
      key,
      requestCert: true,
      rejectUnauthorized: !this.#anonymous,
    };
  }

  /** New connections are made with `pem`; open ones stay as they are. */
  renew(pem: TlsPem): void {
    this.#pem = pem;
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` whenever `serverOptions` has changed; what comes back ends that. */
  onRenewed(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
