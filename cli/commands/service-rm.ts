import { findService, forEachWord } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";

export const command: Command = {
  usage: "service rm SERVICE [SERVICE...]",
  summary: "Remove one or more services",
  flags: {},
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ words, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  return await forEachWord(words, io, async (reference) => {
    const { service } = await findService(client, reference);
    await client.removeService({ serviceId: service.id });
    return reference;
  });
}
