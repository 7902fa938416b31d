/**
 * The audit log on the disk: `audit.log`, one JSON object a line, only ever appended to, its owner's only. A file that is full becomes
 * `audit.log.1`, that one `.2`, and so on; the oldest goes.
 */
import { closeSync, fstatSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fromJsonString, toJsonString } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { errnoOf } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { timestampMs } from "../../common/model/duration.ts";
import { type AuditRecord, AuditRecordSchema, type ReadAuditRequest } from "../../proto/gen/swarm/v1/audit_pb.js";
import type { AuditStore } from "./audit.ts";

/** A change has about 400 bytes: 40,000 of them. */
const BYTES_MAX = 16 * 1024 * 1024;
/** Full ones that are kept. */
const FILES_MAX = 5;
/** Records read without letting others run: about 10 ms of work. */
const RECORDS_PER_TURN = 500;
const NEWLINE = 0x0a;

/** What a file is opened with. */
export interface AuditFileOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly bytesMax?: number;
  readonly filesMax?: number;
}

export class AuditFile implements AuditStore, Disposable {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #bytesMax: number;
  readonly #filesMax: number;
  #open: { readonly file: number; bytes: number } | undefined;
  #failing = false;

  /** Opens nothing yet: what cannot be opened now may be at the next record. */
  constructor({ path, clock, logger, bytesMax = BYTES_MAX, filesMax = FILES_MAX }: AuditFileOptions) {
    this.#path = path;
    this.#clock = clock;
    this.#logger = logger;
    this.#bytesMax = bytesMax;
    this.#filesMax = filesMax;
  }

  /** Before the answer goes out, so that a manager that is killed right after it has it written. */
  write(record: AuditRecord): void {
    const line = Buffer.from(`${toJsonString(AuditRecordSchema, record)}\n`);
    try {
      if (this.#open && this.#open.bytes > 0 && this.#open.bytes + line.length > this.#bytesMax) this.#rotate();
      this.#open ??= openLog(this.#path);
      writeSync(this.#open.file, line);
      this.#open.bytes += line.length;
      this.#failing = false;
    } catch (reason) {
      // The manager's own log has the record. Once is enough: a full disk stays full.
      if (!this.#failing) this.#logger.error({ err: reason, path: this.#path }, "audit log cannot be written");
      this.#failing = true;
      this[Symbol.dispose]();
    }
  }

  async read({ since, limit }: Pick<ReadAuditRequest, "since" | "limit">): Promise<readonly AuditRecord[]> {
    const sinceMs = timestampMs(since) ?? Number.NEGATIVE_INFINITY;
    const newest: AuditRecord[] = [];
    for (let number = 0; number <= this.#filesMax; number++) {
      for (const record of backwards(await contentOf(this.#numbered(number)))) {
        if ((timestampMs(record.at) ?? 0) < sinceMs || newest.length >= limit) return newest.reverse();
        newest.push(record);
        if (newest.length % RECORDS_PER_TURN === 0) await this.#clock.sleep(0);
      }
    }
    return newest.reverse();
  }

  [Symbol.dispose](): void {
    if (this.#open) closeSync(this.#open.file);
    this.#open = undefined;
  }

  #rotate(): void {
    this[Symbol.dispose]();
    rmSync(this.#numbered(this.#filesMax), { force: true });
    for (let number = this.#filesMax - 1; number >= 0; number--) {
      try {
        renameSync(this.#numbered(number), this.#numbered(number + 1));
      } catch (reason) {
        if (errnoOf(reason) !== "ENOENT") throw reason;
      }
    }
  }

  #numbered(number: number): string {
    return number === 0 ? this.#path : `${this.#path}.${number}`;
  }
}

/** A line that a crash cut short is ended, so that it spoils no other. */
function openLog(path: string): { readonly file: number; bytes: number } {
  const file = openSync(path, "a+", 0o600);
  const { size } = fstatSync(file);
  const last = Buffer.alloc(1);
  if (size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== NEWLINE) writeSync(file, "\n");
  return { file, bytes: size };
}

async function contentOf(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return Buffer.alloc(0);
    throw reason;
  }
}

/** The records of a file, the last one first; lines that are none are passed over. */
function* backwards(content: Buffer): Generator<AuditRecord, void, undefined> {
  for (let end = content.length; end > 0; ) {
    const start = content.lastIndexOf(NEWLINE, end - 2) + 1;
    const line = content.toString("utf8", start, end).trim();
    end = start;
    try {
      if (line !== "") yield fromJsonString(AuditRecordSchema, line, { ignoreUnknownFields: true });
    } catch {
      // Cut short by a crash, or somebody else's.
    }
  }
}
