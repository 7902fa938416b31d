/** Values of a template: how Go prints them, which of them are true, and Go's own functions. */
import { SwarmError } from "../base/error.ts";

/** What a template may call, by name. A function throws `templateFailure` when its arguments do not suit it. */
export type TemplateFunctions = Readonly<Record<string, (...args: readonly unknown[]) => unknown>>;

/** A template that cannot be executed: ends up as the problem that `execute` answers. */
export function templateFailure(message: string): SwarmError {
  return new SwarmError("invalid_argument", `template: ${message}`);
}

/** Go's truth: not false, 0, nil, or empty. */
export function truth(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.getPrototypeOf(value) !== null || sizeOf(value) > 0;
  return Boolean(value);
}

/** As fmt.Print does: [a b], map[a:1], true. */
export function valueText(value: unknown): string {
  if (value === undefined || value === null) return "<no value>";
  if (Array.isArray(value)) return `[${value.map(valueText).join(" ")}]`;
  if (typeof value !== "object") return String(value);
  const entries = Object.entries(value);
  if (Object.getPrototypeOf(value) !== null) return `{${entries.map(([, item]) => valueText(item)).join(" ")}}`;
  const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${sorted.map(([key, item]) => `${key}:${valueText(item)}`).join(" ")}]`;
}

/** The functions that Go's templates always have. */
export const BUILTINS: TemplateFunctions = {
  and: (...args) => args.find((arg) => !truth(arg)) ?? args.at(-1),
  or: (...args) => args.find((arg) => truth(arg)) ?? args.at(-1),
  not: (value) => !truth(value),
  eq: (first, ...rest) => rest.some((other) => first === other),
  ne: (left, right) => left !== right,
  lt: (left, right) => compared(left, right) < 0,
  le: (left, right) => compared(left, right) <= 0,
  gt: (left, right) => compared(left, right) > 0,
  ge: (left, right) => compared(left, right) >= 0,
  len: sizeOf,
  index: (value, ...keys) => keys.reduce(itemAt, value),
  print: (...args) => args.map(valueText).join(" "),
  println: (...args) => `${args.map(valueText).join(" ")}\n`,
  printf: (format, ...args) => formatted(textOf(format, "printf"), args),
};

/** `value` as a string; anything else cannot be an argument of `name`. */
export function textOf(value: unknown, name: string): string {
  if (typeof value === "string") return value;
  throw templateFailure(`wrong type for ${name}: ${valueText(value)} is not a string`);
}

function sizeOf(value: unknown): number {
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  if (typeof value === "object" && value !== null) return Object.keys(value).length;
  throw templateFailure(`len of ${valueText(value)}`);
}

function compared(left: unknown, right: unknown): number {
  if (typeof left === "number" && typeof right === "number") return left - right;
  if (typeof left === "string" && typeof right === "string") return left < right ? -1 : Number(left > right);
  throw templateFailure("incompatible types for comparison");
}

function itemAt(value: unknown, key: unknown): unknown {
  if (Array.isArray(value)) {
    const items: readonly unknown[] = value;
    if (typeof key !== "number" || key < 0 || key >= items.length) {
      throw templateFailure(`index out of range: ${valueText(key)}`);
    }
    return items[key];
  }
  if (typeof value === "object" && value !== null) {
    const own: Readonly<Record<string, unknown>> = { ...value };
    return Object.hasOwn(own, String(key)) ? own[String(key)] : "";
  }
  throw templateFailure(`can't index ${valueText(value)}`);
}

/** Wider fields are cut to this: a width is not a way to fill memory. */
const WIDTH_MAX = 1024;

function formatted(format: string, args: readonly unknown[]): string {
  let next = 0;
  const text = format.replace(/%(-?)(0?)(\d*)(?:\.(\d+))?([a-zA-Z%])/g, (whole, left, zero, width, digits, verb) => {
    if (verb === "%") return "%";
    if (next >= args.length) return `%!${verb}(MISSING)`;
    const shown = verbText(verb, args[next++], digits) ?? whole;
    const columns = Math.min(Number(width || 0), WIDTH_MAX);
    return left ? shown.padEnd(columns) : shown.padStart(columns, zero ? "0" : " ");
  });
  return text;
}

function verbText(verb: string, value: unknown, digits: string | undefined): string | undefined {
  switch (verb) {
    case "s":
    case "v":
    case "d":
    case "t":
      return valueText(value);
    case "q":
      return JSON.stringify(valueText(value));
    case "x":
      return typeof value === "number" ? value.toString(16) : Buffer.from(valueText(value)).toString("hex");
    case "f":
      return Number(value).toFixed(Math.min(Number(digits ?? 6), 20));
    default:
      return undefined;
  }
}
