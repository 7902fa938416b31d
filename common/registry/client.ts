/**
 * A client of registries (OCI distribution-spec v1.1, Docker's v2 API): resolves references, fetches manifests and configs,
 * streams layers. It hands on what it was given and vouches for nothing but sizes: the pull checks digests.
 */
import { Backoff } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import type { Random } from "../base/random.ts";
import { digestOf } from "../model/digest.ts";
import { familiarName, type ImageReference } from "../model/image-reference.ts";
import { type Descriptor, MANIFEST_BYTES_MAX, MANIFEST_MEDIA_TYPES } from "../model/oci-image.ts";
import { addressKind } from "./address.ts";
import { type ChallengeOrigin, parseChallenge, type RegistryCredentials, TokenCache } from "./auth.ts";
import { HttpClient, type HttpLimits, type HttpResponse } from "./http.ts";
import type { ImageSource, RemoteImage } from "./source.ts";

/** How registries are spoken to. */
export interface RegistryOptions {
  /** `host` or `host:port` of registries that may use plain HTTP or any certificate. */
  readonly insecureRegistries: readonly string[];
  /** Registries on this machine count as insecure, as with Docker. Default true. */
  readonly trustsLoopback?: boolean;
  readonly limits?: HttpLimits;
}

/** Requests of one try: connection, 429, 5xx. */
const TRIES_MAX = 3;
const BACKOFF = { delayMsMin: 500, delayMsMax: 10_000 };
/** A registry that asks for more patience than this gets none. */
const RETRY_AFTER_MS_MAX = 60_000;
/** What a registry says about an error is read up to here. */
const ERROR_BYTES_MAX = 1024 * 1024;
const DOCKER_HUB = "docker.io";
const DOCKER_HUB_HOST = "registry-1.docker.io";

/** Shared by all pulls: keeps connections, tokens, and which registries speak plain HTTP. */
export class RegistryClient implements Disposable {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: RegistryOptions;
  readonly #http: HttpClient;
  readonly #tokens: TokenCache;
  readonly #plainDomains = new Set<string>();

