/** What streams do when their manager goes: they go on with another one. */
import { Backoff } from "../common/base/backoff.ts";
import { SwarmError } from "../common/base/error.ts";
import { systemRandom } from "../common/base/random.ts";
import { escapeControls } from "../common/model/text.ts";
import type { ControlClient, Invocation } from "./command.ts";

/** How long another manager is looked for. */
const RECONNECT_MS_MAX = 60_000;
const RECONNECT = { delayMsMin: 100, delayMsMax: 2_000 };

/** Whether the manager, not the request, is what failed. */
export function isLostManager(reason: unknown): reason is SwarmError {
  return reason instanceof SwarmError && (reason.code === "unavailable" || reason.code === "internal");
}

/** A manager that answers, for a stream that broke with `failure`, which is told. Throws the last failure after a minute. */
export async function anotherManager(
  { clock, io, reconnect }: Invocation,
  failure: SwarmError,
  signal: AbortSignal,
): Promise<ControlClient> {
  const backoff = new Backoff(RECONNECT, systemRandom);
  const deadlineMs = clock.monotonicMs() + RECONNECT_MS_MAX;
  io.err(`swarmctl: ${escapeControls(failure.message)}; looking for another manager\n`);
  while (true) {
    try {
      const client = await reconnect();
      await client.getInfo({}, { signal });
      return client;
    } catch (reason) {
      if (signal.aborted || clock.monotonicMs() >= deadlineMs) throw reason;
    }
    await clock.sleep(backoff.nextDelayMs(), signal);
  }
}
