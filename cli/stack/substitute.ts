/**
 * Variables in a text: `$A ${A} ${A:-d} ${A-d} ${A:?e} ${A?e} ${A:+x} ${A+x} $$`, nested in defaults, messages and
 * alternatives. The grammar is the compose specification's (12-interpolation.md). Pure.
 */
import { bad, good, type Parsed } from "../../common/model/parsed.ts";

/** The value of a variable, or undefined where it is not set. */
export type Lookup = (name: string) => string | undefined;

/** Looks names up in a record; what every object has is no variable. */
export function lookupIn(variables: Readonly<Record<string, string | undefined>>): Lookup {
  return (name) => (Object.hasOwn(variables, name) ? variables[name] : undefined);
}

/** Deeper nesting is a mistake, or an attack on the stack. */
const NESTING_MAX = 20;
const NAME = /[_a-zA-Z][_a-zA-Z0-9]*/y;
const OPERATORS = [":-", ":?", ":+", "-", "?", "+"] as const;
type Operator = (typeof OPERATORS)[number];

/** Puts variables into `text`. Names that are not set and have no default become "" and go to `unset`. */
export function substitute(text: string, lookup: Lookup, unset: (name: string) => void): Parsed<string> {
  const reader = new Reader(text, lookup, unset);
  try {
    return good(reader.read(0, true));
  } catch (reason) {
    if (reason instanceof Refusal) return bad(reason.message);
    throw reason;
  }
}

class Refusal extends Error {
  override readonly name = "Refusal";
}

class Reader {
  readonly #text: string;
  readonly #lookup: Lookup;
  readonly #unset: (name: string) => void;
  #position = 0;

  constructor(text: string, lookup: Lookup, unset: (name: string) => void) {
    this.#text = text;
    this.#lookup = lookup;
    this.#unset = unset;
  }

  /** Reads to the end, or within braces to the `}` that closes them. `live`: whether what is read is used. */
  read(depth: number, live: boolean): string {
    if (depth > NESTING_MAX) throw new Refusal(`variables are nested more than ${NESTING_MAX} deep`);
    let result = "";
    while (this.#position < this.#text.length) {
      const character = this.#text[this.#position];
      if (character === "}" && depth > 0) return result;
      this.#position++;
      result += character === "$" ? this.#variable(depth, live) : character;
    }
    if (depth > 0) throw this.#invalid();
    return result;
  }

  #variable(depth: number, live: boolean): string {
    const next = this.#text[this.#position];
    if (next === "$") {
      this.#position++;
      return "$";
    }
    if (next !== "{") {
      const name = this.#name();
      return live ? this.#valueOr(name) : "";
    }
    this.#position++;
    const name = this.#name();
    const operator = OPERATORS.find((each) => this.#text.startsWith(each, this.#position));
    const value = live ? this.#braced(name, operator, depth) : this.#skip(operator, depth);
    if (this.#text[this.#position] !== "}") throw this.#invalid();
    this.#position++;
    return value;
  }

  #braced(name: string, operator: Operator | undefined, depth: number): string {
    if (operator === undefined) return this.#valueOr(name);
    this.#position += operator.length;
    const value = this.#lookup(name);
    const has = operator.startsWith(":") ? value !== undefined && value !== "" : value !== undefined;
    if (operator.endsWith("+")) {
      const alternative = this.read(depth + 1, has);
      return has ? alternative : "";
    }
    const other = this.read(depth + 1, !has);
    if (has) return value ?? "";
    if (operator.endsWith("-")) return other;
    throw new Refusal(`required variable ${name} is missing a value${other === "" ? "" : `: ${other}`}`);
  }

  #skip(operator: Operator | undefined, depth: number): string {
    if (operator === undefined) return "";
    this.#position += operator.length;
    this.read(depth + 1, false);
    return "";
  }

  #valueOr(name: string): string {
    const value = this.#lookup(name);
    if (value === undefined) this.#unset(name);
    return value ?? "";
  }

  #name(): string {
    NAME.lastIndex = this.#position;
    const name = NAME.exec(this.#text)?.[0];
    if (name === undefined) throw this.#invalid();
    this.#position += name.length;
    return name;
  }

  #invalid(): Refusal {
    const shown = JSON.stringify(this.#text.length > 80 ? `${this.#text.slice(0, 80)}…` : this.#text);
    return new Refusal(`invalid interpolation format: ${shown}. You may need to escape any $ with another $`);
  }
}