  constructor(clock: Clock, random: Random, options: RegistryOptions) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
    this.#http = new HttpClient(clock, options.limits);
    this.#tokens = new TokenCache(this.#http, clock);
  }

  [Symbol.dispose](): void {
    this.#http[Symbol.dispose]();
  }

  /** The registries as a source of images, with what to log in with at the domain of the reference. */
  source(credentials?: RegistryCredentials): ImageSource {
    return { resolve: (reference, signal) => this.#resolve(new Repository(reference, credentials), signal) };
  }

  /**
   * The digest of what `reference` names now, computed from the manifest; undefined where there is no such image. Throws as
   * `ImageSource.resolve` does.
   */
  async digestOf(
    reference: ImageReference,
    credentials: RegistryCredentials | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    return (await this.#resolve(new Repository(reference, credentials), signal))?.content.digest;
  }

  async #resolve(repository: Repository, signal: AbortSignal): Promise<RemoteImage | undefined> {
    const { reference } = repository;
    const name = reference.digest ?? reference.tag ?? "latest";
    const response = await this.#get(
      repository,
      `manifests/${name}`,
      { accept: MANIFEST_MEDIA_TYPES.join(", ") },
      signal,
    );
    if (response.status === 404) {
      response.cancel();
      return undefined;
    }
    await this.#expect(response, [200], familiarName(reference), signal);
    const bytes = await response.bytes(MANIFEST_BYTES_MAX, signal);
    const digest = digestOf(bytes, reference.digest);
    if (reference.digest !== undefined && reference.digest !== digest) {
      throw new SwarmError("data_loss", `digest mismatch: manifest is ${digest}, not ${reference.digest}`);
    }
    const mediaType = response.header("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
    return {
      origin: `registry ${reference.domain}`,
      content: { bytes, digest, mediaType: mediaType === "" ? undefined : mediaType },
      fetch: (descriptor, fetchSignal) => this.#fetch(repository, descriptor, fetchSignal),
      stream: (descriptor, offset, streamSignal) => this.#stream(repository, descriptor, offset, streamSignal),
    };
  }

  async #fetch(repository: Repository, descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
    const isManifest = MANIFEST_MEDIA_TYPES.includes(descriptor.mediaType);
    const path = `${isManifest ? "manifests" : "blobs"}/${descriptor.digest}`;
    const response = await this.#get(repository, path, { accept: isManifest ? descriptor.mediaType : "*/*" }, signal);
    await this.#expect(response, [200], descriptor.digest, signal);
    return response.bytes(Math.min(descriptor.sizeBytes, MANIFEST_BYTES_MAX), signal);
  }

  async *#stream(
    repository: Repository,
    descriptor: Descriptor,
    offset: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const path = `blobs/${descriptor.digest}`;
    const range: Readonly<Record<string, string>> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    let response = await this.#get(repository, path, { accept: "*/*", ...range }, signal);
    if (response.status === 416) {
      response.cancel();
      response = await this.#get(repository, path, { accept: "*/*" }, signal);
    }
    await this.#expect(response, [200, 206], descriptor.digest, signal);
    // A server may ignore the range and start over, or start where it likes.
    let skipBytes = offset - (response.status === 206 ? rangeStart(response) : 0);
    if (skipBytes < 0) {
      response.cancel();
      throw new SwarmError("unavailable", `GET ${response.url.origin}: answered with another range than asked for`);
    }
    for await (const bytes of response.body(signal)) {
      const kept = bytes.subarray(skipBytes);
      skipBytes -= bytes.length - kept.length;
      if (kept.length > 0) yield kept;
    }
  }

  /** One GET of a repository, with as many tries as it takes and is worth. The status is the caller's to judge. */
  async #get(
    repository: Repository,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const backoff = new Backoff(BACKOFF, this.#random);
    for (let tries = 1; ; tries++) {
      let delayMs = backoff.nextDelayMs();
      try {
        const response = await this.#authorized(repository, path, headers, signal);
        if ((response.status !== 429 && response.status < 500) || tries === TRIES_MAX) return response;
        delayMs = Math.min(retryAfterMs(response, this.#clock) ?? delayMs, RETRY_AFTER_MS_MAX);
        response.cancel();
      } catch (reason) {
        if (!(reason instanceof SwarmError) || reason.code !== "unavailable" || tries === TRIES_MAX) throw reason;
      }
      await this.#clock.sleep(delayMs, signal);
    }
  }

  /** Sends, answers at most one challenge, sends again. */
  async #authorized(
    repository: Repository,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { reference, scope, credentials } = repository;
    const host = hostOf(reference);
    const isInsecure = this.#isInsecure(reference.domain);
    const known: ChallengeOrigin = { host, isInsecure, remote: "public" };
    const cached = this.#tokens.cached(known, scope, credentials) ?? repository.authorization;
    const response = await this.#reach(
      repository,
      path,
      cached ? { ...headers, authorization: cached } : headers,
      signal,
    );
    if (response.status !== 401) return response;
    const challenge = parseChallenge(response.header("www-authenticate") ?? "");
    response.cancel();
    // A challenge from where a redirect led to is not the registry's.
    if (!challenge || response.url.host !== hostOnly(host)) {
      throw new SwarmError(
        "unauthenticated",
        `${host} refuses access to ${reference.path} and does not say how to log in`,
      );
    }
    const origin = { ...known, remote: response.remote };
    repository.authorization = await this.#tokens.answer(challenge, origin, scope, credentials, signal);
    return this.#reach(repository, path, { ...headers, authorization: repository.authorization }, signal);
  }

  /** HTTPS; for insecure registries HTTPS with any certificate, and plain HTTP where nobody speaks TLS. */
  async #reach(
    repository: Repository,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { domain } = repository.reference;
    const isInsecure = this.#isInsecure(domain);
    const send = (scheme: "https" | "http") =>
      this.#http.send(
        {
          method: "GET",
          url: new URL(`${scheme}://${hostOf(repository.reference)}/v2/${repository.reference.path}/${path}`),
          headers: { "user-agent": "swarm", ...headers },
          acceptsAnyCertificate: isInsecure,
          allows: () => true,
        },
        signal,
      );
    if (!isInsecure) return send("https");
    if (this.#plainDomains.has(domain)) return send("http");
    try {
      return await send("https");
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "unavailable") throw reason;
      const response = await send("http");
      this.#plainDomains.add(domain);
      return response;
    }
  }

  #isInsecure(domain: string): boolean {
    if (this.#options.insecureRegistries.includes(domain)) return true;
    if (this.#options.trustsLoopback === false) return false;
    const host = new URL(`http://${domain}`).hostname.replace(/^\[|\]$/g, "");
    return host === "localhost" || addressKind(host) === "loopback";
  }

  /** Throws what a status other than `expected` means; the registry's own words are quoted. */
  async #expect(response: HttpResponse, expected: readonly number[], what: string, signal: AbortSignal): Promise<void> {
    const { status, url } = response;
    if (expected.includes(status)) return;
    const said = errorText(await response.bytes(ERROR_BYTES_MAX, signal).catch(() => Buffer.alloc(0)));
    const message = `pull ${what} from ${url.host}: status ${status}${said === "" ? "" : `: ${said}`}`;
    if (status === 401) throw new SwarmError("unauthenticated", `${message}: it does not exist or may require a login`);
    if (status === 403) throw new SwarmError("permission_denied", message);
    if (status === 404) throw new SwarmError("not_found", message);
    if (status === 429) throw new SwarmError("resource_exhausted", message);
    throw new SwarmError("unavailable", message);
  }
}

