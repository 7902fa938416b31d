/**
 * `swarmctl __complete WORD...`: what could stand in place of the last word, one `candidate<TAB>description` a line; `:files`
 * asks the shell for its files. It follows from the command table, the commands' flags and their usage texts, whose words in
 * capitals (SERVICE, NODE, FILE, …) say what is named there: a command that is added is completed without further ado.
 */
import type { Clock } from "../common/base/clock.ts";
import type { Command } from "./command.ts";
import { ALIASES, COMMANDS, GROUPS } from "./command-table.ts";
import { CONTEXT_NOUN, type LiveNames } from "./complete-names.ts";
import type { Flag, FlagTable } from "./flags/parse.ts";
import { GLOBAL_FLAGS } from "./help.ts";

/** One possible word. */
export interface Candidate {
  readonly word: string;
  readonly about: string;
}

/** Answers when the shell knows better. */
export type Completion = readonly Candidate[] | "files";

const NOTHING: readonly Candidate[] = [];

/** Values of flags wherever they occur; a flag's own `choices` come first. */
const FLAG_CHOICES: Readonly<Record<string, readonly string[]>> = {
  availability: ["active", "pause", "drain"],
  "endpoint-mode": ["vip", "dnsrr"],
  format: ["table", "json"],
  mode: ["replicated", "global", "replicated-job", "global-job"],
  "resolve-image": ["always", "changed", "never"],
  "restart-condition": ["none", "on-failure", "any"],
  role: ["worker", "manager"],
  "rollback-failure-action": ["pause", "continue"],
  "rollback-order": ["start-first", "stop-first"],
  tail: ["all"],
  "session-affinity": ["none", "client-ip"],
  "update-failure-action": ["pause", "continue", "rollback"],
  "update-order": ["start-first", "stop-first"],
};

/** What flags name. */
const FLAG_NOUNS: Readonly<Record<string, string>> = {
  config: "CONFIG",
  "config-add": "CONFIG",
  "config-rm": "CONFIG",
  context: CONTEXT_NOUN,
  from: CONTEXT_NOUN,
  image: "IMAGE",
  network: "NETWORK",
  "network-add": "NETWORK",
  "network-rm": "NETWORK",
  secret: "SECRET",
  "secret-add": "SECRET",
  "secret-rm": "SECRET",
};

/** Flags whose value is a path. */
const FILE_FLAGS = [
  "ca",
  "cert",
  "compose-file",
  "env-file",
  "input",
  "key",
  "out",
  "plan",
  "tlscacert",
  "tlscert",
  "tlskey",
];

/** What could stand in place of the last of `words`, which are those after the program's name. */
export async function complete(words: readonly string[], names: LiveNames): Promise<Completion> {
  const current = words.at(-1) ?? "";
  const line = readCommand(words.slice(0, -1));
  const answer =
    line.command === undefined
      ? await beforeCommand(line, current, names)
      : await withinCommand(line.command, line, current, names);
  return answer === "files" ? answer : answer.filter(({ word }) => word.startsWith(current));
}

interface Line {
  readonly group: string | undefined;
  readonly command: string | undefined;
  readonly rest: readonly string[];
  /** A global flag that waits for its value. */
  readonly pending: string | undefined;
}

/** Skips global flags and finds the group and the command. */
function readCommand(words: readonly string[]): Line {
  let at = 0;
  while (words[at]?.startsWith("-")) {
    const { name, takesNext } = readFlag(words[at] ?? "", GLOBAL_FLAGS);
    at += takesNext ? 2 : 1;
    if (takesNext && at > words.length) return { group: undefined, command: undefined, rest: [], pending: name };
  }
  const [first, second] = words.slice(at);
  if (first === undefined) return { group: undefined, command: undefined, rest: [], pending: undefined };
  const pair = second === undefined ? undefined : (ALIASES[`${first} ${second}`] ?? `${first} ${second}`);
  if (pair !== undefined && Object.hasOwn(COMMANDS, pair)) {
    return { group: first, command: pair, rest: words.slice(at + 2), pending: undefined };
  }
  const single = ALIASES[first] ?? first;
  if (Object.hasOwn(COMMANDS, single)) {
    return { group: undefined, command: single, rest: words.slice(at + 1), pending: undefined };
  }
  return { group: first, command: undefined, rest: words.slice(at + 1), pending: undefined };
}

async function beforeCommand({ group, rest, pending }: Line, current: string, names: LiveNames): Promise<Completion> {
  if (pending !== undefined) return await flagValues(pending, GLOBAL_FLAGS[pending], "", names);
  if (group === undefined) {
    if (current.startsWith("-")) return flagsOf(GLOBAL_FLAGS, current);
    const singles = Object.entries(COMMANDS).filter(([name]) => !name.includes(" "));
    return [
      ...Object.entries(GROUPS).map(([word, about]) => ({ word, about })),
      ...singles.map(([word, { summary }]) => ({ word, about: summary })),
    ];
  }
  if (rest.length > 0) return NOTHING;
  return Object.entries(COMMANDS)
    .filter(([name]) => name.startsWith(`${group} `))
    .map(([name, { summary }]) => ({ word: name.slice(group.length + 1), about: summary }));
}

