/** Into a container: a tar in pieces, as operations that the shim carries out there. */
import { SwarmError } from "../../common/base/error.ts";
import { FirstFew } from "../../common/base/first-few.ts";
import { TarParser, tarPathText } from "../../common/model/tar.ts";
import { encodeUnpackOp, type UnpackOp } from "../image/unpack-op.ts";
import type { SessionProcess } from "../runtime/session-process.ts";
import { MORE_WARNINGS, WARNINGS_MAX } from "./archive.ts";
import { fromRoot, recordsOf } from "./copy-out.ts";
import { copyFailure } from "./failure.ts";
import type { CopyEvent, PlaceRecord } from "./records.ts";
import { type EntryOps, EntryTranslator } from "./translate.ts";

/** Links at the end of a path that are followed, as many as the kernel follows. */
const LINKS_MAX = 40;
/** Small operations are gathered to this size before they are written. */
const BATCH_BYTES = 64 * 1024;

type Session = Pick<SessionProcess, "write" | "output">;

/** One copy into a container: first looks, then one tar. */
export class CopyIn {
  readonly #session: Session;
  readonly #records: AsyncIterator<CopyEvent>;
  #batch: Uint8Array[] = [];
  #batchBytes = 0;
  #directory = "";

  constructor(session: Session, signal: AbortSignal) {
    this.#session = session;
    this.#records = recordsOf(session.output(signal));
  }

  /** What is at a path with the links at its end followed, even to where nothing is. Throws what stands in the way. */
  async look(path: string, signal: AbortSignal): Promise<PlaceRecord> {
    let wanted = bytesOf(fromRoot(path));
    for (let links = 0; links <= LINKS_MAX; links++) {
      const place = await this.#look(wanted, signal);
      if (place.state?.kind !== "symlink") return place;
      const above = wanted.slice(0, wanted.lastIndexOf("/") + 1);
      wanted = place.link.startsWith("/") ? place.link : `${above}${place.link}`;
    }
    throw new SwarmError("failed_precondition", `${fromRoot(path)}: too many symbolic links`);
  }

  /** The directory that everything goes into. Throws `failed_precondition` in Docker's words where it may not be written to. */
  async enter(directory: string, signal: AbortSignal): Promise<void> {
    this.#directory = fromRoot(directory);
    const path = bytesOf(this.#directory);
    await this.#send([{ op: "go-into", path }], signal);
    // It is looked at as a directory: links are followed.
    const { readOnly, inRoot } = await this.#look(`${path}/.`, signal);
    if (!readOnly) return;
    const what = inRoot ? "container rootfs is marked read-only" : "mounted volume is marked read-only";
    throw new SwarmError("failed_precondition", `${this.#directory}: ${what}`);
  }

  /**
   * Writes what the tar has, at the container's pace; answers what was left out. Throws `invalid_argument` for a tar that is
   * malformed or holds what is not copied, and what the container's file system refuses.
   */
  async receive(
    tar: AsyncIterable<Uint8Array>,
    { keepOwners }: { readonly keepOwners: boolean },
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const outcome = this.#next();
    let over = false;
    const settle = () => {
      over = true;
    };
    outcome.then(settle, settle);
    const translator = new EntryTranslator({ keepOwners });
    const parser = new TarParser();
    const warnings = new FirstFew(WARNINGS_MAX);
    let current: Pick<EntryOps, "takesContent"> = { takesContent: false };
    for await (const bytes of tar) {
      // Nobody reads it any more: why, the outcome says.
      if (over) break;
      for (const event of parser.push(bytes)) {
        if (event.event === "data") {
          if (current.takesContent) await this.#write(event.bytes, signal);
          continue;
        }
        const decision = translator.decide(event.entry);
        if (decision.warning !== undefined) warnings.add(decision.warning);
        for (const op of decision.ops) await this.#write(encodeUnpackOp(op), signal);
        current = decision;
      }
    }
    if (!over) {
      parser.finish();
      await this.#send(translator.finish(), signal);
    }
    this.#require(await outcome, "end");
    return warnings.takeAll(MORE_WARNINGS);
  }

  async #look(path: string, signal: AbortSignal): Promise<PlaceRecord> {
    await this.#send([{ op: "look", path }], signal);
    return this.#require(await this.#next(), "place");
  }

  async #next(): Promise<CopyEvent | undefined> {
    const { value, done } = await this.#records.next();
    return done ? undefined : value;
  }

  #require<Kind extends CopyEvent["record"]>(
    event: CopyEvent | undefined,
    kind: Kind,
  ): Extract<CopyEvent, { record: Kind }> {
    if (event?.record === "failure") throw copyFailure(event, { shown: (path) => this.#shown(path) });
    if (event === undefined) throw new SwarmError("unavailable", "copying ended early: the container may have ended");
    if (event.record !== kind) throw new SwarmError("data_loss", `shim: ${event.record} where ${kind} was to come`);
    return event as Extract<CopyEvent, { record: Kind }>;
  }

  /** Operations before the directory is entered name whole paths. */
  #shown(path: string): string {
    const text = Buffer.from(path, "latin1").toString("utf8");
    if (text.startsWith("/")) return text.replace(/(?<=.)\/\.$/, "");
    return `${this.#directory === "/" ? "" : this.#directory}/${text}`;
  }

  async #send(ops: readonly UnpackOp[], signal: AbortSignal): Promise<void> {
    for (const op of ops) await this.#write(encodeUnpackOp(op), signal);
    await this.#flush(signal);
  }

  async #write(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#batch.push(bytes);
    this.#batchBytes += bytes.length;
    if (this.#batchBytes >= BATCH_BYTES) await this.#flush(signal);
  }

  async #flush(signal: AbortSignal): Promise<void> {
    const batch = Buffer.concat(this.#batch);
    this.#batch = [];
    this.#batchBytes = 0;
    await this.#session.write(batch, signal);
  }
}

/** A text's bytes as a byte string. Throws `invalid_argument` for what no path can be. */
function bytesOf(path: string): string {
  const bytes = Buffer.from(path, "utf8").toString("latin1");
  if (bytes.length > 4095 || bytes.includes("\0")) {
    throw new SwarmError("invalid_argument", `path: ${tarPathText(bytes)} is too long, or holds a NUL byte`);
  }
  return bytes;
}
