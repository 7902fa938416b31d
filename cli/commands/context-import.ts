import { SwarmError } from "../../common/base/error.ts";
import type { Command, Invocation } from "../command.ts";
import { ContextStore, checkContextName, configFolder } from "../contexts.ts";
import { readTextArgument } from "../text-argument.ts";

export const command: Command = {
  usage: "context import CONTEXT FILE|-",
  summary: "Import a context from a file that 'context export' wrote",
  flags: {},
  words: { min: 2, max: 2 },
  run,
};

async function run({ words, io }: Invocation): Promise<number> {
  const [name = "", file = ""] = words;
  const store = new ContextStore(configFolder(io));
  checkContextName(name);
  if (store.has(name)) throw new SwarmError("already_exists", `context ${JSON.stringify(name)} already exists`);
  const text = await readTextArgument(file, io);
  const exported = parse(file, text);
  const textOf = (field: string) => {
    const value = exported[field];
    if (value === undefined || typeof value === "string") return value;
    throw new SwarmError("invalid_argument", `${file}: ${field}: is no text`);
  };
  const host = textOf("host");
  if (host === undefined)
    throw new SwarmError("invalid_argument", `${file}: host: missing; is it from 'context export'?`);
  const serverName = textOf("serverName");
  const meta = {
    description: textOf("description") ?? "",
    host,
    skipTlsVerify: exported.skipTlsVerify === true,
    ...(serverName === undefined ? {} : { serverName }),
  };
  store.write(name, meta, { ca: textOf("ca"), cert: textOf("cert"), key: textOf("key") });
  io.out(`${name}\n`);
  io.err(`Successfully imported context "${name}"\n`);
  return 0;
}

function parse(file: string, text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return { ...value };
  } catch {
    // Told below.
  }
  throw new SwarmError("invalid_argument", `${file}: is no JSON object; is it from 'context export'?`);
}
