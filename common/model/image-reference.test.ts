import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonicalName, familiarName, familiarRepository, parseImageReference, withDigest } from "./image-reference.ts";

const digest = `sha256:${"ab".repeat(32)}`;

function parsed(text: string) {
  const answer = parseImageReference(text);
  if (!answer.ok) throw new Error(answer.problem);
  return answer.reference;
}

describe("good references", () => {
  test.each([
    ["nginx", "docker.io/library/nginx:latest", "nginx:latest"],
    ["nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"],
    ["demo/web:1", "docker.io/demo/web:1", "demo/web:1"],
    ["library/nginx", "docker.io/library/nginx:latest", "nginx:latest"],
    ["docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"],
    ["index.docker.io/demo/web", "docker.io/demo/web:latest", "demo/web:latest"],
    ["docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"],
    ["localhost/a", "localhost/a:latest", "localhost/a:latest"],
    ["localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"],
    ["127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"],
    ["[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"],
    ["ghcr.io/A.b/c".toLowerCase(), "ghcr.io/a.b/c:latest", "ghcr.io/a.b/c:latest"],
    ["a__b/c-----d.e_f", "docker.io/a__b/c-----d.e_f:latest", "a__b/c-----d.e_f:latest"],
    [`a@${digest}`, `docker.io/library/a@${digest}`, `a@${digest}`],
    [`a:1@${digest}`, `docker.io/library/a:1@${digest}`, `a:1@${digest}`],
    [`${"a".repeat(240)}:${"t".repeat(128)}`, undefined, undefined],
  ])("%s", (text, canonical, familiar) => {
    const reference = parsed(text);
    if (canonical) expect(canonicalName(reference)).toBe(canonical);
    if (familiar) expect(familiarName(reference)).toBe(familiar);
  });

  test("a tag beside a digest is kept for people to read", () => {
    expect(parsed(`a:1@${digest}`)).toEqual({ domain: "docker.io", path: "library/a", tag: "1", digest });
    expect(familiarRepository(parsed("a:1"))).toBe("a");
    expect(canonicalName(withDigest(parsed("a"), digest))).toBe(`docker.io/library/a:latest@${digest}`);
  });
});

describe("bad references", () => {
  test.each([
    "",
    " ",
    "UPPER/case",
    "a//b",
    "a:tag:tag",
    "a@sha256:short",
    "-a",
    "a".repeat(300),
    `a:${"t".repeat(129)}`,
    "a/",
    "/a",
    "a:",
    "a@",
    `a@${digest}@${digest}`,
    "a@md5:00000000000000000000000000000000",
    ".a",
    "a..b",
    "a b",
    "a\n",
    "../a",
    "Nginx",
    "ex ample.com/a",
  ])("%j says exactly that", (text) => {
    expect(parseImageReference(text)).toEqual({
      ok: false,
      problem: `${JSON.stringify(text)} is not a valid repository/tag`,
    });
  });

  test.each([
    ["f".repeat(64), "64 hexadecimal digits are ambiguous with an id"],
    ["host:99999/a", "bad port 99999"],
    ["host:0/a", "bad port 0"],
    ["http://example.com/a", "not a reference but a URL"],
  ])("%j says why as well", (text, reason) => {
    expect(parseImageReference(text)).toEqual({
      ok: false,
      problem: `${JSON.stringify(text)} is not a valid repository/tag: ${reason}`,
    });
  });

  test("a hostile name cannot reach the terminal nor flood it", () => {
    const answer = parseImageReference(`\u001b[2J${"x".repeat(10_000)}`);
    expect(answer.ok ? "" : answer.problem).toMatch(/^"\\u001b\[2Jx{316}…" is not/);
  });
});

test("printing and parsing again changes nothing, whatever parses", () => {
  const piece = fc.stringMatching(/^[a-zA-Z0-9._:/@-]{1,12}$/);
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 4 }), (pieces) => {
      const answer = parseImageReference(pieces.join("/"));
      if (!answer.ok) return;
      expect(parsed(canonicalName(answer.reference))).toEqual(answer.reference);
      expect(parsed(familiarName(answer.reference))).toEqual(answer.reference);
    }),
    { numRuns: 2000 },
  );
});
