/** Help and usage texts, laid out as Docker's. Pure. */
import type { Command } from "./command.ts";
import { ALIASES, COMMANDS, GROUPS } from "./command-table.ts";
import { ENDPOINT_FLAGS } from "./endpoint.ts";
import type { FlagTable } from "./flags/parse.ts";

/** Flags that stand before the command. */
export const GLOBAL_FLAGS: FlagTable = {
  ...ENDPOINT_FLAGS,
  help: { kind: "boolean", short: "h", help: "Show help" },
  version: { kind: "boolean", short: "v", help: "Print version information and quit" },
};

/** `swarmctl COMMAND --help`. */
export function commandHelp(command: Command): string {
  const options = flagLines(command.flags);
  const sections = [
    `Usage:  swarmctl ${command.usage}\n`,
    `${command.summary}\n`,
    ...aliasLines(command.usage),
    ...(options === "" ? [] : [`Options:\n${options}`]),
  ];
  return sections.join("\n");
}

/** `swarmctl service`. */
export function groupHelp(group: string): string {
  const rows = Object.entries(COMMANDS)
    .filter(([name]) => name.startsWith(`${group} `))
    .map(([name, { summary }]) => [name.slice(group.length + 1), summary] as const);
  const lines = rows.map(([name, summary]) => `  ${name.padEnd(12)}${summary}\n`).join("");
  return `Usage:  swarmctl ${group} COMMAND\n\n${GROUPS[group] ?? ""}\n\nCommands:\n${lines}\nRun 'swarmctl ${group} COMMAND --help' for more information on a command.\n`;
}

/** `swarmctl --help`. */
export function programHelp(): string {
  const groups = Object.entries(GROUPS).map(([name, about]) => `  ${name.padEnd(12)}${about}\n`);
  const single = Object.entries(COMMANDS)
    .filter(([name]) => !name.includes(" "))
    .map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}\n`);
  return `Usage:  swarmctl [OPTIONS] COMMAND\n\nRuns containers on a cluster of machines\n\nManagement Commands:\n${groups.join("")}\nCommands:\n${single.join("")}\nGlobal Options:\n${flagLines(GLOBAL_FLAGS)}\nRun 'swarmctl COMMAND --help' for more information on a command.\n`;
}

/** The command's own words, then the others that mean it: the words of a usage before its capitals and brackets. */
function aliasLines(usage: string): readonly string[] {
  const name = usage.replace(/ [[A-Z].*$/, "");
  const others = Object.keys(ALIASES).filter((alias) => ALIASES[alias] === name);
  return others.length === 0
    ? []
    : [`Aliases:\n  ${[name, ...others].map((words) => `swarmctl ${words}`).join(", ")}\n`];
}

function flagLines(flags: FlagTable): string {
  const rows = Object.entries(flags)
    .filter(([, { aliasOf }]) => aliasOf === undefined)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, flag]) => {
      const short = flag.short ? `-${flag.short}, ` : "    ";
      const value = flag.kind === "boolean" ? "" : ` ${flag.value ?? "string"}`;
      const fallback = flag.default === undefined ? "" : ` (default ${flag.default})`;
      return [`  ${short}--${name}${value}`, `${flag.help}${fallback}`] as const;
    });
  const width = Math.max(...rows.map(([left]) => left.length)) + 3;
  return rows.map(([left, right]) => `${left.padEnd(width)}${right}\n`).join("");
}
