/** Goal: what a person pastes is understood or refused with the reason, and no secret is ever shown. Method: tables, properties. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SwarmError } from "../base/error.ts";
import { systemEntropy } from "../base/random.ts";
import { sameBytes } from "../base/same-bytes.ts";
import {
  certificateDigest,
  formatJoinToken,
  isTokensRoot,
  newJoinSecret,
  parseJoinToken,
  redactSecrets,
  roleOfSecret,
} from "./join-token.ts";
import { formatUnlockKey, newUnlockKey, parseUnlockKey } from "./unlock-key.ts";

/** Docker's documentation shows this one. */
const TOKEN = "SWMTKN-1-0j52ln6hxjpxk2wgk917abcnxywj3xed0y8vi1e5m9t3uttrtu-7bnxvvlz2mrcpfonjuztmtts9";
const [, , DIGEST = "", SECRET = ""] = TOKEN.split("-");
const UNLOCK_KEY = "SWMKEY-1-WuYH/IX284+lRcXuoVf38viIDK3HJEKY13MIHX+tTt8";

function bytes(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

/** What `parse` says of `text`. */
function refusal(parse: (text: string) => unknown, text: string): string {
  try {
    parse(text);
    return "accepted";
  } catch (reason) {
    expect(reason).toBeInstanceOf(SwarmError);
    expect(SwarmError.from(reason).code).toBe("invalid_argument");
    return SwarmError.from(reason).message;
  }
}

describe("join tokens", () => {
  test("reads a token of Docker's", () => {
    const { digest, secret } = parseJoinToken(TOKEN);
    expect([digest.length, secret.length]).toEqual([32, 16]);
    expect(formatJoinToken({ digest, secret })).toBe(TOKEN);
    expect(formatJoinToken(parseJoinToken(`\n\t ${TOKEN} \r\n`))).toBe(TOKEN);
  });

  test.each([
    ["", "it is empty"],
    ["  \n", "it is empty"],
    ["hunter2", "it does not begin with SWMTKN-1-"],
    [`docker swarm join --token ${TOKEN} 10.0.0.1:2377`, "give the token alone, from SWMTKN-1- on"],
    [TOKEN.toLowerCase(), "give the token alone, from SWMTKN-1- on"],
    [UNLOCK_KEY, "that is the unlock key of a locked manager"],
    ["SWMTKN-", "it is of an unknown version, and only version 1 is known here"],
    [TOKEN.replace("-1-", "-2-"), "it is of version 2, and only version 1 is known here"],
    [TOKEN.replace("-1-", "-2-1-"), "it is of version 2, and only version 1 is known here"],
    [TOKEN.replace("-1-", "-x\u001b-"), "it is of an unknown version, and only version 1 is known here"],
    [`SWMTKN-1-${DIGEST}`, "it is cut off: copy the whole of it"],
    [`SWMTKN-1-${DIGEST.slice(0, 20)}`, "it is cut off: copy the whole of it"],
    [`SWMTKN-1-${DIGEST}-`, "its secret has 0 characters of 25: copy the whole of it"],
    [TOKEN.slice(0, -1), "its secret has 24 characters of 25: copy the whole of it"],
    [`${TOKEN}a`, "its secret has 26 characters, not 25"],
    [`${TOKEN}-a`, "it has 5 parts with dashes between them, not 4"],
    [`${TOKEN.slice(0, 40)}\n${TOKEN.slice(40)}`, "it has blanks or line breaks inside: paste it in one piece"],
    [`${TOKEN.slice(0, 40)}  ${TOKEN.slice(40)}`, "it has blanks or line breaks inside: paste it in one piece"],
    [`SWMTKN-1-${DIGEST.slice(1)}-${SECRET}`, "its CA digest has 49 characters of 50: copy the whole of it"],
    [`SWMTKN-1-${DIGEST.toUpperCase()}-${SECRET}`, "its CA digest has capital letters"],
    [`SWMTKN-1-_${DIGEST.slice(1)}-${SECRET}`, "its CA digest has characters other than 0-9 and a-z"],
    [`SWMTKN-1-${"z".repeat(50)}-${SECRET}`, "its CA digest is mangled: no 32 bytes give those characters"],
    [`SWMTKN-1-${DIGEST}-${"z".repeat(25)}`, "its secret is mangled: no 16 bytes give those characters"],
    [`SWMTKN-1-${DIGEST}-${SECRET.slice(1)}.`, "its secret has characters other than 0-9 and a-z"],
    [`SWMTKN-1-${"0".repeat(5000)}`, "it has 5009 characters"],
  ])("refuses %j", (text, problem) => {
    const said = refusal(parseJoinToken, text);
    expect(said).toBe(`invalid join token: ${problem}`);
    expect(said).not.toContain(SECRET.slice(0, 8));
  });

  test("property: written and read again, with every digit in its place", () => {
    fc.assert(
      fc.property(bytes(32), bytes(16), (digest, secret) => {
        const text = formatJoinToken({ digest, secret });
        expect(text).toMatch(/^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
        const token = parseJoinToken(text);
        expect([Buffer.from(token.digest), Buffer.from(token.secret)]).toEqual([
          Buffer.from(digest),
          Buffer.from(secret),
        ]);
      }),
    );
  });

  test("property: any text is a token or is refused, and what it holds is not told", () => {
    const mutated = fc
      .tuple(fc.nat(TOKEN.length), fc.nat(9), fc.string({ maxLength: 9, unit: "binary" }))
      .map(([at, cut, put]) => TOKEN.slice(0, at) + put + TOKEN.slice(at + cut));
    fc.assert(
      fc.property(fc.oneof(mutated, fc.string({ unit: "binary" })), (text) => {
        expect(refusal(parseJoinToken, text)).not.toContain(SECRET.slice(0, 8));
        refusal(parseUnlockKey, text);
      }),
      { numRuns: 2000 },
    );
  });

  test("a root is known by the hash of its bytes", () => {
    const root = { raw: Buffer.from("a certificate") };
    expect(Buffer.from(certificateDigest(root))).toEqual(createHash("sha256").update(root.raw).digest());
    const token = { digest: certificateDigest(root), secret: newJoinSecret(systemEntropy) };
    expect(isTokensRoot(token, root)).toBe(true);
    expect(isTokensRoot(token, { raw: Buffer.from("another") })).toBe(false);
  });

  test("a secret says as what it lets in", () => {
    const secrets = { worker: newJoinSecret(systemEntropy), manager: newJoinSecret(systemEntropy) };
    expect(roleOfSecret(Buffer.from(secrets.worker), secrets)).toBe("worker");
    expect(roleOfSecret(Buffer.from(secrets.manager), secrets)).toBe("manager");
    expect(roleOfSecret(newJoinSecret(systemEntropy), secrets)).toBeUndefined();
    expect(roleOfSecret(new Uint8Array(), secrets)).toBeUndefined();
  });
});

describe("unlock keys", () => {
  test("reads a key of Docker's", () => {
    expect(formatUnlockKey(parseUnlockKey(` ${UNLOCK_KEY}\n`))).toBe(UNLOCK_KEY);
  });

  test.each([
    ["", "it is empty"],
    ["hunter2", "it does not begin with SWMKEY-1-"],
    [TOKEN, "that is a join token"],
    [UNLOCK_KEY.replace("-1-", "-2-"), "it is of an unknown version, and only version 1 is known here"],
    [UNLOCK_KEY.slice(0, -1), "it has 42 characters after SWMKEY-1-, not 43: copy the whole of it"],
    [`${UNLOCK_KEY}=`, "it has 44 characters after SWMKEY-1-, not 43: copy the whole of it"],
    [UNLOCK_KEY.replace("+", " "), "it has blanks or line breaks inside: paste it in one piece"],
    [UNLOCK_KEY.replace("+", "-"), "it is mangled"],
    [UNLOCK_KEY.replace(/8$/, "9"), "it is mangled"],
    [UNLOCK_KEY.replace("+", "*"), "it is mangled"],
  ])("refuses %j", (text, problem) => {
    expect(refusal(parseUnlockKey, text)).toBe(`invalid unlock key: ${problem}`);
  });

  test("property: written and read again, alike for the same key only", () => {
    fc.assert(
      fc.property(bytes(32), (key) => {
        const read = parseUnlockKey(formatUnlockKey(key));
        expect(sameBytes(read, key)).toBe(true);
        expect(sameBytes(read, newUnlockKey(systemEntropy))).toBe(false);
        expect(sameBytes(read, key.subarray(1))).toBe(false);
      }),
    );
  });
});

describe("logs", () => {
  test.each([
    [`joining with ${TOKEN} at 10.0.0.1`, "joining with SWMTKN-1-0j52ln… at 10.0.0.1"],
    [JSON.stringify({ token: TOKEN, key: UNLOCK_KEY }), '{"token":"SWMTKN-1-0j52ln…","key":"SWMKEY-…"}'],
    [`${TOKEN}\n${UNLOCK_KEY}`, "SWMTKN-1-0j52ln…\nSWMKEY-…"],
    [TOKEN.toLowerCase(), "swmtkn-…"],
    [`SWMTKN-1-${SECRET}`, "SWMTKN-…"],
    [TOKEN.replace("-1-", "-2-1-"), "SWMTKN-…"],
    ["nothing to hide", "nothing to hide"],
  ])("redacts %j", (text, shown) => {
    expect(redactSecrets(text)).toBe(shown);
  });
});
