/**
 * What lets a machine into the cluster, in SwarmKit's form (its ca/config.go):
 *
 *   SWMTKN-1-<50 digits of base 36: SHA-256 of the root's DER>-<25 digits of base 36: 128 random bits>
 *
 * The digest lets the new node know the cluster before it shows the secret; the secret lets the cluster know the node, and
 * says as what it may join. (SwarmKit hashes the PEM file's bytes; of DER there is only one form.) No message and no log
 * here ever holds a secret. Pure.
 */
import { createHash, type X509Certificate } from "node:crypto";
import { assert, SwarmError } from "../base/error.ts";
import type { Entropy } from "../base/random.ts";
import { sameBytes } from "../base/same-bytes.ts";

/** A token, read. */
export interface JoinToken {
  /** SHA-256 of the root certificate's DER: 32 bytes. */
  readonly digest: Uint8Array;
  /** 16 bytes. */
  readonly secret: Uint8Array;
}

/** What each kind of token lets in. */
export interface JoinSecrets {
  readonly worker: Uint8Array;
  readonly manager: Uint8Array;
}

const WORD = "SWMTKN";
const VERSION = "1";
const DIGEST = { bytes: 32, digits: 50, name: "CA digest" };
const SECRET = { bytes: 16, digits: 25, name: "secret" };
/** No token, nor a command line with one, is longer: a wrong file is not looked at. */
const TEXT_LENGTH_MAX = 4096;

/** A new secret. */
export function newJoinSecret(entropy: Entropy): Uint8Array {
  return entropy(SECRET.bytes);
}

/** The digest of a root certificate, as tokens carry it. */
export function certificateDigest(certificate: Pick<X509Certificate, "raw">): Uint8Array {
  return createHash("sha256").update(certificate.raw).digest();
}

export function formatJoinToken({ digest, secret }: JoinToken): string {
  assert(digest.length === DIGEST.bytes && secret.length === SECRET.bytes, "a join token of another length");
  return `${WORD}-${VERSION}-${toBase36(digest, DIGEST.digits)}-${toBase36(secret, SECRET.digits)}`;
}

/** Reads what a person pasted: white space around it is theirs. Throws `invalid_argument` that says what is wrong with it. */
export function parseJoinToken(text: string): JoinToken {
  const token = text.trim();
  if (token.length > TEXT_LENGTH_MAX) throw invalid(`it has ${token.length} characters`);
  if (!token.startsWith(`${WORD}-`)) throw invalid(strangeness(token));
  if (/\s/.test(token)) throw invalid("it has blanks or line breaks inside: paste it in one piece");
  const [, version = "", digest, secret, ...more] = token.split("-");
  if (version !== VERSION) {
    const shown = /^\d{1,3}$/.test(version) ? `version ${version}` : "an unknown version";
    throw invalid(`it is of ${shown}, and only version ${VERSION} is known here`);
  }
  if (digest === undefined || secret === undefined) throw invalid("it is cut off: copy the whole of it");
  if (more.length > 0) throw invalid(`it has ${4 + more.length} parts with dashes between them, not 4`);
  return { digest: fromBase36(digest, DIGEST), secret: fromBase36(secret, SECRET) };
}

/** Whether `certificate` is the root that `token` names. */
export function isTokensRoot({ digest }: JoinToken, certificate: Pick<X509Certificate, "raw">): boolean {
  return sameBytes(digest, certificateDigest(certificate));
}

/** What a presented secret lets in, or undefined; takes the same time whatever it is. */
export function roleOfSecret(presented: Uint8Array, { worker, manager }: JoinSecrets): keyof JoinSecrets | undefined {
  const isWorker = sameBytes(presented, worker);
  const isManager = sameBytes(presented, manager);
  return isWorker ? "worker" : isManager ? "manager" : undefined;
}

/**
 * `text` without the join tokens and unlock keys in it, for logs: of a whole token its first digits stay, which tell
 * clusters apart. Rather too much is left out than too little: all to the next blank or quote.
 */
export function redactSecrets(text: string): string {
  return text.replace(/SWM(?:TKN|KEY)-[^\s"']*/gi, (secret) => {
    const cluster = /^SWMTKN-1-([0-9a-z]{6})[0-9a-z]{44}-/.exec(secret)?.[1];
    return cluster === undefined ? `${secret.slice(0, 7)}…` : `${WORD}-${VERSION}-${cluster}…`;
  });
}

function invalid(reason: string): SwarmError {
  return new SwarmError("invalid_argument", `invalid join token: ${reason}`);
}

function strangeness(token: string): string {
  if (token === "") return "it is empty";
  if (token.startsWith("SWMKEY-")) return "that is the unlock key of a locked manager";
  if (/swmtkn/i.test(token)) return `give the token alone, from ${WORD}-${VERSION}- on`;
  return `it does not begin with ${WORD}-${VERSION}-`;
}

interface Part {
  readonly bytes: number;
  readonly digits: number;
  readonly name: string;
}

function fromBase36(text: string, { bytes, digits, name }: Part): Uint8Array {
  if (text.length < digits)
    throw invalid(`its ${name} has ${text.length} characters of ${digits}: copy the whole of it`);
  if (text.length > digits) throw invalid(`its ${name} has ${text.length} characters, not ${digits}`);
  if (!/^[0-9a-z]+$/.test(text)) {
    throw invalid(`its ${name} has ${/[A-Z]/.test(text) ? "capital letters" : "characters other than 0-9 and a-z"}`);
  }
  let value = 0n;
  for (const digit of text) value = value * 36n + BigInt(Number.parseInt(digit, 36));
  if (value >> BigInt(8 * bytes) > 0n) throw invalid(`its ${name} is mangled: no ${bytes} bytes give those characters`);
  return Buffer.from(value.toString(16).padStart(2 * bytes, "0"), "hex");
}

function toBase36(bytes: Uint8Array, digits: number): string {
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`)
    .toString(36)
    .padStart(digits, "0");
}
