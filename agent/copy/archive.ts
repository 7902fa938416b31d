/** Records of what is copied out of a container, as a tar. */
import { SwarmError } from "../../common/base/error.ts";
import { FirstFew } from "../../common/base/first-few.ts";
import { TAR_END, tarHeader, tarPadding } from "../../common/model/tar-writer.ts";
import { type CopyFailure, copyFailure } from "./failure.ts";
import type { CopyEvent, FileState } from "./records.ts";

/** Files with several names that are remembered, of which the shim sends the content once: as in agent/shim/copy.c. */
const LINKED_MAX = 48 * 1024;

/** Warnings that are told one by one: a container may have a million sockets. */
export const WARNINGS_MAX = 100;
export const MORE_WARNINGS = "more warnings of this kind";

/** Turns one copy's records into the bytes of its archive. */
export class Archive {
  readonly #failure: CopyFailure;
  /** The first name of each file that has several. */
  readonly #linked = new Map<string, string>();
  /** What is to be told: left out, or not as it was. */
  readonly warnings = new FirstFew(WARNINGS_MAX);
  #sizeBytes = 0;
  #ended = false;

  /** `failure` says how paths of the archive are called in the container. */
  constructor(failure: CopyFailure) {
    this.#failure = failure;
  }

  /** The bytes that follow from an event. Throws what the shim says went wrong. */
  *take(event: CopyEvent): Generator<Uint8Array, void, undefined> {
    switch (event.record) {
      case "entry":
        return yield* this.#entry(event.path, event.state, event.link);
      case "linked":
        return yield tarHeader({ ...event.state, ...this.#linkTo(event), kind: "hardlink", sizeBytes: 0 });
      case "data":
        this.#sizeBytes -= event.bytes.length;
        yield event.bytes;
        if (this.#sizeBytes === 0) yield this.#padding;
        return;
      case "skipped":
        this.warnings.add(`${this.#failure.shown(event.path)}: a socket, left out`);
        return;
      case "shrunk": {
        const lost = `${event.missingBytes} bytes`;
        this.warnings.add(
          `${this.#failure.shown(event.path)}: became ${lost} shorter while it was read, zeros stand for them`,
        );
        return;
      }
      case "failure":
        throw copyFailure(event, this.#failure);
      case "end":
        this.#ended = true;
        return yield TAR_END;
      case "place":
        throw new SwarmError("data_loss", "shim: a place that nobody asked for");
    }
  }

  /** Throws `unavailable` when the records ended without their end: the process was killed, with its container say. */
  finish(): void {
    if (!this.#ended) throw new SwarmError("unavailable", "copying ended early: the container may have ended");
  }

  #padding: Uint8Array = new Uint8Array();

  *#entry(path: string, state: FileState, link: string): Generator<Uint8Array, void, undefined> {
    const { kind, identity, links, sizeBytes } = state;
    if (kind === "socket") return;
    if (kind === "file") {
      if (links > 1 && this.#linked.size < LINKED_MAX) this.#linked.set(identity, path);
      this.#sizeBytes = sizeBytes;
      this.#padding = tarPadding(sizeBytes);
    }
    yield tarHeader({ ...state, kind, path, link, sizeBytes: kind === "file" ? sizeBytes : 0 });
  }

  #linkTo({ path, state }: { readonly path: string; readonly state: FileState }) {
    const link = this.#linked.get(state.identity);
    if (link === undefined) throw new SwarmError("data_loss", "shim: another name of a file that did not come");
    return { path, link };
  }
}
