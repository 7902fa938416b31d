import { Readable } from "node:stream";
import type { IResponseHeader, IWatchResponse, WatchClient } from "etcd3";
import { Backoff } from "../../common/base/backoff.ts";
import { abortReason, type Clock } from "../../common/base/clock.ts";
import { assert, SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { endOfPrefix, toEvent } from "./etcd-codec.ts";
import type { WatchEvent, WatchRequest, WatchStep } from "./kv.ts";

type WatchStream = Awaited<ReturnType<WatchClient["watch"]>>;

/** What a watch needs of its connection. */
export interface WatchContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** How long the server may take to confirm a new watch. */
  readonly openTimeoutMs: number;
  open(): Promise<WatchStream>;
  observe(header: IResponseHeader): void;
  /** Throws `data_loss` if the whole cluster, not only the member we talk to, is behind what it once said. */
  checkRevision(signal: AbortSignal): Promise<unknown>;
}

/** Reconnecting waits this long: short, because every loop stands still meanwhile; growing, to spare a sick etcd. */
const RECONNECT = { delayMsMin: 50, delayMsMax: 2_000 };

/**
 * A watch that survives lost connections. The resume point is ours: the last event's mod_revision + 1, never the
 * header's revision, which runs ahead of events still to be delivered (etcd catches up in batches of 1,000 revisions).
 */
export async function* watchEtcd(
  context: WatchContext,
  request: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchStep, void, undefined> {
  const backoff = new Backoff(RECONNECT, context.random);
  let fromRevision = request.fromRevision;
  while (true) {
    try {
      for await (const step of watchOnce(context, { ...request, fromRevision }, signal)) {
        backoff.reset();
        if (step.type === "events") fromRevision = step.revision + 1;
        yield step;
        if (step.type === "compacted") return;
      }
    } catch (reason) {
      if (signal.aborted) throw abortReason(signal);
      if (reason instanceof SwarmError && reason.code === "data_loss") throw reason;
      context.logger.debug({ err: reason, revision: fromRevision }, "watch broke");
    }
    await context.clock.sleep(backoff.nextDelayMs(), signal);
  }
}

/** One connection's worth; ends or throws when it breaks. */
async function* watchOnce(
  context: WatchContext,
  { prefix, fromRevision }: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchStep, void, undefined> {
  if (signal.aborted) throw abortReason(signal);
  const stream = await context.open();
  assert(stream instanceof Readable, "etcd3's watch stream is a Readable");
  const close = () => {
    // end() first: etcd3 takes the error of a still writable stream for a sick member and drops its connections.
    stream.end();
    stream.cancel();
  };
  const opening = new AbortController();
  signal.addEventListener("abort", close, { once: true });
  if (signal.aborted) close();
  context.clock.sleep(context.openTimeoutMs, opening.signal).then(close, () => {});
  try {
    stream.write({
      create_request: {
        key: Buffer.from(prefix),
        range_end: endOfPrefix(prefix),
        start_revision: fromRevision,
        progress_notify: true,
        fragment: true,
      },
    });
    let pending: WatchEvent[] = [];
    for await (const response of stream as AsyncIterable<IWatchResponse>) {
      opening.abort();
      context.observe(response.header);
      if (response.canceled) {
        const compacted = Number(response.compact_revision);
        if (compacted > 0) yield { type: "compacted", revision: compacted };
        else throw new SwarmError("unavailable", `watch canceled by etcd: ${response.cancel_reason || "no reason"}`);
        return;
      }
      if (response.created) {
        // A watch from the future stays silent for ever if the store was restored from a backup.
        if (Number(response.header.revision) < fromRevision - 1) await context.checkRevision(signal);
        continue;
      }
      for (const event of response.events) pending.push(toEvent(event));
      if (response.fragment) continue;
      const revision = pending.at(-1)?.modRevision ?? Number(response.header.revision);
      const events = pending;
      pending = [];
      yield { type: "events", revision, events };
    }
  } finally {
    opening.abort();
    signal.removeEventListener("abort", close);
    close();
  }
}
