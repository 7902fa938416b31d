/** The manual: one page for each command and program, from the tables by which they read their flags. What it says is what they do. */
import { describeProgram as describeAgent } from "../../agent/options.ts";
import type { Command } from "../../cli/command.ts";
import { ALIASES, COMMANDS, GROUPS } from "../../cli/command-table.ts";
import type { Flag, FlagTable } from "../../cli/flags/parse.ts";
import { GLOBAL_FLAGS } from "../../cli/help.ts";
import type { OptionTable, ProgramDescription } from "../../common/base/options.ts";
import { describeProgram as describeManager } from "../../manager/options.ts";
import {
  type Block,
  bold,
  italic,
  item,
  type ManHead,
  type ManPage,
  manPage,
  paragraph,
  section,
  text,
  verbatim,
} from "./roff.ts";

const EXIT_CODES: readonly (readonly [code: string, meaning: string])[] = [
  ["0", "Done, or converged."],
  ["1", "Refused or failed; the reason is one line on standard error."],
  ["2", "The command line is wrong."],
  ["3", "wait, stack deploy or stack rollback timed out."],
  ["4", "stack plan found changes."],
  ["130", "Interrupted while waiting; the change stays."],
];

const CLI_VARIABLES: readonly (readonly [name: string, meaning: string])[] = [
  [
    "SWARM_HOST",
    "Managers to connect to, where --host is not given; several, with commas between them, are tried in turn.",
  ],
  ["SWARM_CONTEXT", "The context to use, where --context is not given."],
  ["SWARM_TLS_VERIFY", "Not empty: as --tlsverify."],
  ["SWARM_CERT_PATH", "Where ca.pem, cert.pem and key.pem are; default ~/.swarm."],
  ["SWARM_CONFIG", "Where contexts are kept; default ~/.swarm."],
  ["NO_COLOR", "Not empty: no colours."],
];

/** The whole manual. */
export async function manual(version: string, date: string): Promise<readonly ManPage[]> {
  const head = { product: `swarm ${version}`, date };
  const commands = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, entry]) => commandPage(name, (await entry.load()).command, head)),
  );
  const manager = daemonPage(describeManager(version), head, [
    ["/etc/default/swarm-manager", "Variables, SWARM_MANAGER_FLAGS among them, for the unit swarm-manager.service."],
    ["/var/lib/swarm/manager", "The manager's state: its identity, its etcd, loaded images."],
    ["/run/swarm/manager.sock", "Where swarmctl reaches it."],
  ]);
  const agent = daemonPage(describeAgent(version), head, [
    ["/etc/default/swarm-agent", "Variables, SWARM_AGENT_FLAGS among them, for the unit swarm-agent.service."],
    ["/var/lib/swarm/agent", "State, images, logs and volumes."],
    ["/usr/lib/swarm/deploy/end-containers", "Ends the containers of a host whose agent goes for good."],
  ]);
  return [programPage(head), ...commands, manager, agent];
}

function programPage(head: ManHead): ManPage {
  const inGroup = (group: string) => Object.entries(COMMANDS).filter(([name]) => name.startsWith(`${group} `));
  const alone = Object.entries(COMMANDS).filter(([name]) => !name.includes(" "));
  const line = ([name, { summary }]: (typeof alone)[number]) => item(bold(name), summary);
  return manPage(
    { name: "swarmctl", section: 1, summary: "run containers on a cluster of machines", head },
    section("SYNOPSIS", [`${bold("swarmctl")} [OPTIONS] COMMAND`]),
    section(
      "DESCRIPTION",
      paragraph(text("Talks to a manager of the cluster. The words, flags and defaults are Docker Swarm's.")),
      paragraph(
        text("Each command has a page of its own, as swarmctl-service-create(1), and explains itself with --help."),
      ),
    ),
    section("COMMANDS", ...alone.map(line)),
    ...Object.entries(GROUPS).map(([group, about]) =>
      section(`"${group.toUpperCase()} COMMANDS"`, paragraph(text(`${about}.`)), ...inGroup(group).map(line)),
    ),
    section("OPTIONS", paragraph(text("Before or after the words of a command:")), ...flagItems(GLOBAL_FLAGS)),
    section("ENVIRONMENT", ...CLI_VARIABLES.map(([name, meaning]) => item(bold(name), meaning))),
    exitStatus(),
    section("SEE ALSO", [references(["swarm-manager(8)", "swarm-agent(8)"])]),
  );
}

