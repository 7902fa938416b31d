/**
 * The key that seals the cluster's secrets: 32 random bytes in a file of each manager, never in the store. Whoever has the
 * store's data without this file has no secrets.
 */
import { createHash } from "node:crypto";
import { SwarmError } from "../../common/base/error.ts";

/** As text: one line, so that it can be copied by hand or put into a secret store. */
const FORM = /^SWARM-CLUSTER-KEY-1-([0-9a-f]{64})\s*$/;
const PREFIX = "SWARM-CLUSTER-KEY-1-";
/** AES-256's. */
export const KEY_BYTES = 32;

/** Where a manager's key lies. */
export interface ClusterKeys {
  /** For messages: where the file is, or is to be. */
  readonly place: string;
  /** The key that is there; undefined for none. Throws `failed_precondition` for a file that is no key. */
  read(): Uint8Array | undefined;
  /** Makes a new key and keeps it. */
  create(): Uint8Array;
  /** Keeps a key that another manager gave. */
  write(key: Uint8Array): void;
}

export function formatKey(key: Uint8Array): string {
  return `${PREFIX}${Buffer.from(key).toString("hex")}\n`;
}

/** The key in a file's text; `place` is for the message of a bad one, which tells nothing of what it held. */
export function parseKey(text: string, place: string): Uint8Array {
  const hex = FORM.exec(text)?.[1];
  if (hex === undefined) throw new SwarmError("failed_precondition", `${place} is not a cluster key (${PREFIX}…)`);
  return Buffer.from(hex, "hex");
}

/** Tells keys apart without telling them: the first 16 digits of a hash. */
export function keyId(key: Uint8Array): string {
  return createHash("sha256").update("swarm cluster key\n").update(key).digest("hex").slice(0, 16);
}
