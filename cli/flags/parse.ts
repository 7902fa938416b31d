/**
 * Reads flags as Docker does (Go's pflag): `--name value`, `--name=value`, `-nvalue`, `-qf value`, `--` ends them; a
 * repeated flag's last value counts unless it is a list; `--detach=false`. Pure: argv in, values out.
 */

import { nearest } from "../../common/base/nearest.ts";
import { UsageError } from "../usage-error.ts";

/** One flag that a command knows. */
export interface Flag {
  readonly kind: "boolean" | "text" | "list";
  readonly short?: string;
  /** The word for its value in the help: "string", "duration", "uint", "bytes". */
  readonly value?: string;
  readonly help: string;
  /** As the help shows it; what an absent flag means is decided where it is read. */
  readonly default?: string;
  /** The words that it takes, for completion: what is taken is decided where it is read. */
  readonly choices?: readonly string[];
  /** Another name for an existing flag: not shown in the help. */
  readonly aliasOf?: string;
}

/** Flags by their long names. */
export type FlagTable = Readonly<Record<string, Flag>>;

/** What was given. */
export class Flags {
  readonly #given: ReadonlyMap<string, readonly string[]>;

  constructor(given: ReadonlyMap<string, readonly string[]>) {
    this.#given = given;
  }

  has(name: string): boolean {
    return this.#given.has(name);
  }

  /** The last value given. */
  text(name: string): string | undefined {
    return this.#given.get(name)?.at(-1);
  }

  /** Every value given, in order. */
  list(name: string): readonly string[] {
    return this.#given.get(name) ?? [];
  }

  /** Whether a boolean flag is on. */
  on(name: string): boolean {
    return this.text(name) === "true";
  }

  /** The given flags' names. */
  names(): readonly string[] {
    return [...this.#given.keys()];
  }
}

/** Flags and what remains. */
export interface ParsedArguments {
  readonly flags: Flags;
  readonly words: readonly string[];
}

/** Splits `argv`. With `interspersed: false` the first word ends the flags: what follows belongs to the container. */
export function parseArguments(
  argv: readonly string[],
  table: FlagTable,
  options: { readonly interspersed: boolean },
): ParsedArguments {
  const given = new Map<string, readonly string[]>();
  const words: string[] = [];
  const shorts = new Map(Object.entries(table).flatMap(([name, { short }]) => (short ? [[short, name]] : [])));
  let position = 0;
  const set = (name: string, value: string): void => {
    const target = table[name]?.aliasOf ?? name;
    given.set(target, [...(given.get(target) ?? []), value]);
  };
  const next = (shown: string): string => {
    const value = argv[position++];
    if (value === undefined) throw new UsageError(`flag needs an argument: ${shown}`);
    return value;
  };
  while (position < argv.length) {
    const word = argv[position++] ?? "";
    if (word === "--") {
      words.push(...argv.slice(position));
      break;
    }
    if (word.startsWith("--")) readLong(word, { table, set, next });
    else if (word.startsWith("-") && word !== "-") readShorts(word, { table, shorts, set, next });
    else if (options.interspersed) words.push(word);
    else {
      words.push(word, ...argv.slice(position));
      break;
    }
  }
  return { flags: new Flags(given), words };
}

interface Reading {
  readonly table: FlagTable;
  set(name: string, value: string): void;
  next(shown: string): string;
}

function readLong(word: string, { table, set, next }: Reading): void {
  const equals = word.indexOf("=");
  const name = word.slice(2, equals < 0 ? undefined : equals);
  const flag = Object.hasOwn(table, name) ? table[name] : undefined;
  if (flag === undefined) throw new UsageError(unknownFlag(`--${name}`, Object.keys(table)));
  if (flag.kind === "boolean") set(name, booleanValue(equals < 0 ? "true" : word.slice(equals + 1), `--${name}`));
  else set(name, equals < 0 ? next(`--${name}`) : word.slice(equals + 1));
}

function readShorts(word: string, reading: Reading & { readonly shorts: ReadonlyMap<string, string> }): void {
  let rest = word.slice(1);
  while (rest !== "") {
    const letter = rest.slice(0, 1);
    rest = rest.slice(1);
    const name = reading.shorts.get(letter);
    const flag = name === undefined ? undefined : reading.table[name];
    if (name === undefined || flag === undefined) {
      throw new UsageError(`unknown shorthand flag: ${JSON.stringify(letter)} in ${JSON.stringify(word)}`);
    }
    if (flag.kind === "boolean") {
      const explicit = rest.startsWith("=");
      reading.set(name, booleanValue(explicit ? rest.slice(1) : "true", `-${letter}`));
      if (explicit) return;
    } else {
      reading.set(name, rest === "" ? reading.next(`-${letter}`) : rest.replace(/^=/, ""));
      return;
    }
  }
}

function booleanValue(text: string, shown: string): string {
  const lower = text.toLowerCase();
  if (["true", "1", "t"].includes(lower)) return "true";
  if (["false", "0", "f"].includes(lower)) return "false";
  throw new UsageError(`invalid argument ${JSON.stringify(text)} for ${shown}: true or false`);
}

function unknownFlag(shown: string, names: readonly string[]): string {
  const suggestion = nearest(
    shown,
    names.map((name) => `--${name}`),
  );
  return `unknown flag: ${shown}${suggestion === undefined ? "" : ` (did you mean ${suggestion}?)`}`;
}