async function withinCommand(name: string, { rest }: Line, current: string, names: LiveNames): Promise<Completion> {
  const { command } = (await COMMANDS[name]?.load()) ?? {};
  if (command === undefined) return NOTHING;
  const { version: _, ...shared } = GLOBAL_FLAGS;
  const table: FlagTable = { ...shared, ...command.flags };
  let flagsOver = false;
  let placed = 0;
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at] ?? "";
    if (flagsOver || !word.startsWith("-") || word === "-") {
      placed += 1;
      // What follows an image is the container's command line.
      if (command.interspersed === false) flagsOver = true;
    } else if (word === "--") flagsOver = true;
    else {
      const flag = readFlag(word, table);
      if (!flag.takesNext) continue;
      if (at === rest.length - 1) return await flagValues(flag.name, table[flag.name], "", names);
      at += 1;
    }
  }
  if (!flagsOver && current.startsWith("-")) {
    const equals = current.indexOf("=");
    if (equals < 0) return flagsOf(table, current);
    const flag = current.slice(2, equals);
    return await flagValues(flag, table[flag], current.slice(0, equals + 1), names);
  }
  return await placeholders(command, placed, current, names);
}

/** Names for the place of the command's usage at which the word stands. */
async function placeholders(command: Command, placed: number, current: string, names: LiveNames): Promise<Completion> {
  if (placed >= command.words.max) return NOTHING;
  const places = placesOf(command.usage);
  const place = places[placed] ?? (command.usage.includes("...") ? places.at(-1) : undefined);
  if (place === undefined || (command.interspersed === false && placed > 0)) return NOTHING;
  const nouns = place.split("|");
  const isFile = (noun: string) => noun === "FILE" || noun.endsWith("_PATH");
  const files = nouns.some((noun) => isFile(noun) && !noun.includes(":"));
  const named = nouns.filter((noun) => !isFile(noun) || noun.includes(":"));
  const suffix = /[=:]/.exec(place)?.[0] ?? "";
  if (suffix !== "" && current.includes(suffix)) return suffix === ":" ? "files" : NOTHING;
  if (named.length === 0 || (files && /^[./~]/.test(current))) return "files";
  const found = (await Promise.all(named.map((noun) => names(noun.split(/[=:]/)[0] ?? "")))).flat();
  // Where a file could stand as well, names that do not begin so leave it to the shell.
  if (files && !found.some(({ word }) => word.startsWith(current))) return "files";
  return found.map(({ word, about }) => ({ word: `${word}${suffix}`, about }));
}

/** `NODE`, `SERVICE|TASK...`, `SERVICE=REPLICAS`, `TASK:SRC_PATH|SRC_PATH`. */
const PLACE = /(?<![a-z])[A-Z][A-Z_|]+(?:[=:][A-Z_]+(?:\|[A-Z_]+)*)?(?:\.\.\.)?/g;

/** "service scale [OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]" → ["SERVICE=REPLICAS"]. Pure. */
function placesOf(usage: string): readonly string[] {
  const words = usage.replace("[OPTIONS]", "").match(PLACE) ?? [];
  return [...new Set(words.map((word) => word.replace("...", "")))];
}

async function flagValues(name: string, flag: Flag | undefined, prefix: string, names: LiveNames): Promise<Completion> {
  const fixed = valuesOf(name, flag, prefix);
  if (fixed !== undefined) return fixed;
  const noun = FLAG_NOUNS[name];
  if (noun === undefined) return NOTHING;
  return (await names(noun)).map(({ word, about }) => ({ word: `${prefix}${word}`, about }));
}

function valuesOf(name: string, flag: Flag | undefined, prefix = ""): Completion | undefined {
  if (FILE_FLAGS.includes(name) || flag?.value === "file") return "files";
  const choices = flag?.choices ?? FLAG_CHOICES[name];
  return choices?.map((word) => ({ word: `${prefix}${word}`, about: "" }));
}

function flagsOf(table: FlagTable, current: string): readonly Candidate[] {
  const rows = Object.entries(table).filter(([, { aliasOf }]) => aliasOf === undefined);
  const long = rows.map(([name, { help }]) => ({ word: `--${name}`, about: help }));
  if (current.startsWith("--")) return long;
  const short = rows.flatMap(([, flag]) => (flag.short ? [{ word: `-${flag.short}`, about: flag.help }] : []));
  return [...long, ...short];
}

/** The flag that a word names, and whether the next word is its value. */
function readFlag(word: string, table: FlagTable): { readonly name: string; readonly takesNext: boolean } {
  if (word.startsWith("--")) {
    const name = word.slice(2).split("=")[0] ?? "";
    return { name, takesNext: !word.includes("=") && isValued(table[name]) };
  }
  // Of letters together only the last one can take the next word.
  const letter = word.at(-1);
  const name = Object.keys(table).find((each) => table[each]?.short === letter) ?? "";
  const first = Object.values(table).find(({ short }) => short === word[1]);
  return { name, takesNext: isValued(table[name]) && (word.length === 2 || !isValued(first)) };
}

function isValued(flag: Flag | undefined): boolean {
  return flag !== undefined && flag.kind !== "boolean";
}

/** How long names may be waited for where a manager hangs; one that answers takes a tenth of that. */
const NAMES_MS_MAX = 500;

/** The lines for the shell. Whatever goes wrong, there is just nothing to offer. */
export async function completionLines(words: readonly string[], names: LiveNames, clock: Clock): Promise<string> {
  const timer = new AbortController();
  const late = clock.sleep(NAMES_MS_MAX, timer.signal).then(() => NOTHING);
  late.catch(() => {});
  try {
    const answer = await Promise.race([complete(words, names), late]);
    if (answer === "files") return ":files\n";
    return answer
      .map(({ word, about }) => `${word}${about === "" ? "" : `\t${about.replaceAll(/\s+/g, " ")}`}\n`)
      .join("");
  } catch {
    return "";
  } finally {
    timer.abort();
  }
}
