/**
 * The node's WireGuard keys: where the private ones are kept, and how one follows another. A new key is told to managers
 * first and used when they have it: other nodes hear of it at that time.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import type { Clock } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import { generatePrivateKey, publicKeyOf } from "./network/wireguard-key.ts";
import { KEY_BYTES } from "./network/wireguard-messages.ts";

/** After a key could not be told. */
const RETRY_MS = 60_000;

/** What the file says, keys in base64. */
interface KeyRecord {
  readonly current: string;
  /** Made, but maybe not told to managers yet. */
  readonly next?: string;
  readonly createdMs: number;
}

export interface WireguardKeysOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Readable by nobody else. */
  readonly path: string;
  /** How long a key is used, in ms; 0: for ever. */
  readonly lifetimeMs: number;
}

export class WireguardKeys {
  readonly #options: WireguardKeysOptions;
  #record: KeyRecord;

  private constructor(options: WireguardKeysOptions, record: KeyRecord) {
    this.#options = options;
    this.#record = record;
  }

  /** Reads the keys, or makes the first. A file that cannot be read is replaced. Throws when none can be written. */
  static open(options: WireguardKeysOptions): WireguardKeys {
    const { clock, path, logger } = options;
    let record: KeyRecord | undefined;
    try {
      record = readRecord(readFileSync(path, "utf8"));
    } catch (reason) {
      if (errnoOf(reason) !== "ENOENT")
        logger.warn({ path, err: SwarmError.from(reason) }, "key not read: a new one is made");
    }
    if (record !== undefined) return new WireguardKeys(options, record);
    const keys = new WireguardKeys(options, { current: newKey(), createdMs: clock.nowMs() });
    keys.#write(keys.#record);
    return keys;
  }

  /** The private key that is in use. */
  get inUse(): Uint8Array {
    return Buffer.from(this.#record.current, "base64");
  }

  /** The public key that managers are to have. */
  get told(): Uint8Array {
    return publicKeyOf(Buffer.from(this.#record.next ?? this.#record.current, "base64"));
  }

  /** Managers have the key that is `told`: it is used from now on. Returns whether that is another than before. */
  settle(): boolean {
    const { next } = this.#record;
    if (next === undefined) return false;
    this.#write({ current: next, createdMs: this.#options.clock.nowMs() });
    return true;
  }

  /** Replaces the key whenever its time is over. */
  async run(
    tell: (key: Uint8Array, signal: AbortSignal) => Promise<void>,
    use: (key: Uint8Array, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, logger, lifetimeMs } = this.#options;
    while (lifetimeMs > 0) {
      await clock.sleep(Math.max(0, this.#record.createdMs + lifetimeMs - clock.nowMs()), signal);
      try {
        if (this.#record.next === undefined) this.#write({ ...this.#record, next: newKey() });
        await tell(this.told, signal);
        this.settle();
        await use(this.inUse, signal);
        logger.info("wireguard key replaced");
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        logger.warn({ err: reason }, "wireguard key not replaced");
        await clock.sleep(RETRY_MS, signal);
      }
    }
  }

  #write(record: KeyRecord): void {
    const { path } = this.#options;
    try {
      writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
      renameSync(`${path}.new`, path);
    } catch (reason) {
      throw SwarmError.wrap(`write ${path}`, reason, "unavailable");
    }
    this.#record = record;
  }
}

function newKey(): string {
  return Buffer.from(generatePrivateKey()).toString("base64");
}

/** Throws `data_loss` when the text is none of ours. */
function readRecord(text: string): KeyRecord {
  try {
    const { current, next, createdMs } = JSON.parse(text);
    for (const key of [current, next ?? current]) {
      if (Buffer.from(key, "base64").length !== KEY_BYTES) throw new Error("not a key");
    }
    return { current, ...(next !== undefined && { next }), createdMs: Number(createdMs) };
  } catch (reason) {
    throw SwarmError.wrap("read WireGuard keys", reason, "data_loss");
  }
}
