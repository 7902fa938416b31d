/**
 * Names of images, as Docker writes them. This file owns the grammar and the two ways to print a name; it knows nothing
 * of registries or archives.
 *
 * The grammar is that of github.com/distribution/reference with its Docker defaults (domain `docker.io`, path prefix
 * `library/`, tag `latest`), and two refusals more: digests other than sha256 and sha512, and ports above 65535.
 */

/** A normalised reference: no default is left to guess. */
export interface ImageReference {
  /** The registry's host, with its port if it has one: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly domain: string;
  /** The repository within the registry: `library/nginx`. */
  readonly path: string;
  /** Absent only where a digest alone names the image. */
  readonly tag?: string;
  /** `sha256:<64 hex>` or `sha512:<128 hex>`; where it is present it decides, whatever the tag says. */
  readonly digest?: string;
}

/** What `parseImageReference` answers. */
export type ParsedImageReference =
  | { readonly ok: true; readonly reference: ImageReference }
  | { readonly ok: false; readonly problem: string };

const DEFAULT_DOMAIN = "docker.io";
const DEFAULT_DOMAIN_OLD = "index.docker.io";
const OFFICIAL_PREFIX = "library/";
const DEFAULT_TAG = "latest";

/** The longest repository path that registries take (distribution/reference: RepositoryNameTotalLengthMax). */
const PATH_LENGTH_MAX = 255;
/** No valid reference is longer: 255 of domain and of path, 128 of tag, 136 of digest, separators. */
const TEXT_LENGTH_MAX = 255 + 255 + 128 + 136 + 4;
/** How much of a bad reference is repeated in the problem. */
const QUOTED_LENGTH_MAX = 320;

const DOMAIN =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::([0-9]+))?$/;
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$/;
const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;
const IDENTIFIER = /^[a-f0-9]{64}$/;

/** Whether `text` is a digest that may be used as a name of content, and so as part of a path. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/**
 * Reads a reference as a user writes it. The problem of a bad one is the message of the field,
 * `"x" is not a valid repository/tag` (SwarmKit's words), with the reason after it where the grammar alone says too little.
 */
export function parseImageReference(text: string): ParsedImageReference {
  if (text.length > TEXT_LENGTH_MAX) return refuse(text);
  if (IDENTIFIER.test(text)) return refuse(text, "64 hexadecimal digits are ambiguous with an id");
  if (text.includes("://")) return refuse(text, "not a reference but a URL");

  const [named, digest, ...more] = text.split("@");
  if (named === undefined || more.length > 0) return refuse(text);
  if (digest !== undefined && !isDigest(digest)) return refuse(text);

  const { domain, remainder } = splitDomain(named);
  const colon = remainder.indexOf(":");
  const path = colon < 0 ? remainder : remainder.slice(0, colon);
  const tag = colon < 0 ? undefined : remainder.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) return refuse(text);

  const host = DOMAIN.exec(domain);
  if (!host || domain.length > PATH_LENGTH_MAX) return refuse(text);
  if (host[1] !== undefined && (Number(host[1]) > 65535 || Number(host[1]) < 1)) {
    return refuse(text, `bad port ${host[1]}`);
  }
  if (path.length > PATH_LENGTH_MAX) return refuse(text);
  if (!path.split("/").every((component) => PATH_COMPONENT.test(component))) return refuse(text);

  return { ok: true, reference: { domain, path, ...pinned(tag, digest) } };
}

/** The whole name, nothing left out: `docker.io/library/nginx:latest`, with `@digest` after it if there is one. */
export function canonicalName(reference: ImageReference): string {
  return `${reference.domain}/${reference.path}${suffix(reference)}`;
}

/** The name as Docker shows it to people: `nginx:latest`. */
export function familiarName(reference: ImageReference): string {
  return familiarRepository(reference) + suffix(reference);
}

/** The name without tag and digest, as Docker shows it in a REPOSITORY column: `nginx`, `ghcr.io/a/b`. */
export function familiarRepository(reference: ImageReference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return `${reference.domain}/${reference.path}`;
  const short = reference.path.startsWith(OFFICIAL_PREFIX)
    ? reference.path.slice(OFFICIAL_PREFIX.length)
    : reference.path;
  return short.includes("/") ? reference.path : short;
}

/** The same repository and tag, pinned to `digest`. */
export function withDigest(reference: ImageReference, digest: string): ImageReference {
  return { ...reference, digest };
}

/** Splits a first component that looks like a host (a dot, a port, or `localhost`) from the rest. */
function splitDomain(named: string): { readonly domain: string; readonly remainder: string } {
  const slash = named.indexOf("/");
  const first = slash < 0 ? "" : named.slice(0, slash);
  const isHost = first === "localhost" || first.includes(".") || first.includes(":");
  if (!isHost) return { domain: DEFAULT_DOMAIN, remainder: slash < 0 ? OFFICIAL_PREFIX + named : named };
  const remainder = named.slice(slash + 1);
  if (first !== DEFAULT_DOMAIN && first !== DEFAULT_DOMAIN_OLD) return { domain: first, remainder };
  return { domain: DEFAULT_DOMAIN, remainder: remainder.includes("/") ? remainder : OFFICIAL_PREFIX + remainder };
}

function pinned(tag: string | undefined, digest: string | undefined): { tag?: string; digest?: string } {
  if (digest === undefined) return { tag: tag ?? DEFAULT_TAG };
  return tag === undefined ? { digest } : { tag, digest };
}

function suffix(reference: ImageReference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  return reference.digest === undefined ? tag : `${tag}@${reference.digest}`;
}

/** JSON's quoting keeps control characters of a hostile name off the terminal. */
function refuse(text: string, reason?: string): ParsedImageReference {
  const shown = text.length > QUOTED_LENGTH_MAX ? `${text.slice(0, QUOTED_LENGTH_MAX)}…` : text;
  const problem = `${JSON.stringify(shown)} is not a valid repository/tag`;
  return { ok: false, problem: reason === undefined ? problem : `${problem}: ${reason}` };
}
