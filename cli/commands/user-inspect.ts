import type { Command, Invocation } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { inspectEach } from "../inspect.ts";
import { renderObjects } from "../output/format.ts";
import { userJson } from "../output/user-words.ts";

export const command: Command = {
  usage: "user inspect [OPTIONS] USER [USER...]",
  summary: "Display detailed information on one or more users",
  flags: { format: INSPECT_FLAGS.format },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  return await inspectEach(words, io, {
    find: async (reference) => (await client.listUsers({ references: [reference] })).users,
    show: (users) => renderObjects(users.map(userJson), flags.text("format")),
  });
}
