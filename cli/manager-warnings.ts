/** What managers warn of, on stderr, after what changes their number. */
import { escapeControls } from "../common/model/text.ts";
import type { Client } from "../common/rpc/service.ts";
import type { Control, GetInfoResponse } from "../proto/gen/swarm/v1/control_pb.js";
import type { Io } from "./io.ts";

/** As `docker info` does. */
export function printWarnings({ warnings }: Pick<GetInfoResponse, "warnings">, io: Pick<Io, "err">): void {
  for (const warning of warnings) io.err(`WARNING: ${escapeControls(warning)}\n`);
}

/** What was asked for is done: that nobody can be asked how the managers stand now changes nothing of it. */
export async function warnOfManagers(
  client: Pick<Client<typeof Control>, "getInfo">,
  io: Pick<Io, "err">,
): Promise<void> {
  const info = await client.getInfo({}).catch(() => undefined);
  if (info) printWarnings(info, io);
}
