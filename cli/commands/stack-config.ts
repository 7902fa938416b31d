import type { Command, Invocation } from "../command.ts";
import { formatProblems } from "../stack/findings.ts";
import { stackOptions } from "../stack/options.ts";
import { type PrintFormat, printStack } from "../stack/print.ts";
import { readStack } from "../stack/read.ts";
import { SilentFailure, UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "stack config [OPTIONS]",
  summary: "Outputs the final config file, after doing merges and interpolations",
  flags: {
    "compose-file": {
      kind: "list",
      short: "c",
      value: "strings",
      help: 'Path to a Compose file, or "-" to read from stdin',
    },
    format: { kind: "text", value: "string", help: "Format the output: yaml or json", default: "yaml" },
    "no-warn": { kind: "boolean", help: "Do not print warnings" },
    profile: { kind: "list", value: "string", help: 'Profile whose services are on, "*" for all' },
    "skip-interpolation": { kind: "boolean", help: "Skip interpolation and output only merged config" },
  },
  words: { min: 0, max: 0 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, io } = invocation;
  const format = flags.text("format") ?? "yaml";
  if (!isFormat(format)) throw new UsageError(`invalid argument ${JSON.stringify(format)} for --format: yaml or json`);
  const options = await stackOptions(invocation);
  const read = readStack({ ...options, skipInterpolation: flags.on("skip-interpolation") });
  if (!flags.on("no-warn")) for (const warning of read.warnings) io.err(`warning: ${warning}\n`);
  if (!read.ok) {
    io.err(formatProblems(read.problems));
    throw new SilentFailure("stack config");
  }
  io.out(printStack(read.file, format));
  return 0;
}

function isFormat(text: string): text is PrintFormat {
  return text === "yaml" || text === "json";
}
