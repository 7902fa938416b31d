/**
 * Finds the command, reads its flags, runs it, and turns how it ended into an exit code: 0 done, 1 failed or refused,
 * 2 the command line is wrong. Errors are one line on stderr; stdout is for results.
 */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { nearest } from "../common/base/nearest.ts";
import { projectVersion } from "../common/base/version.ts";
import { escapeControls } from "../common/model/text.ts";
import type { Command, ControlClient } from "./command.ts";
import { ALIASES, COMMANDS, GROUPS } from "./command-table.ts";
import type { ConnectOptions } from "./connect.ts";
import { ContextStore, configFolder } from "./contexts.ts";
import { endpointOf } from "./endpoint.ts";
import { type Flag, Flags, type FlagTable, parseArguments } from "./flags/parse.ts";
import { commandHelp, GLOBAL_FLAGS, groupHelp, programHelp } from "./help.ts";
import type { Io } from "./io.ts";
import { SilentFailure, UsageError } from "./usage-error.ts";

/** What a run stands on. */
export interface RunContext {
  readonly io: Io;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Connects to the first of `hosts` that answers. */
  connect(hosts: readonly string[], signal: AbortSignal, options: RemoteOptions): Promise<ControlClient>;
}

/** What connecting to other machines needs. */
type RemoteOptions = Pick<ConnectOptions, "tls" | "warn">;

/** Runs `argv` (without the program's own name) and answers the exit code. */
export async function run(argv: readonly string[], context: RunContext): Promise<number> {
  try {
    return await dispatch(argv, context);
  } catch (reason) {
    if (reason instanceof SilentFailure) return 1;
    const usage = reason instanceof UsageError;
    if (!usage && !(reason instanceof SwarmError)) throw reason;
    context.io.err(`swarmctl: ${oneLine(reason.message)}\n`);
    return usage ? 2 : 1;
  }
}

async function dispatch(argv: readonly string[], context: RunContext): Promise<number> {
  if (argv[0] === "__complete") return await completeWords(argv.slice(1), context);
  const global = parseArguments(argv, GLOBAL_FLAGS, { interspersed: false });
  if (global.flags.on("version")) {
    context.io.out(`swarmctl version ${projectVersion()}\n`);
    return 0;
  }
  const words = helpLast(global.words);
  const [first, second] = words;
  if (first === undefined || first === "--help") {
    context.io.out(programHelp());
    return 0;
  }
  const paired = second === undefined ? first : `${first} ${second}`;
  const name = [paired, first].map((text) => ALIASES[text] ?? text).find((text) => Object.hasOwn(COMMANDS, text));
  if (name !== undefined) {
    const taken = Object.hasOwn(COMMANDS, ALIASES[paired] ?? paired) && second !== undefined ? 2 : 1;
    return await runCommand(name, words.slice(taken), global.flags, context);
  }
  if (Object.hasOwn(GROUPS, first) && (second === undefined || second === "--help" || second === "-h")) {
    context.io.out(groupHelp(first));
    return 0;
  }
  const refusal = (await import("./refused.ts")).refusalOf(first, second);
  if (refusal !== undefined) {
    throw new SwarmError("unimplemented", `swarmctl has no ${refusal.name}: ${refusal.reason}`);
  }
  throw new UsageError(unknownCommand(first, second));
}

/** `help service create` and `service help create` say what `service create --help` does, as Docker's do. */
function helpLast(words: readonly string[]): readonly string[] {
  const [first = "", second] = words;
  if (first === "help") return [...words.slice(1), "--help"];
  return second === "help" && Object.hasOwn(GROUPS, first) ? [first, ...words.slice(2), "--help"] : words;
}

/** For shells: the command line as it is so far, where everything that it has may still be half a word. */
async function completeWords(words: readonly string[], { io, clock, signal, connect }: RunContext): Promise<number> {
  const [{ completionLines }, { liveNames }] = await Promise.all([
    import("./complete.ts"),
    import("./complete-names.ts"),
  ]);
  const open = () => {
    const { hosts, tls } = endpointOf(globalFlags(words), { ...io, contexts: new ContextStore(configFolder(io)) });
    return connect(hosts, signal, { tls, warn: () => {} });
  };
  io.out(await completionLines(words, liveNames(io, open), clock));
  return 0;
}

