/**
 * How people name objects: the whole id, else the whole name, else the beginning of exactly one id (case 58). Nothing else
 * is looked up, so a name that looks like another object's id prefix means the name.
 */

import { SwarmError } from "../../common/base/error.ts";
import { isId } from "../../common/base/id.ts";
import { quoted } from "../../common/model/units.ts";

const REFERENCE = /^[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,511}$/;
/** How many of the objects that share a prefix are listed. */
const MATCHES_SHOWN_MAX = 10;

/** How to find objects of one kind. */
export interface Lookup<T> {
  /** "service", "node": for messages. */
  readonly noun: string;
  readonly byId: ReadonlyMap<string, T>;
  /** All objects that bear this name; a name that several bear is ambiguous. */
  byName(name: string): readonly T[];
  idOf(object: T): string;
}

/**
 * The object that `reference` names.
 * @throws invalid_argument: no reference at all, or several objects match; not_found.
 */
export function resolveReference<T>(lookup: Lookup<T>, reference: string): T {
  if (!REFERENCE.test(reference)) {
    throw new SwarmError("invalid_argument", `${quoted(reference)} is not a ${lookup.noun}'s id or name`);
  }
  const exact = lookup.byId.get(reference);
  if (exact !== undefined) return exact;
  const named = lookup.byName(reference);
  if (named.length > 0) return single(lookup, reference, named);
  const prefixed: T[] = [];
  for (const [id, object] of lookup.byId) if (id.startsWith(reference)) prefixed.push(object);
  return single(lookup, reference, prefixed);
}

/** The objects that `references` name, each once; all when there are none. */
export function resolveReferences<T>(lookup: Lookup<T>, references: readonly string[]): Iterable<T> {
  if (references.length === 0) return lookup.byId.values();
  return new Set(references.map((reference) => resolveReference(lookup, reference)));
}

/** The object with this very id. Calls that change something take nothing less. */
export function requireId<T>(objects: ReadonlyMap<string, T>, noun: string, id: string): T {
  if (!isId(id)) throw new SwarmError("invalid_argument", `${noun}_id: ${quoted(id)} is not an id`);
  const object = objects.get(id);
  if (object === undefined) throw new SwarmError("not_found", `no such ${noun}: ${id}`);
  return object;
}

function single<T>(lookup: Lookup<T>, reference: string, found: readonly T[]): T {
  const [first, second] = found;
  if (first === undefined) throw new SwarmError("not_found", `no such ${lookup.noun}: ${reference}`);
  if (second === undefined) return first;
  const shown = found.slice(0, MATCHES_SHOWN_MAX).map(lookup.idOf);
  const more = found.length > shown.length ? ", …" : "";
  throw new SwarmError(
    "invalid_argument",
    `${lookup.noun} ${reference} is ambiguous: multiple matches: ${shown.join(", ")}${more}`,
  );
}
