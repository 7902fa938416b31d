import { SwarmError } from "../../common/base/error.ts";
import type { Command } from "../command.ts";
import { LOCAL_CALL_MS_MAX, LocalPrograms, SOCKET_FLAGS } from "../local.ts";

/** A key has 52 characters. */
const TEXT_LENGTH_MAX = 1024;

export const command: Command = {
  usage: "swarm unlock",
  summary: "Unlock this host's manager with the key from STDIN",
  flags: SOCKET_FLAGS,
  words: { min: 0, max: 0 },
  async run({ flags, io, signal }) {
    if (io.stdin.isTTY === true) io.err("Enter unlock key: ");
    let text = "";
    for await (const chunk of io.stdin) {
      text += String(chunk);
      if (text.length > TEXT_LENGTH_MAX) throw new SwarmError("invalid_argument", "STDIN: that is no unlock key");
      if (text.includes("\n")) break;
    }
    await using local = new LocalPrograms(flags);
    await local.manager.unlockManager({ unlockKey: text }, { signal, timeoutMs: LOCAL_CALL_MS_MAX });
    return 0;
  },
};
