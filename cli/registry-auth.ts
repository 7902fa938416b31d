/** `--with-registry-auth`: the credentials that `docker login` left, in the form that agents send on. */
import { parseImageReference } from "../common/model/image-reference.ts";
import type { Io } from "./io.ts";
import { UsageError } from "./usage-error.ts";

/** Docker Hub's name in Docker's own config. */
const HUB = "https://index.docker.io/v1/";

/** Docker's X-Registry-Auth value for an image's registry: base64 of JSON. Undefined when nobody logged in there. */
export function registryAuthFor(image: string, io: Io): string | undefined {
  const parsed = parseImageReference(image);
  if (!parsed.ok) return undefined;
  const folder = io.environment.DOCKER_CONFIG ?? `${io.environment.HOME ?? ""}/.docker`;
  const path = `${folder}/config.json`;
  // As with Docker: whoever never logged in anywhere has no such file, and pulls what is public.
  if (!io.exists(path)) return undefined;
  const auths = readAuths(path, io.readFile(path));
  const { domain } = parsed.reference;
  const keys = domain === "docker.io" ? [HUB, "docker.io", "index.docker.io"] : [domain, `https://${domain}`];
  const encoded = keys.map((key) => auths.get(key)).find((auth) => auth !== undefined);
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 0) throw new UsageError(`${path}: the entry of ${domain} is not user:password`);
  const [username, password] = [text.slice(0, colon), text.slice(colon + 1)];
  return Buffer.from(JSON.stringify({ username, password, serveraddress: domain })).toString("base64url");
}

/** `auth` of each entry of `auths`. Credentials in a helper program are not here, and are said to be so. */
function readAuths(path: string, content: string): ReadonlyMap<string, string> {
  const config = objectOf(parseJson(path, content));
  const auths = new Map<string, string>();
  for (const [host, entry] of Object.entries(objectOf(config.auths))) {
    const { auth } = objectOf(entry);
    if (typeof auth === "string" && auth !== "") auths.set(host, auth);
  }
  if (auths.size === 0 && (config.credsStore !== undefined || config.credHelpers !== undefined)) {
    throw new UsageError(`${path}: credentials lie with a credential helper, which swarmctl does not run`);
  }
  return auths;
}

function parseJson(path: string, content: string): unknown {
  try {
    return JSON.parse(content);
  } catch {
    throw new UsageError(`${path}: is not JSON`);
  }
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