/** The global flags before the command; none when they are not whole yet. */
function globalFlags(words: readonly string[]): Flags {
  try {
    return parseArguments(words.slice(0, -1), GLOBAL_FLAGS, { interspersed: false }).flags;
  } catch (reason) {
    if (reason instanceof UsageError) return new Flags(new Map());
    throw reason;
  }
}

async function runCommand(
  name: string,
  argv: readonly string[],
  globals: Flags,
  { io, clock, signal, connect }: RunContext,
): Promise<number> {
  const { command } = (await COMMANDS[name]?.load()) ?? {};
  if (command === undefined) throw new UsageError(`unknown command: ${name}`);
  // A command's own flags win over the global ones: `service create --host` is a line of /etc/hosts.
  const table = flagTableOf(command);
  const { flags, words } = parseArguments(argv, table, { interspersed: command.interspersed ?? true });
  if (flags.on("help") || globals.on("help")) {
    io.out(commandHelp(command));
    return 0;
  }
  checkWords(name, command, words);
  const shared = sharedFlags(flags, command, globals);
  const warn = (text: string) => io.err(`swarmctl: warning: ${oneLine(text)}\n`);
  // A manager that takes connections may still have lost the store: each further attempt begins with the next one.
  const open = (attempt: number) => {
    const { hosts, tls } = endpointOf(shared, { ...io, contexts: new ContextStore(configFolder(io)) });
    const first = attempt % hosts.length;
    return connect([...hosts.slice(first), ...hosts.slice(0, first)], signal, {
      tls,
      warn: attempt === 0 ? warn : () => {},
    });
  };
  let attempt = 0;
  let client: Promise<ControlClient> | undefined;
  return await command.run({
    flags,
    globals: shared,
    words,
    io,
    clock,
    signal,
    connect: () => {
      client ??= open(attempt);
      return client;
    },
    reconnect: () => {
      client = open(++attempt);
      return client;
    },
  });
}

/** The flags that may stand after a command's words: its own and the global ones, whose short forms give way to its own. */
export function flagTableOf(command: Command): FlagTable {
  const taken = new Set(Object.values(command.flags).map(({ short }) => short));
  const shared = Object.entries(GLOBAL_FLAGS)
    .filter(([name]) => name !== "version")
    .map(([name, flag]) => {
      const { short, ...rest } = flag as Flag;
      return [name, short === undefined || taken.has(short) ? rest : flag] as const;
    });
  return { ...Object.fromEntries(shared), ...command.flags };
}

/** What was given for global flags, before or after the command's words; a command's own flag of that name is not one. */
function sharedFlags(flags: Flags, command: Command, globals: Flags): Flags {
  const names = Object.keys(GLOBAL_FLAGS).filter((name) => globals.has(name) || flags.has(name));
  const given = names.map((name) => {
    const own = command.flags[name] === undefined ? flags.list(name) : [];
    return [name, [...globals.list(name), ...own]] as const;
  });
  return new Flags(new Map(given.filter(([, values]) => values.length > 0)));
}

function checkWords(name: string, command: Command, words: readonly string[]): void {
  const { min, max } = command.words;
  if (words.length >= min && words.length <= max) return;
  const counted = (count: number) => `${count} argument${count === 1 ? "" : "s"}`;
  const expected =
    min === max
      ? min === 0
        ? "accepts no arguments"
        : `requires exactly ${counted(min)}`
      : words.length < min
        ? `requires at least ${counted(min)}`
        : `accepts at most ${counted(max)}`;
  throw new UsageError(`"swarmctl ${name}" ${expected}. Usage: swarmctl ${command.usage}`);
}

function unknownCommand(first: string, second: string | undefined): string {
  const inGroup = Object.hasOwn(GROUPS, first) && second !== undefined;
  const names = [...Object.keys(COMMANDS), ...Object.keys(ALIASES)];
  const candidates = inGroup
    ? names.filter((name) => name.startsWith(`${first} `)).map((name) => name.slice(first.length + 1))
    : [...Object.keys(GROUPS), ...names.filter((name) => !name.includes(" "))];
  const suggestion = nearest(inGroup ? second : first, candidates);
  const prefix = inGroup ? `swarmctl ${first}` : "swarmctl";
  const hint = suggestion === undefined ? `see ${prefix} --help` : `did you mean ${prefix} ${suggestion}?`;
  return `unknown command: ${prefix} ${inGroup ? second : first} (${hint})`;
}

/** Whatever a message carries, it is one line and cannot drive the terminal. */
function oneLine(message: string): string {
  return escapeControls(message.replace(/\s*\n\s*/g, "; "));
}
