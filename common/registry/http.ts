/**
 * HTTP as a registry client needs it: redirects that never carry credentials elsewhere, limits on every wait and body,
 * certificates checked, addresses checked against being led into a private network. Over node:http, since fetch hides all
 * of that.
 */
import { lookup } from "node:dns";
import { type ClientRequest, type IncomingMessage, Agent as PlainAgent, request as plainRequest } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { abortReason, type Clock } from "../base/clock.ts";
import { errnoOf, SwarmError } from "../base/error.ts";
import { type AddressKind, addressKind } from "./address.ts";

/** Waits and sizes of one exchange. */
export interface HttpLimits {
  /** Until a response's headers are complete. Default 15 s. */
  readonly headersTimeoutMs: number;
  /** A body must bring `bodyBytesMin` in each stretch of this length. Default 60 s. */
  readonly bodyTimeoutMs: number;
  /** Default 64 KiB: slower than 1 KiB/s is as good as dead. */
  readonly bodyBytesMin: number;
  /** Default 5. */
  readonly redirectsMax: number;
}

/** Values of hardening.md §1.4. */
export const DEFAULT_HTTP_LIMITS: HttpLimits = {
  headersTimeoutMs: 15_000,
  bodyTimeoutMs: 60_000,
  bodyBytesMin: 64 * 1024,
  redirectsMax: 5,
};

/** What to ask for. */
export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Only for registries that are declared insecure: certificates are not checked. */
  readonly acceptsAnyCertificate: boolean;
  /** Addresses that the request and its redirects may go to. */
  readonly allows: (kind: AddressKind) => boolean;
}

/** A response whose headers are in; its body is to be read or cancelled. */
export interface HttpResponse {
  readonly status: number;
  /** Where it came from, after redirects. */
  readonly url: URL;
  /** Of the server: what its redirects and challenges may lead to depends on it. */
  readonly remote: AddressKind;
  header(name: string): string | undefined;
  /** The body in pieces. Throws `unavailable` when it is cut or too slow. */
  body(signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined>;
  /** The whole body. Throws `resource_exhausted` beyond `bytesMax`. */
  bytes(bytesMax: number, signal: AbortSignal): Promise<Buffer>;
  /** Gives the body up. */
  cancel(): void;
}

/** Sends requests, on connections that are kept open between them. */
export class HttpClient implements Disposable {
  readonly #clock: Clock;
  readonly #limits: HttpLimits;
  readonly #plain = new PlainAgent({ keepAlive: true, maxFreeSockets: 4 });
  readonly #verified = new TlsAgent({ keepAlive: true, maxFreeSockets: 4 });
  readonly #unverified = new TlsAgent({ keepAlive: true, maxFreeSockets: 4, rejectUnauthorized: false });