function commandPage(name: string, command: Command, head: ManHead): ManPage {
  const aliases = Object.entries(ALIASES).flatMap(([alias, of]) => (of === name ? [`swarmctl ${alias}`] : []));
  const [group] = name.split(" ");
  const neighbours = Object.keys(COMMANDS).filter((each) => each !== name && each.split(" ")[0] === group);
  const pages = ["swarmctl(1)", ...neighbours.map((each) => `swarmctl-${each.replace(" ", "-")}(1)`)];
  const flags = flagItems(command.flags);
  return manPage(
    { name: `swarmctl-${name.replace(" ", "-")}`, section: 1, summary: command.summary, head },
    section("SYNOPSIS", [text(`swarmctl ${command.usage}`)]),
    section("DESCRIPTION", paragraph(text(`${command.summary}.`))),
    ...(flags.length === 0 ? [] : [section("OPTIONS", ...flags)]),
    ...(aliases.length === 0 ? [] : [section("ALIASES", paragraph(text(aliases.join(", "))))]),
    exitStatus(),
    section("SEE ALSO", [references(pages)]),
  );
}

function daemonPage<T extends OptionTable>(
  { name, summary, options, epilogue }: ProgramDescription<T>,
  head: ManHead,
  files: readonly (readonly [path: string, use: string])[],
): ManPage {
  const prefix = `${name.toUpperCase().replaceAll("-", "_")}_`;
  const items = Object.entries(options).map(([flag, { value, help, default: fallback }]) => {
    const term = value === undefined ? bold(`--${flag}`) : `${bold(`--${flag}`)} ${italic(value)}`;
    return item(term, `${help.replaceAll("\n", " ")}${fallback === undefined ? "" : ` (default ${fallback})`}`);
  });
  const variables = `Each option can also be set by a variable, ${prefix}… with capitals and underscores. Flags win.`;
  return manPage(
    { name, section: 8, summary: summary.split(". ")[0]?.replace(/\.$/, "") ?? name, head },
    section("SYNOPSIS", [`${bold(name)} [OPTIONS]`]),
    section("DESCRIPTION", paragraph(text(summary)), ...(epilogue === undefined ? [] : [verbatim(epilogue)])),
    section(
      "OPTIONS",
      ...items,
      item(bold("--help"), "Print what there is."),
      item(bold("--version"), "Print the version."),
    ),
    section("ENVIRONMENT", paragraph(text(variables))),
    section("FILES", ...files.map(([path, use]) => item(italic(path), use))),
    section("SEE ALSO", [references(["swarmctl(1)", name === "swarm-agent" ? "swarm-manager(8)" : "swarm-agent(8)"])]),
  );
}

/** Sorted by name, as --help has them; other names for a flag are left out. */
function flagItems(flags: FlagTable): readonly Block[] {
  return Object.entries(flags)
    .filter(([, { aliasOf }]) => aliasOf === undefined)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, flag]) => item(flagTerm(name, flag), flagMeaning(flag)));
}

function flagTerm(name: string, { short, kind, value }: Flag): string {
  const names = [...(short === undefined ? [] : [`-${short}`]), `--${name}`].map(bold).join(", ");
  return kind === "boolean" ? names : `${names} ${italic(value ?? "string")}`;
}

function flagMeaning({ help, default: fallback, kind }: Flag): string {
  const more = kind === "list" ? " May be given several times." : "";
  return `${help}${fallback === undefined ? "" : ` (default ${fallback})`}.${more}`;
}

function exitStatus(): Block {
  return section('"EXIT STATUS"', ...EXIT_CODES.map(([code, meaning]) => item(bold(code), meaning)));
}

function references(pages: readonly string[]): string {
  return pages
    .map((page) => page.replace(/^(.*)(\(\d\))$/, (_, name: string, number: string) => bold(name) + number))
    .join(", ");
}
