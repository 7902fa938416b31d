/** Typed values of flags. A bad one is a UsageError that names the flag and repeats the value. */
import type { Parsed } from "../../common/model/parsed.ts";
import { parseBytes, parseDurationMs, parseInteger, parseNanoCpus, parseRatio } from "../../common/model/units.ts";
import { UsageError } from "../usage-error.ts";
import type { Flags } from "./parse.ts";
import { parseShellWords } from "./shell-words.ts";

/** The flag's value through `parse`, or undefined when it is not given. */
export function flagValue<T>(flags: Flags, name: string, parse: (text: string) => Parsed<T>): T | undefined {
  const text = flags.text(name);
  return text === undefined ? undefined : parsedOrThrow(name, text, parse);
}

/** `text` through `parse`; a problem is blamed on the flag. */
export function parsedOrThrow<T>(name: string, text: string, parse: (text: string) => Parsed<T>): T {
  const parsed = parse(text);
  if (parsed.ok) return parsed.value;
  throw new UsageError(`invalid argument ${JSON.stringify(text.slice(0, 128))} for --${name}: ${parsed.problem}`);
}

export function durationFlagMs(flags: Flags, name: string): number | undefined {
  return flagValue(flags, name, parseDurationMs);
}

/** CPUs in billionths. */
export function nanoCpusFlag(flags: Flags, name: string): bigint | undefined {
  const nanos = flagValue(flags, name, parseNanoCpus);
  return nanos === undefined ? undefined : BigInt(nanos);
}

export function bytesFlag(flags: Flags, name: string): bigint | undefined {
  const bytes = flagValue(flags, name, parseBytes);
  return bytes === undefined ? undefined : BigInt(bytes);
}

/** A number from 0 to 2^53. */
export function countFlag(flags: Flags, name: string): bigint | undefined {
  const count = flagValue(flags, name, (text) => parseInteger(text, { min: 0, max: Number.MAX_SAFE_INTEGER }));
  return count === undefined ? undefined : BigInt(count);
}

export function integerFlag(
  flags: Flags,
  name: string,
  bounds: { readonly min: number; readonly max: number },
): number | undefined {
  return flagValue(flags, name, (text) => parseInteger(text, bounds));
}

export function ratioFlag(flags: Flags, name: string): number | undefined {
  return flagValue(flags, name, parseRatio);
}

export function commandFlag(flags: Flags, name: string): readonly string[] | undefined {
  return flagValue(flags, name, parseShellWords);
}

/** One of the words of `choices`. */
export function choiceFlag<T>(flags: Flags, name: string, choices: Readonly<Record<string, T>>): T | undefined {
  return flagValue<T>(flags, name, (text) => {
    const value = Object.hasOwn(choices, text) ? choices[text] : undefined;
    if (value !== undefined) return { ok: true, value };
    return { ok: false, problem: `must be one of ${Object.keys(choices).filter(Boolean).join(", ")}` };
  });
}
