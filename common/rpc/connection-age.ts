/**
 * Ends connections that have become old, politely: no new calls (GOAWAY), time for those that are open, then the end. grpc-js would do
 * so too, but by a timer of its own length for each connection that comes, of which Node keeps the list until that length is over,
 * long after the connection: strangers that come and go would fill memory for an hour.
 */
import { constants, type ServerHttp2Session } from "node:http2";
import type { Clock } from "../base/clock.ts";
import { type Random, randomInteger } from "../base/random.ts";

/** How long calls that are open may go on, in ms. Streams begin anew meanwhile. */
const GRACE_MS = 30_000;

/** An age is this much shorter or longer, so that those who came together do not all come again together. */
const JITTER = 0.1;

/** The highest number of a stream: all that are open may go on (RFC 9113, 6.8). */
const LAST_STREAM = 2 ** 31 - 1;

/** What ages. */
export interface ConnectionAgeOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** In ms. */
  readonly ageMsMax: number;
}

/** The connections of one server. */
export class ConnectionAge {
  readonly #options: ConnectionAgeOptions;
  readonly #known = new WeakSet<object>();

  constructor(options: ConnectionAgeOptions) {
    this.#options = options;
  }

  /** Told of the connection of each call; one ages from its first. */
  follow(session: ServerHttp2Session): void {
    if (this.#known.has(session)) return;
    this.#known.add(session);
    const gone = new AbortController();
    session.once("close", () => gone.abort());
    // Closed meanwhile: then there is nothing to end.
    void this.#end(session, gone.signal).catch(() => {});
  }

  async #end(session: ServerHttp2Session, gone: AbortSignal): Promise<void> {
    const { clock, random, ageMsMax } = this.#options;
    const jitterMs = ageMsMax * JITTER;
    await clock.sleep(ageMsMax - jitterMs + randomInteger(random, Math.ceil(2 * jitterMs)), gone);
    session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM, Buffer.from("max_age"));
    session.close();
    await clock.sleep(GRACE_MS, gone);
    session.destroy();
  }
}
