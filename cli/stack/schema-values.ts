/** The rules that many places of the schema share. */

import type { Parsed } from "../../common/model/parsed.ts";
import { parseBytes, parseDurationMs, parseNanoCpus } from "../../common/model/units.ts";
import { asBytes, asBytesText, asDelay, asDuration, asInteger, asList, asMap, asText, asTexts } from "./normalise.ts";
import type { MapRule, Rule, ScalarRule } from "./rule.ts";

/** Names of services, networks, volumes, secrets and configs. */
export const NAMES = /^[a-zA-Z0-9._-]+$/;

export const anything: Rule = { anything: true };

export function text(more: Omit<ScalarRule, "types"> = {}): Rule {
  return { scalar: { types: ["string"], ...more } };
}

/** One of some words. */
export function word(...choices: readonly string[]): Rule {
  return text({ choices });
}

export const flag: Rule = { scalar: { types: ["boolean"] } };

/** A boolean whose false says something. */
export const decided: Rule = { ...flag, printEmpty: true };

export function integer(bounds: { readonly min?: number; readonly max?: number } = {}): Rule {
  return { scalar: { types: ["integer"], ...bounds } };
}

/** A number whose 0 says something. */
export function count(bounds: { readonly min?: number; readonly max?: number } = { min: 0 }): Rule {
  return { ...integer(bounds), printEmpty: true };
}

/** A whole number that the compose specification also lets stand in quotes. */
export function looseInteger(bounds: { readonly min?: number; readonly max?: number } = {}): Rule {
  const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = bounds;
  const format = (value: string) => {
    if (!/^[-+]?(?:\d+|0x[\da-fA-F]+|0o?[0-7]+|0b[01]+|\d[\d_]*)$/.test(value))
      return `must be an integer, not ${JSON.stringify(value)}`;
    return Number(value) < min || Number(value) > max
      ? `${value} is out of range: must be from ${min} to ${max}`
      : undefined;
  };
  return { scalar: { types: ["integer", "string"], ...bounds, format }, normalise: asInteger };
}

export const number: Rule = { scalar: { types: ["number"] } };

/** "" is 0, as a variable that is not set makes it. */
const bytesProblem = (value: string) => (value === "" ? undefined : problemOf(parseBytes)(value));

function problemOf<T>(parse: (value: string) => Parsed<T>): (value: string) => string | undefined {
  return (value) => {
    const parsed = parse(value);
    return parsed.ok ? undefined : parsed.problem;
  };
}

const durationProblem = problemOf(parseDurationMs);
export const duration: Rule = {
  ...text({
    format: (value) => {
      const problem = durationProblem(value);
      if (problem !== undefined) return `does not match format 'duration': ${problem}`;
      return value.startsWith("-") ? `${value}: must not be negative` : undefined;
    },
  }),
  normalise: asDuration,
  printEmpty: true,
};

/** A duration whose 0 is its default. */
export const delay: Rule = { ...duration, normalise: asDelay, printEmpty: false };

/** A size that Docker prints as a text of bytes. */
export const memory: Rule = {
  scalar: { types: ["string", "integer"], format: bytesProblem },
  normalise: asBytesText,
};

/** A size that Docker prints as a number. */
export const bytes: Rule = {
  scalar: { types: ["integer", "string"], format: bytesProblem },
  normalise: asBytes,
};

/** A size that Docker does not read: it is left as it is written. */
export const sizeText: Rule = {
  scalar: { types: ["integer", "string"], format: bytesProblem },
  normalise: asText,
};

export const cpus: Rule = {
  scalar: {
    types: ["string", "number"],
    format: (value) => {
      const parsed = parseNanoCpus(value === "" ? "0" : value);
      if (!parsed.ok) return parsed.problem;
      return parsed.value < 0 ? `${value} is too small: must be at least 0` : undefined;
    },
  },
  normalise: asText,
};

/** A list of texts, each at most once. */
export const texts: Rule = { list: { item: text(), unique: true }, merge: "append" };

/** A list of texts in which the same may stand twice. */
export const words: Rule = { list: { item: text() }, merge: "append" };

/** A list of texts or numbers. */
export const looseTexts: Rule = {
  list: { item: { scalar: { types: ["string", "number"] } }, unique: true },
  normalise: asTexts,
  merge: "append",
};

/** One text or a list of them. */
export const textOrTexts: Rule = {
  scalar: { types: ["string"] },
  list: { item: text(), unique: true },
  normalise: asList,
  merge: "append",
};

const plainValue: Rule = { scalar: { types: ["string", "number"] }, nullable: true };

/** `[a=b]` or `{a: b}`. */
export const pairs: Rule = {
  list: { item: text(), unique: true },
  map: { others: plainValue },
  normalise: asMap,
  merge: "entries",
};

/** `{a: b}`, as options of drivers are written. */
export const options: Rule = { map: { others: plainValue }, normalise: asMap, merge: "entries" };

export function fields(table: Readonly<Record<string, Rule>>, more: Omit<MapRule, "fields"> = {}): Rule {
  return { map: { fields: table, ...more } };
}

/** What may be told of a map that Docker's schema leaves open, or the specification extends. */
export function open(table: Readonly<Record<string, Rule>>, more: Omit<MapRule, "fields"> = {}): Rule {
  return { map: { fields: table, extensions: true, ...more } };
}

export function listOf(item: Rule): Rule {
  return { list: { item }, merge: "append" };
}

/** A boolean that the compose specification also lets stand in quotes. */
export const looseFlag: Rule = { scalar: { types: ["boolean", "string"] } };