/** What one pull speaks about, with the header that last opened it. */
class Repository {
  readonly reference: ImageReference;
  readonly credentials: RegistryCredentials | undefined;
  readonly scope: string;
  authorization: string | undefined;

  constructor(reference: ImageReference, credentials: RegistryCredentials | undefined) {
    this.reference = reference;
    this.credentials = credentials;
    this.scope = `repository:${reference.path}:pull`;
  }
}

function hostOf({ domain }: ImageReference): string {
  return domain === DOCKER_HUB ? DOCKER_HUB_HOST : domain;
}

/** As a URL shows it: the default port is left out. */
function hostOnly(host: string): string {
  return host.replace(/:(?:443|80)$/, "");
}

function rangeStart(response: HttpResponse): number {
  const start = /^bytes ([0-9]{1,15})-/.exec(response.header("content-range") ?? "")?.[1];
  return start === undefined ? Number.POSITIVE_INFINITY : Number(start);
}

/** Retry-After in seconds or as a date (RFC 9110 §10.2.3). */
function retryAfterMs(response: HttpResponse, clock: Clock): number | undefined {
  const value = response.header("retry-after");
  if (value === undefined) return undefined;
  if (/^[0-9]{1,9}$/.test(value)) return Number(value) * 1000;
  const untilMs = Date.parse(value);
  return Number.isNaN(untilMs) ? undefined : Math.max(0, untilMs - clock.nowMs());
}

/** `{"errors": [{"code", "message"}]}` as one short line without control characters. */
function errorText(body: Buffer): string {
  try {
    const document = JSON.parse(body.toString("utf8")) as { readonly errors?: unknown };
    const errors: readonly unknown[] = Array.isArray(document.errors) ? document.errors : [];
    const messages = errors.map((error) => String((error as { readonly message?: unknown } | null)?.message ?? ""));
    return messages
      .join(", ")
      .replace(/\p{Cc}+/gu, " ")
      .slice(0, 300);
  } catch {
    return "";
  }
}
