/** The flags that every command of stack files shares → which files are read, and what they see. */
import type { Invocation } from "../command.ts";
import { UsageError } from "../usage-error.ts";
import type { ReadOptions } from "./read.ts";
import { FILE_BYTES_MAX } from "./read-yaml.ts";

/** Reads `--compose-file` and `--profile`, and stdin where a file is "-". */
export async function stackOptions({ flags, io }: Invocation): Promise<ReadOptions> {
  const files = flags.list("compose-file").flatMap((text) => text.split(","));
  if (files.length === 0) throw new UsageError("Specify a Compose file (with --compose-file)");
  if (files.filter((file) => file === "-").length > 1)
    throw new UsageError("stdin can be read once: - stands twice in --compose-file");
  return {
    files,
    environment: io.environment,
    profiles: flags.list("profile").flatMap((text) => text.split(",")),
    ...(files.includes("-") && { stdin: await readAll(io.stdin) }),
  };
}

/** As much as a stack file may be, and one byte: enough for its size to be refused. */
async function readAll(stdin: AsyncIterable<Uint8Array | string>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stdin) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    chunks.push(bytes);
    length += bytes.byteLength;
    if (length > FILE_BYTES_MAX) break;
  }
  return Buffer.concat(chunks);
}
