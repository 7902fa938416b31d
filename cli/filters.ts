/** `--filter key=value`: several of one key are joined by OR, different keys by AND, as Docker does. Pure. */

import type { Flag } from "./flags/parse.ts";
import { UsageError } from "./usage-error.ts";

export const FILTER_FLAG: Flag = {
  kind: "list",
  short: "f",
  value: "filter",
  help: "Filter output based on conditions provided",
};

/** The same for a command that filters by these keys: shells complete them. */
export function filterFlag(keys: readonly string[]): Flag {
  return { ...FILTER_FLAG, choices: keys.map((key) => `${key}=`) };
}

/** The same where `-f` is `--force`. */
export function longFilterFlag(keys: readonly string[]): Flag {
  const { short: _, ...flag } = filterFlag(keys);
  return flag;
}

/** Values by key. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/** Words that mean yes or no, as Go's ParseBool has them for `dangling`. */
export const BOOLEAN_WORDS = ["true", "1", "false", "0"];

export function isYes(value: string): boolean {
  return value.toLowerCase() === "true" || value === "1";
}

/** Reads filters; a key that the command does not know is refused, and so is a value that is not of the key's `words`. */
export function parseFilters(
  texts: readonly string[],
  keys: readonly string[],
  words: Readonly<Record<string, readonly string[]>> = {},
): Filters {
  const filters = new Map<string, readonly string[]>();
  for (const text of texts) {
    const equals = text.indexOf("=");
    if (equals < 0) throw new UsageError(`invalid argument ${JSON.stringify(text)} for --filter: key=value`);
    const key = text.slice(0, equals).trim().toLowerCase();
    if (!keys.includes(key)) throw new UsageError(`invalid filter '${key}': one of ${keys.join(", ")}`);
    const value = text.slice(equals + 1).trim();
    const known = words[key];
    if (known !== undefined && !known.includes(value.toLowerCase())) {
      throw new UsageError(`invalid filter '${key}=${value}': one of ${known.join(", ")}`);
    }
    filters.set(key, [...(filters.get(key) ?? []), value]);
  }
  return filters;
}

/** Whether one of the key's values satisfies `test`; true when the key is not filtered by. */
export function passes(filters: Filters, key: string, test: (value: string) => boolean): boolean {
  return filters.get(key)?.some(test) ?? true;
}

/** `label=KEY` or `label=KEY=VALUE` against labels; all values must hold, and none of `label!=…`, as with Docker. */
export function passesLabels(
  filters: Filters,
  key: string,
  labels: Readonly<Record<string, string>> | undefined,
): boolean {
  const holds = (text: string) => {
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    if (labels === undefined || !Object.hasOwn(labels, name)) return false;
    return equals < 0 || labels[name] === text.slice(equals + 1);
  };
  return (filters.get(key) ?? []).every(holds) && !(filters.get(`${key}!`) ?? []).some(holds);
}
