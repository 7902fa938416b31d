import { forEachWord } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";

export const command: Command = {
  usage: "image rm IMAGE [IMAGE...]",
  summary: "Remove one or more images from the cluster",
  flags: {},
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ words, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  return await forEachWord(words, io, async (reference) => {
    const { untagged, deleted } = await client.removeImage({ reference }, { timeoutMs: 30_000 });
    return [...untagged.map((name) => `Untagged: ${name}`), ...deleted.map((digest) => `Deleted: ${digest}`)].join(
      "\n",
    );
  });
}
