import { forEachWord } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";

export const command: Command = {
  usage: "user rm USER [USER...]",
  summary: "Remove one or more users: their certificates are refused at once",
  flags: {},
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ words, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  return await forEachWord(words, io, async (word) => {
    const { users } = await client.listUsers({ references: [word] });
    for (const { id } of users) await client.removeUser({ userId: id });
    return word;
  });
}
