/**
 * What opens a locked manager's key file, in Docker's form: `SWMKEY-1-<base 64 of 32 bytes, without padding>`. No message
 * here ever holds one. Pure.
 */
import { assert, SwarmError } from "../base/error.ts";
import type { Entropy } from "../base/random.ts";

const PREFIX = "SWMKEY-1-";
const KEY_BYTES = 32;
const KEY_CHARACTERS = 43;

/** A new key: 32 random bytes. `sameBytes` compares two. */
export function newUnlockKey(entropy: Entropy): Uint8Array {
  return entropy(KEY_BYTES);
}

export function formatUnlockKey(key: Uint8Array): string {
  assert(key.length === KEY_BYTES, "an unlock key of another length");
  return PREFIX + Buffer.from(key).toString("base64").replace(/=+$/, "");
}

/** Reads what a person pasted: white space around it is theirs. Throws `invalid_argument` that says what is wrong with it. */
export function parseUnlockKey(text: string): Uint8Array {
  const line = text.trim();
  if (!line.startsWith("SWMKEY-")) throw invalid(strangeness(line));
  if (/\s/.test(line)) throw invalid("it has blanks or line breaks inside: paste it in one piece");
  if (!line.startsWith(PREFIX)) throw invalid("it is of an unknown version, and only version 1 is known here");
  const encoded = line.slice(PREFIX.length);
  if (encoded.length !== KEY_CHARACTERS) {
    throw invalid(`it has ${encoded.length} characters after ${PREFIX}, not ${KEY_CHARACTERS}: copy the whole of it`);
  }
  const key = Buffer.from(encoded, "base64");
  // Node skips what is no base 64, and forgives bits that are left over.
  if (key.length !== KEY_BYTES || formatUnlockKey(key) !== line) throw invalid("it is mangled");
  return key;
}

function strangeness(line: string): string {
  if (line === "") return "it is empty";
  return line.startsWith("SWMTKN-") ? "that is a join token" : `it does not begin with ${PREFIX}`;
}

function invalid(reason: string): SwarmError {
  return new SwarmError("invalid_argument", `invalid unlock key: ${reason}`);
}
