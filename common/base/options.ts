/**
 * The options of a daemon as one table, from which flags, environment and help all follow: what `--help` says is what
 * the program does. (swarmctl's many commands have their own parser.)
 */
import { parseArgs } from "node:util";
import { nearest } from "./nearest.ts";

/** One option. Its flag is its key in the table ("data-dir"); its variable follows: SWARM_MANAGER_DATA_DIR. */
export interface OptionRow {
  /** What the value is called in the help ("PATH"); absent for a switch. */
  readonly value?: string;
  /** What it does, in a few words, for the help. Wrapped by hand: lines of at most 76 characters. */
  readonly help: string;
  /** Used when neither flag nor variable is given, and shown in the help. */
  readonly default?: string;
}

export type OptionTable = Readonly<Record<string, OptionRow>>;

/** What was said: text for options with a value, `undefined` without default; switches are booleans. */
export type OptionValues<T extends OptionTable> = {
  readonly [Flag in keyof T]: T[Flag] extends { readonly value: string }
    ? T[Flag] extends { readonly default: string }
      ? string
      : string | undefined
    : boolean;
};

/** A program as its help presents it. */
export interface ProgramDescription<T extends OptionTable> {
  /** "swarm-manager". Its variables begin with it: SWARM_MANAGER_… */
  readonly name: string;
  /** One line below the usage line. */
  readonly summary: string;
  readonly version: string;
  readonly options: T;
  /** Lines after the options: examples, files. */
  readonly epilogue?: string;
}

/** Either the options, or what to print (`help`, `version`: exit 0 on stdout; `usage`: exit 2 on stderr). */
export type ParsedOptions<T extends OptionTable> =
  | { readonly type: "options"; readonly values: OptionValues<T> }
  | { readonly type: "help" | "version" | "usage"; readonly text: string };

/** Reads flags over environment over defaults. An empty variable counts as absent. */
export function parseOptions<T extends OptionTable>(
  program: ProgramDescription<T>,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ParsedOptions<T> {
  const { tokens } = parseArgs({ args: [...argv], options: flagsOf(program.options), strict: false, tokens: true });
  const values: Record<string, string | boolean | undefined> = {};
  for (const [flag, row] of Object.entries(program.options)) values[flag] = row.value ? row.default : false;
  const problems = readEnvironment(program, environment, values);
  for (const token of tokens) {
    if (token.kind === "positional") problems.push(`unexpected argument ${JSON.stringify(token.value)}`);
    if (token.kind !== "option") continue;
    if (token.name === "help" || token.rawName === "-h") return { type: "help", text: helpOf(program) };
    if (token.name === "version") return { type: "version", text: `${program.name} ${program.version}\n` };
    const row = Object.hasOwn(program.options, token.name) ? program.options[token.name] : undefined;
    if (!row) problems.push(unknownFlag(program, token.rawName));
    else if (!row.value && token.value !== undefined) problems.push(`${token.rawName} takes no value`);
    else if (row.value && token.value === undefined) problems.push(`${token.rawName} needs a value: ${row.value}`);
    else values[token.name] = row.value ? token.value : true;
  }
  if (problems.length > 0) return usageProblem(program, problems.join("; "));
  return { type: "options", values: values as OptionValues<T> };
}

/** The parts of a value like "a, b": without blanks around them, and none empty. */
export function splitList(text: string | undefined): readonly string[] {
  return (text ?? "").split(",").flatMap((part) => (part.trim() === "" ? [] : [part.trim()]));
}

/** What to print for options that were understood but make no sense. */
export function usageProblem<T extends OptionTable>(
  program: Pick<ProgramDescription<T>, "name">,
  problem: string,
): { readonly type: "usage"; readonly text: string } {
  return { type: "usage", text: `${program.name}: ${problem}\nSee '${program.name} --help'.\n` };
}

function flagsOf(table: OptionTable): Record<string, { readonly type: "string" | "boolean"; readonly short?: string }> {
  const rows = Object.entries(table).map(([flag, row]) => [flag, { type: row.value ? "string" : "boolean" }]);
  return {
    ...Object.fromEntries(rows),
    help: { type: "boolean", short: "h" },
    version: { type: "boolean" },
  };
}

function readEnvironment<T extends OptionTable>(
  program: ProgramDescription<T>,
  environment: Readonly<Record<string, string | undefined>>,
  values: Record<string, string | boolean | undefined>,
): string[] {
  const problems: string[] = [];
  for (const [flag, row] of Object.entries(program.options)) {
    const variable = variableOf(program.name, flag);
    const text = environment[variable];
    if (text === undefined || text === "") continue;
    if (row.value) values[flag] = text;
    else if (/^(1|true)$/i.test(text)) values[flag] = true;
    else if (/^(0|false)$/i.test(text)) values[flag] = false;
    else problems.push(`${variable}: ${JSON.stringify(text)} is neither true nor false`);
  }
  return problems;
}

function variableOf(program: string, flag: string): string {
  return `${program}-${flag}`.toUpperCase().replaceAll("-", "_");
}

function unknownFlag<T extends OptionTable>(program: ProgramDescription<T>, raw: string): string {
  const meant = nearest(raw.replace(/^-+/, ""), [...Object.keys(program.options), "help", "version"]);
  return `unknown flag: ${raw}${meant ? ` (did you mean --${meant}?)` : ""}`;
}

function helpOf<T extends OptionTable>(program: ProgramDescription<T>): string {
  const rows = Object.entries(program.options).map(([flag, row]) => {
    const lines = row.help.split("\n");
    const last = row.default === undefined ? "" : ` (default ${row.default})`;
    return `  --${flag}${row.value ? ` ${row.value}` : ""}\n${lines.map((line) => `        ${line}`).join("\n")}${last}\n`;
  });
  return [
    `Usage: ${program.name} [OPTIONS]\n\n${program.summary}\n\nOptions:\n`,
    ...rows,
    "  -h, --help\n        Print this help\n  --version\n        Print the version\n",
    `\nEvery option can also be set by an environment variable: ${variableOf(program.name, "…")},`,
    ` for example ${variableOf(program.name, Object.keys(program.options)[0] ?? "help")}. Flags win.\n`,
    program.epilogue ? `\n${program.epilogue}\n` : "",
  ].join("");
}
