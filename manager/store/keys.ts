import { assert, SwarmError } from "../../common/base/error.ts";
import { isKind, type Kind, kinds } from "./kinds.ts";

/*
 * /swarm/<kind>/<id>                       an object
 * /swarm/spec/<service id>/<version>       a spec version, the version in 10 digits
 * /swarm/name/<kind>/<name>                the id of the object that bears the name
 * /swarm/leader                            the leading manager; its create_revision is the fence
 * /swarm-etcd/turn                         the manager whose etcd is being started again; nobody keeps it in memory
 */

/** Everything of ours lies below it. */
export const ROOT = "/swarm/";
export const LEADER_KEY = "/swarm/leader";
export const ETCD_TURN_KEY = "/swarm-etcd/turn";

const NAME_ROOT = "/swarm/name/";
/** A name becomes a key; etcd would take more, people would not. */
const NAME_LENGTH_MAX = 255;

/** What a key stands for. */
export type ParsedKey =
  | { readonly type: "object"; readonly kind: Kind; readonly id: string }
  | { readonly type: "name"; readonly kind: Kind; readonly name: string }
  | { readonly type: "leader" };

/** The key of an object. Ids are made by us or checked at the API: a bad one here is a bug. */
export function objectKey(kind: Kind, id: string): string {
  assert(kinds[kind].idPattern.test(id), `${kind} id ${JSON.stringify(id)}`);
  return `${ROOT}${kind}/${id}`;
}

/**
 * The key that makes a name unique within its kind; holds the object's id.
 * @throws invalid_argument for an empty or over-long name.
 */
export function nameKey(kind: Kind, name: string): string {
  if (name.length === 0 || name.length > NAME_LENGTH_MAX) {
    throw new SwarmError("invalid_argument", `${kind} name: must have 1 to ${NAME_LENGTH_MAX} characters`);
  }
  return `${NAME_ROOT}${kind}/${encodeURIComponent(name)}`;
}

/** What `key` stands for; undefined for a key that is none of ours. */
export function parseKey(key: string): ParsedKey | undefined {
  if (key === LEADER_KEY) return { type: "leader" };
  if (!key.startsWith(ROOT)) return undefined;
  const slash = key.indexOf("/", ROOT.length);
  const word = key.slice(ROOT.length, slash);
  const rest = key.slice(slash + 1);
  if (slash < 0 || rest.length === 0) return undefined;
  if (word === "name") return parseName(rest);
  if (!isKind(word) || !kinds[word].idPattern.test(rest)) return undefined;
  return { type: "object", kind: word, id: rest };
}

function parseName(rest: string): ParsedKey | undefined {
  const slash = rest.indexOf("/");
  const kind = rest.slice(0, slash);
  if (slash < 0 || !isKind(kind)) return undefined;
  try {
    return { type: "name", kind, name: decodeURIComponent(rest.slice(slash + 1)) };
  } catch {
    return undefined;
  }
}
