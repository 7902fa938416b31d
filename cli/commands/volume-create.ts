import { SwarmError } from "../../common/base/error.ts";
import type { Command } from "../command.ts";
import { parsePair } from "../flags/lists.ts";
import { parsedOrThrow } from "../flags/values.ts";
import { refuseFlags, VOLUME_CREATE_REFUSED } from "../refused.ts";

export const command: Command = {
  usage: "volume create [OPTIONS] [VOLUME]",
  summary: "Create a volume; a node makes it when a task there mounts it",
  flags: {
    driver: { kind: "text", short: "d", value: "string", help: "Specify volume driver name", default: "local" },
    label: { kind: "list", value: "list", help: "Set metadata for a volume" },
    name: { kind: "text", value: "string", help: "Specify volume name (as the word VOLUME does)" },
    opt: {
      kind: "list",
      short: "o",
      value: "list",
      help: "Set driver specific options: type, device, o (as mount(8) has them)",
    },
    ...VOLUME_CREATE_REFUSED.flags,
  },
  words: { min: 0, max: 1 },
  async run({ flags, words, io, connect }) {
    refuseFlags(flags, VOLUME_CREATE_REFUSED);
    const [name = flags.text("name") ?? ""] = words;
    if (words.length > 0 && flags.has("name")) {
      throw new SwarmError(
        "invalid_argument",
        "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
      );
    }
    const pairs = (flag: string) =>
      Object.fromEntries(flags.list(flag).map((text) => parsedOrThrow(flag, text, parsePair)));
    const spec = { name, driver: flags.text("driver") ?? "local", labels: pairs("label"), options: pairs("opt") };
    const { volume } = await (await connect()).createVolume({ spec });
    io.out(`${volume?.name ?? name}\n`);
    return 0;
  },
};
