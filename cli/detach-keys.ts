/** The keys that leave a command to itself: Docker's `--detach-keys` (docker/cli, moby/term `escape_proxy.go`). Pure. */
import { bad, good, type Parsed } from "../common/model/parsed.ts";

export const DETACH_KEYS_DEFAULT = "ctrl-p,ctrl-q";

/** `ctrl-p,ctrl-q`: characters, or `ctrl-` with a letter or one of `@ [ \\ ] ^ _`, as the bytes that a terminal sends. */
export function parseDetachKeys(text: string): Parsed<readonly number[]> {
  const keys: number[] = [];
  for (const word of text.split(",")) {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(word)?.[1];
    if (control !== undefined) keys.push(control.toUpperCase().charCodeAt(0) - 64);
    else if (/^[\x21-\x7e]$/.test(word)) keys.push(word.charCodeAt(0));
    else return bad(`${JSON.stringify(word)} is neither a character nor ctrl-<a letter or one of @[\\]^_>`);
  }
  return good(keys);
}

/** Watches what is typed for the keys. */
export class DetachScanner {
  readonly #keys: readonly number[];
  #matched = 0;

  constructor(keys: readonly number[]) {
    this.#keys = keys;
  }

  /**
   * What of `bytes` goes to the command: a beginning of the keys is held back until it is known not to be them. `detach`:
   * they are complete, and what follows them goes nowhere.
   */
  push(bytes: Uint8Array): { readonly pass: Uint8Array; readonly detach: boolean } {
    const pass: number[] = [];
    for (const byte of bytes) {
      if (byte !== this.#keys[this.#matched]) {
        pass.push(...this.#keys.slice(0, this.#matched));
        this.#matched = 0;
      }
      if (byte !== this.#keys[this.#matched]) pass.push(byte);
      else if (++this.#matched === this.#keys.length) return { pass: Uint8Array.from(pass), detach: true };
    }
    return { pass: Uint8Array.from(pass), detach: false };
  }
}