  constructor(clock: Clock, limits: HttpLimits = DEFAULT_HTTP_LIMITS) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Closes idle connections. */
  [Symbol.dispose](): void {
    for (const agent of [this.#plain, this.#verified, this.#unverified]) agent.destroy();
  }

  /**
   * Sends and follows redirects of GETs. Throws `unavailable` for a server that cannot be reached or does not answer,
   * `permission_denied` for a bad certificate (`x509: …`) or a redirect that is not followed.
   */
  async send(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    let current = request;
    for (let redirects = 0; ; redirects++) {
      const response = await this.#exchange(current, signal);
      const location = response.header("location");
      if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined) return response;
      response.cancel();
      if (redirects === this.#limits.redirectsMax) throw refused(request.url, `more than ${redirects} redirects`);
      current = redirected(current, location, response.remote);
    }
  }

  async #exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    if (signal.aborted) throw abortReason(signal);
    const { url } = request;
    const isTls = url.protocol === "https:";
    const host = url.hostname.replace(/^\[|\]$/g, "");
    if (isIP(host) && !request.allows(addressKind(host))) throw refused(url, "a private address");
    const agent = isTls ? (request.acceptsAnyCertificate ? this.#unverified : this.#verified) : this.#plain;
    const sent = (isTls ? tlsRequest : plainRequest)(url, {
      method: request.method,
      headers: request.headers,
      agent,
      lookup: guardedLookup(request),
    });
    try {
      return this.#response(request, await this.#headers(sent, request, signal));
    } catch (reason) {
      sent.destroy();
      throw connectionError(url, reason);
    }
  }

  /** Waits for the response's headers, the deadline, or the end of `signal`. */
  async #headers(sent: ClientRequest, request: HttpRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const answered = Promise.withResolvers<IncomingMessage>();
    const timer = new AbortController();
    const onAbort = () => answered.reject(abortReason(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    sent.once("response", answered.resolve);
    // Stays for the whole exchange: a connection's late error must find a listener.
    sent.on("error", answered.reject);
    this.#clock.sleep(this.#limits.headersTimeoutMs, timer.signal).then(
      () => answered.reject(unavailable(request.url, `no answer in ${this.#limits.headersTimeoutMs} ms`)),
      () => {},
    );
    sent.end(request.body);
    try {
      return await answered.promise;
    } finally {
      timer.abort();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #response(request: HttpRequest, message: IncomingMessage): HttpResponse {
    const { url } = request;
    message.on("error", () => {}); // Whoever reads the body gets it too; nobody may be reading.
    const body = (signal: AbortSignal) => this.#body(url, message, signal);
    return {
      status: message.statusCode ?? 0,
      url,
      remote: addressKind(message.socket.remoteAddress ?? ""),
      header: (name) => {
        const value = message.headers[name];
        return Array.isArray(value) ? value.join(", ") : value;
      },
      body,
      async bytes(bytesMax, signal) {
        const pieces: Uint8Array[] = [];
        let length = 0;
        for await (const piece of body(signal)) {
          length += piece.length;
          if (length > bytesMax)
            throw new SwarmError("resource_exhausted", `GET ${url}: body is over ${bytesMax} bytes`);
          pieces.push(piece);
        }
        return Buffer.concat(pieces);
      },
      cancel: () => message.destroy(),
    };
  }

  async *#body(url: URL, message: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const pace = new Pace(this.#clock, this.#limits, () =>
      message.destroy(
        unavailable(url, `less than ${this.#limits.bodyBytesMin} bytes in ${this.#limits.bodyTimeoutMs} ms`),
      ),
    );
    const onAbort = () => message.destroy(abortReason(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (signal.aborted) throw abortReason(signal);
      const pieces = message[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
      while (true) {
        pace.resume();
        const next = await pieces.next();
        pace.pause(next.done ? 0 : next.value.length);
        if (next.done) break;
        yield next.value;
      }
      if (!message.complete) throw unavailable(url, "body was cut short");
    } catch (reason) {
      throw connectionError(url, reason);
    } finally {
      pace.stop();
      signal.removeEventListener("abort", onAbort);
      if (!message.complete) message.destroy();
    }
  }
}

/** Calls `onSlow` when the sender is slow; time that the reader takes for itself does not count. */
class Pace {
  readonly #clock: Clock;
  readonly #limits: HttpLimits;
  readonly #timer = new AbortController();
  #waitedMs = 0;
  #bytes = 0;
  #waitingSinceMs: number | undefined;

  constructor(clock: Clock, limits: HttpLimits, onSlow: () => void) {
    this.#clock = clock;
    this.#limits = limits;
    this.#watch(onSlow).catch(() => {}); // Ends by `stop`.
  }

  resume(): void {
    this.#waitingSinceMs = this.#clock.monotonicMs();
  }

  pause(bytes: number): void {
    this.#waitedMs += this.#waitingMs();
    this.#waitingSinceMs = undefined;
    this.#bytes += bytes;
    if (this.#bytes < this.#limits.bodyBytesMin) return;
    this.#bytes = 0;
    this.#waitedMs = 0;
  }

  stop(): void {
    this.#timer.abort();
  }

  #waitingMs(): number {
    return this.#waitingSinceMs === undefined ? 0 : this.#clock.monotonicMs() - this.#waitingSinceMs;
  }

  async #watch(onSlow: () => void): Promise<void> {
    while (true) {
      const leftMs = this.#limits.bodyTimeoutMs - this.#waitedMs - this.#waitingMs();
      if (leftMs <= 0) return onSlow();
      // While the reader is busy, what is left does not shrink: look again at leisure.
      await this.#clock.sleep(Math.max(leftMs, this.#limits.bodyTimeoutMs / 20), this.#timer.signal);
    }
  }
}

/** The request to where a redirect leads; credentials stay with the host, port and scheme they were meant for. */
function redirected(request: HttpRequest, location: string, from: AddressKind): HttpRequest {
  const url = URL.canParse(location, request.url.href) ? new URL(location, request.url) : undefined;
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:"))
    throw refused(request.url, "redirect to no web address");
  if (request.url.protocol === "https:" && url.protocol === "http:")
    throw refused(request.url, "redirect from https to http");
  const { authorization, ...others } = request.headers;
  const headers =
    url.origin === request.url.origin && authorization !== undefined ? { ...others, authorization } : others;
  const allows = (kind: AddressKind) => request.allows(kind) && (kind === "public" || kind === from);
  return { ...request, url, headers, allows };
}

/** Resolves names as usual, but not to addresses the request may not go to. */
function guardedLookup(request: HttpRequest): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, "", 0);
      const allowed = addresses.filter(({ address }) => request.allows(addressKind(address)));
      const [first] = allowed;
      if (!first) return callback(refused(request.url, "a private address"), "", 0);
      if (options.all) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

function connectionError(url: URL, reason: unknown): SwarmError {
  if (reason instanceof SwarmError) return reason;
  const code = reason instanceof Error && "code" in reason ? String(reason.code) : "";
  const message = reason instanceof Error ? reason.message : String(reason);
  if (/^(?:CERT_|ERR_TLS_CERT|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_SSL_CERT)/.test(code)) {
    return new SwarmError("permission_denied", `GET ${url.origin}: x509: ${message} (${code})`, { cause: reason });
  }
  return new SwarmError("unavailable", `GET ${url.origin}: ${errnoOf(reason) ?? message}`, { cause: reason });
}

function unavailable(url: URL, problem: string): SwarmError {
  return new SwarmError("unavailable", `GET ${url.origin}${url.pathname}: ${problem}`);
}

function refused(url: URL, problem: string): SwarmError {
  return new SwarmError("permission_denied", `GET ${url.origin}${url.pathname}: refused: ${problem}`);
}
