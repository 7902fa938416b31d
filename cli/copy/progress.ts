/** What `task cp` says on stderr, in docker cp's words. */
import type { Clock } from "../../common/base/clock.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatBytesDecimal } from "../../common/model/units.ts";
import type { Io } from "../io.ts";

/** Pictures of how far it is come no faster. */
const DRAW_MS = 200;

/** Counts bytes of a tar; drawn on a terminal while they flow. */
export class CopyProgress {
  readonly #io: Pick<Io, "err" | "terminal">;
  readonly #clock: Clock;
  readonly #quiet: boolean;
  readonly #head: string;
  #sizeBytes = 0;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #drawn = false;

  constructor(
    io: Pick<Io, "err" | "terminal">,
    clock: Clock,
    options: { readonly quiet: boolean; readonly head: string },
  ) {
    this.#io = io;
    this.#clock = clock;
    this.#quiet = options.quiet;
    this.#head = options.head;
  }

  add(sizeBytes: number): void {
    this.#sizeBytes += sizeBytes;
    const nowMs = this.#clock.monotonicMs();
    if (this.#quiet || !this.#io.terminal || nowMs < this.#drawnMs + DRAW_MS) return;
    this.#drawnMs = nowMs;
    this.#drawn = true;
    this.#io.err(`\r${this.#head} - ${formatBytesDecimal(this.#sizeBytes)}\u001b[K`);
  }

  /** Something that was not copied, or not as it is: told with --quiet, too. */
  warn(text: string): void {
    this.clear();
    this.#io.err(`swarmctl: warning: ${escapeControls(text)}\n`);
  }

  done(to: string): void {
    this.clear();
    if (this.#quiet) return;
    this.#io.err(`Successfully copied ${formatBytesDecimal(this.#sizeBytes)} to ${escapeControls(to)}\n`);
  }

  clear(): void {
    if (this.#drawn) this.#io.err("\r\u001b[K");
    this.#drawn = false;
  }
}
