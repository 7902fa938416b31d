import { SwarmError } from "../../common/base/error.ts";
import type { Branded } from "../../common/base/id.ts";

/** A lease of the store; keys attached to it vanish with it. */
export type LeaseId = Branded<"lease">;

/** One key as it stands at some revision. Revisions are etcd's, as safe integers; 0 never occurs in an entry. */
export interface KvEntry {
  readonly key: string;
  /** Empty when only keys were asked for. */
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly lease: LeaseId | undefined;
}

/** Which keys to read: one key, or all below a prefix in key order. */
export interface RangeRequest {
  readonly from: { readonly key: string } | { readonly prefix: string; readonly after?: string };
  /** Most entries in one answer: read in pages of at most 500 so that no answer nears the message limit. */
  readonly limit: number;
  /** Read the past; default: now, linearizable. A compacted one is `out_of_range`. */
  readonly revision?: number;
  readonly keysOnly?: boolean;
}

export interface RangeResult {
  /** The store's revision when this was read, also when `revision` asked for the past. */
  readonly revision: number;
  readonly entries: readonly KvEntry[];
  /** There are more keys: go on with `after` = the last key. */
  readonly more: boolean;
}

/** A condition of a transaction: the key's revision equals this; 0 means that the key does not exist. */
export type Compare =
  | { readonly key: string; readonly modRevision: number }
  | { readonly key: string; readonly createRevision: number };

/** One change of a transaction. No key may occur twice in one transaction. */
export type Operation =
  | { readonly type: "put"; readonly key: string; readonly value: Uint8Array; readonly lease?: LeaseId | undefined }
  | { readonly type: "delete"; readonly key: string };

export interface TxnRequest {
  /** All must hold for the changes to be made. */
  readonly compare: readonly Compare[];
  readonly operations: readonly Operation[];
}

/** What became of a transaction; a failed one tells, for each compare in turn, what stood there (without values). */
export type TxnResult =
  | { readonly succeeded: true; readonly revision: number }
  | { readonly succeeded: false; readonly revision: number; readonly found: readonly (KvEntry | undefined)[] };

export type WatchEvent =
  | {
      readonly type: "put";
      readonly key: string;
      readonly value: Uint8Array;
      readonly createRevision: number;
      readonly modRevision: number;
      readonly lease: LeaseId | undefined;
    }
  | { readonly type: "delete"; readonly key: string; readonly modRevision: number };

/**
 * A step of a watch. `events` carries whole revisions in order and ends at `revision`; without events it only says how
 * far the store has come. `compacted` ends the watch: what lay between is lost, list again.
 */
export type WatchStep =
  | { readonly type: "events"; readonly revision: number; readonly events: readonly WatchEvent[] }
  | { readonly type: "compacted"; readonly revision: number };

export interface WatchRequest {
  readonly prefix: string;
  /** The first revision to see. */
  readonly fromRevision: number;
}

/** The most operations in one transaction (etcd refuses above 128) and its bytes (etcd refuses above 1.5 MiB). */
export const TXN_OPERATIONS_MAX = 100;
export const TXN_BYTES_MAX = 1024 * 1024;

/** Keys of the first page: were each 64 KiB, they would fit the 32 MiB receive limit. */
const PAGE_KEYS_MIN = 500;
/**
 * The most keys in a page. etcd walks its whole index below the prefix for each page, so that 100,000 keys in pages of
 * 500 take 6 s and in pages of 16,000 half a second; more only makes longer pauses.
 */
const PAGE_KEYS_MAX = 16_000;
/** Pages grow while they are smaller than this: a tenth of the receive limit, since values may grow on the way. */
const PAGE_BYTES_AIM = 3 * 1024 * 1024;

/**
 * The store as the rest sees it: etcd's vocabulary, narrowed to what is used. Every call has a deadline and ends in a
 * value or a SwarmError: `unavailable` (also with an outcome that is unknown, see `isOutcomeUnknown`),
 * `resource_exhausted` when the store is full, `out_of_range` for a compacted revision, `not_found` for a lease that is
 * gone, `data_loss` when the store's revision went back (it was restored from a backup).
 */
export interface Kv {
  range(request: RangeRequest, signal: AbortSignal): Promise<RangeResult>;
  /** Never retried inside: see `isOutcomeUnknown`. */
  txn(request: TxnRequest, signal: AbortSignal): Promise<TxnResult>;
  /**
   * Every change from a revision on: ordered, unique, whole revisions, without gaps over lost connections. Ends after
   * `compacted`; throws the abort reason when `signal` aborts.
   */
  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchStep>;
  /** The store may grant longer than asked (etcd: at least 2 s, whole seconds). */
  leaseGrant(ttlMs: number, signal: AbortSignal): Promise<{ readonly lease: LeaseId; readonly ttlMs: number }>;
  /** Renews once. `undefined`: the lease is gone, with all its keys. */
  leaseKeepAlive(lease: LeaseId, signal: AbortSignal): Promise<{ readonly ttlMs: number } | undefined>;
  /** Deletes the lease's keys in one revision; a lease that is gone already is no error. */
  leaseRevoke(lease: LeaseId, signal: AbortSignal): Promise<void>;
}

const unknownOutcomes = new WeakSet<SwarmError>();

/** An `unavailable` for a write that may or may not have been made. */
export function outcomeUnknown(operation: string, cause: unknown): SwarmError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const error = new SwarmError("unavailable", `${operation}: outcome unknown: ${reason}`, { cause });
  unknownOutcomes.add(error);
  return error;
}

/** Whether `reason` (or what it wraps) says that a write may or may not have been made. */
export function isOutcomeUnknown(reason: unknown): boolean {
  for (let error = reason; error instanceof SwarmError; error = error.cause) {
    if (unknownOutcomes.has(error)) return true;
  }
  return false;
}

/**
 * Reads every entry below `prefix` at one revision, in pages that grow while their values are small and shrink when an
 * answer was too large; the pages share the first one's revision.
 */
export async function* readPages(
  kv: Kv,
  request: { readonly prefix: string; readonly keysOnly?: boolean },
  signal: AbortSignal,
): AsyncGenerator<RangeResult, void, undefined> {
  let revision: number | undefined;
  let after: string | undefined;
  let limit = PAGE_KEYS_MIN;
  while (true) {
    let page: RangeResult;
    try {
      page = await kv.range(
        {
          from: after === undefined ? { prefix: request.prefix } : { prefix: request.prefix, after },
          limit,
          keysOnly: request.keysOnly ?? false,
          ...(revision === undefined ? {} : { revision }),
        },
        signal,
      );
    } catch (reason) {
      if (!(reason instanceof SwarmError && reason.code === "resource_exhausted" && limit > 1)) throw reason;
      limit = Math.ceil(limit / 8);
      continue;
    }
    revision ??= page.revision;
    yield { ...page, revision };
    after = page.entries.at(-1)?.key;
    if (!page.more || after === undefined) return;
    limit = nextLimit(limit, page.entries);
  }
}

/** As many keys as would have made this page the size we aim at, but at most four times as many. */
function nextLimit(limit: number, entries: readonly KvEntry[]): number {
  let bytes = 1;
  for (const { key, value } of entries) bytes += key.length + value.length;
  const aim = Math.floor((PAGE_BYTES_AIM / bytes) * limit);
  return Math.max(1, Math.min(aim, limit * 4, PAGE_KEYS_MAX));
}
