/** Logging in at a registry: what a challenge asks for, and the token that answers it (distribution's token spec). */
import { type Clock, systemClock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { parseJson } from "../model/oci-image.ts";
import type { AddressKind } from "./address.ts";
import type { HttpClient } from "./http.ts";

/** What `docker login` keeps for a registry: name and password, or an identity token in their place. */
export type RegistryCredentials =
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  | { readonly kind: "identity-token"; readonly token: string };

/** What a 401's WWW-Authenticate asks for. */
export type Challenge =
  | { readonly scheme: "basic" }
  | { readonly scheme: "bearer"; readonly realm: string; readonly service: string | undefined };

/** Tokens are a few KiB; a larger answer is no token. */
const TOKEN_BYTES_MAX = 1024 * 1024;
/** The token spec's default life, when the server names none. */
const TOKEN_LIFE_MS = 60_000;
/** A token is not used in its last seconds: a request takes time. */
const TOKEN_MARGIN_MS = 5_000;

/** The first challenge that can be answered; undefined when there is none. RFC 9110 §11.6.1. */
export function parseChallenge(header: string): Challenge | undefined {
  const bearer = /(?:^|,)\s*bearer\s+(.*)$/i.exec(header)?.[1];
  if (bearer !== undefined) {
    const parameters = new Map(
      [...bearer.matchAll(/([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g)].map(
        ([, key, quoted, bare]) => [(key ?? "").toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? bare ?? ""] as const,
      ),
    );
    const realm = parameters.get("realm");
    if (realm !== undefined) return { scheme: "bearer", realm, service: parameters.get("service") };
  }
  return /(?:^|,)\s*basic\b/i.test(header) ? { scheme: "basic" } : undefined;
}

/** Where a challenge came from, and how far it is trusted. */
export interface ChallengeOrigin {
  /** `host:port` of the registry. */
  readonly host: string;
  readonly remote: AddressKind;
  /** Declared insecure: its realm may be plain HTTP with any certificate. */
  readonly isInsecure: boolean;
}

/** Keeps tokens while they live, for each (host, scope, who). */
export class TokenCache {
  readonly #http: HttpClient;
  readonly #clock: Clock;
  readonly #tokens = new Map<string, { readonly header: string; readonly untilMs: number }>();

  constructor(http: HttpClient, clock: Clock = systemClock) {
    this.#http = http;
    this.#clock = clock;
  }

  /** The Authorization header that last worked, while it is good. */
  cached(origin: ChallengeOrigin, scope: string, credentials: RegistryCredentials | undefined): string | undefined {
    const token = this.#tokens.get(keyOf(origin.host, scope, credentials));
    return token && token.untilMs > this.#clock.monotonicMs() ? token.header : undefined;
  }

  /**
   * Answers a challenge with an Authorization header for `scope`: always what we want, never what the challenge asks for.
   * Throws `unauthenticated` when there is nothing to answer with or the answer is refused, `permission_denied` for a
   * realm that is not to be trusted with it.
   */
  async answer(
    challenge: Challenge,
    origin: ChallengeOrigin,
    scope: string,
    credentials: RegistryCredentials | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    if (challenge.scheme === "basic") {
      if (credentials?.kind !== "password")
        throw new SwarmError("unauthenticated", `${origin.host} wants a user name and password`);
      return basic(credentials);
    }
    const realm = realmOf(challenge.realm, origin);
    const response = await this.#http.send(
      {
        ...tokenRequest(realm, challenge, scope, credentials),
        acceptsAnyCertificate: origin.isInsecure,
        // A public registry has no business in our networks, and nobody's realm is a metadata service.
        allows: (kind) => kind === "public" || (kind !== "link-local" && origin.remote !== "public"),
      },
      signal,
    );
    const body = await response.bytes(TOKEN_BYTES_MAX, signal);
    if (response.status !== 200)
      throw new SwarmError("unauthenticated", `${realm.origin}: login failed with status ${response.status}`);
    const { token, lifeMs } = decodeToken(body);
    const header = `Bearer ${token}`;
    const nowMs = this.#clock.monotonicMs();
    for (const [key, old] of this.#tokens) if (old.untilMs <= nowMs) this.#tokens.delete(key);
    const untilMs = nowMs + lifeMs - TOKEN_MARGIN_MS;
    this.#tokens.set(keyOf(origin.host, scope, credentials), { header, untilMs });
    return header;
  }
}

function realmOf(text: string, origin: ChallengeOrigin): URL {
  const realm = URL.canParse(text) ? new URL(text) : undefined;
  const isSafe = realm?.protocol === "https:" || (realm?.protocol === "http:" && origin.isInsecure);
  if (!realm || !isSafe || realm.username !== "" || realm.password !== "") {
    throw new SwarmError(
      "permission_denied",
      `${origin.host}: refused: token realm ${JSON.stringify(text.slice(0, 200))}`,
    );
  }
  return realm;
}

function tokenRequest(
  realm: URL,
  challenge: Challenge & { readonly scheme: "bearer" },
  scope: string,
  credentials: RegistryCredentials | undefined,
) {
  const url = new URL(realm);
  const accept = { accept: "application/json", "user-agent": "swarm" };
  if (credentials?.kind === "identity-token") {
    const form = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: credentials.token,
      client_id: "swarm",
      scope,
      service: challenge.service ?? "",
    });
    const headers = { ...accept, "content-type": "application/x-www-form-urlencoded" };
    return { method: "POST", url, headers, body: form.toString() } as const;
  }
  if (challenge.service !== undefined) url.searchParams.set("service", challenge.service);
  url.searchParams.set("scope", scope);
  const headers: Readonly<Record<string, string>> = credentials
    ? { ...accept, authorization: basic(credentials) }
    : accept;
  return { method: "GET", url, headers } as const;
}

function decodeToken(body: Uint8Array): { readonly token: string; readonly lifeMs: number } {
  const document = parseJson(body, "token");
  const record =
    typeof document === "object" && document !== null ? (document as Readonly<Record<string, unknown>>) : {};
  const token = record.token ?? record.access_token;
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token))
    throw new SwarmError("unauthenticated", "login answered without a token");
  const life = record.expires_in;
  return { token, lifeMs: typeof life === "number" && life > 0 ? Math.min(life, 86_400) * 1000 : TOKEN_LIFE_MS };
}

function basic({ username, password }: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

function keyOf(host: string, scope: string, credentials: RegistryCredentials | undefined): string {
  return JSON.stringify([host, scope, credentials]);
}
