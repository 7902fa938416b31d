import type { Command, Invocation } from "../command.ts";
import { type ContextMeta, ContextStore, configFolder, DEFAULT_CONTEXT } from "../contexts.ts";
import { contextName, defaultHosts } from "../endpoint.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { renderObjects } from "../output/format.ts";
import { filled } from "../output/json-parts.ts";

export const command: Command = {
  usage: "context inspect [OPTIONS] [CONTEXT...]",
  summary: "Display detailed information on one or more contexts",
  flags: { format: INSPECT_FLAGS.format },
  words: { min: 0, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, globals, words, io }: Invocation): Promise<number> {
  const contexts = new ContextStore(configFolder(io));
  const names = words.length > 0 ? words : [contextName(globals, { ...io, contexts })];
  const objects = names.map((name) => {
    if (name === DEFAULT_CONTEXT) {
      return shown(name, { description: "", host: defaultHosts(globals, io).join(","), skipTlsVerify: false }, {});
    }
    const context = contexts.get(name);
    return shown(name, context, context.files);
  });
  io.out(renderObjects(objects, flags.text("format")));
  return 0;
}

/** Docker's shape; keys are named, never shown. */
function shown(name: string, meta: ContextMeta, files: Readonly<Record<string, string | undefined>>) {
  const material = Object.values(files).flatMap((path) => (path === undefined ? [] : [path]));
  return {
    Name: name,
    Metadata: meta.description === "" ? {} : { Description: meta.description },
    Endpoints: {
      docker: { Host: meta.host, SkipTLSVerify: meta.skipTlsVerify, ...filled({ TLSServerName: meta.serverName }) },
    },
    TLSMaterial: material.length > 0 ? { docker: material } : {},
  };
}
