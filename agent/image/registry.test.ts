// Goal: whatever a registry does, a pull ends with the right reason, nothing is left behind, and the next pull works.
// Method: the real client, store and shim against an HTTP server that misbehaves; case numbers are of hardening.md §5.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { systemRandom } from "../../common/base/random.ts";
import type { RegistryCredentials } from "../../common/registry/auth.ts";
import { RegistryClient } from "../../common/registry/client.ts";
import { DEFAULT_HTTP_LIMITS } from "../../common/registry/http.ts";
import { type BuiltBlob, buildParts, descriptorOf, jsonBlob, sha256 } from "../../test/images.ts";
import { rootTest } from "../../test/privileges.ts";
import { file } from "../../test/tar.ts";
import { type Behaviour, TestRegistry } from "./test-registry.ts";
import { NEVER, reference, TestDirectory } from "./test-store.ts";

const INDEX = "application/vnd.oci.image.index.v1+json";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const noise = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7919 * (index % 251)) % 256));
const image = buildParts({ name: "a:1", layers: [{ files: [file("noise", noise)], compression: "none" }] });
const [layer] = image.layers as [BuiltBlob];
const PASSWORD: RegistryCredentials = { kind: "password", username: "ann", password: "secret" };
const BASIC = `Basic ${Buffer.from("ann:secret").toString("base64")}`;
/** Real time, but nobody waits longer than this. */
const clock = {
  ...systemClock,
  sleep: (delayMs: number, signal?: AbortSignal) => systemClock.sleep(Math.min(delayMs, 400), signal),
};

const cleanups: AsyncDisposable[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup[Symbol.asyncDispose]();
});

interface SetUpOptions {
  readonly credentials?: RegistryCredentials;
  readonly trustsLoopback?: boolean;
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** A registry with the good image as `a:1`, and a store that pulls from it. */
async function setUp(options: SetUpOptions = {}) {
  const registry = await TestRegistry.start(options.tls);
  const directory = new TestDirectory();
  cleanups.push(directory, registry);
  registry.add("1", image);
  const store = await directory.open({ clock });
  const limits = { ...DEFAULT_HTTP_LIMITS, headersTimeoutMs: 300, bodyTimeoutMs: 300 };
  const { trustsLoopback = true } = options;
  const client = new RegistryClient(clock, systemRandom, { insecureRegistries: [], limits, trustsLoopback });
  const pull = (tag = "1") =>
    store.ensureImage(reference(`${registry.host}/a:${tag}`), client.source(options.credentials), NEVER);
  return { registry, pull, directory };
}

type SetUp = Awaited<ReturnType<typeof setUp>>;

/** The pull fails with `message`, leaves nothing, tries at most 3 times, and a good image comes through afterwards. */
async function expectRefused(all: SetUp, message: string | RegExp, tag = "1"): Promise<void> {
  const { registry, pull, directory } = all;
  await expect(pull(tag)).rejects.toThrow(message);
  expect(readdirSync(join(directory.images, "ingest"))).toEqual([]);
  expect(readdirSync(join(directory.images, "layers"))).toEqual([]);
  const lines = registry.requests.map(({ line }) => line);
  const most = Math.max(0, ...lines.map((line) => lines.filter((other) => other === line).length));
  expect(most).toBeLessThanOrEqual(3);
  await expectGood(all);
}

async function expectGood({ registry, pull }: SetUp): Promise<void> {
  registry.behave = () => false;
  const { layerDirs } = await pull();
  expect(readFileSync(join(layerDirs[0] ?? "", "noise")).equals(noise)).toBe(true);
}

/** Answers requests whose path ends so. */
function on(ending: string, answer: (response: ServerResponse, request: IncomingMessage) => void): Behaviour {
  return (request, response) => {
    if (!request.url?.endsWith(ending)) return false;
    answer(response, request);
    return true;
  };
}

const onLayer = `blobs/${layer.digest}`;
const onConfig = `blobs/${image.config.digest}`;

function answerManifest(document: unknown, mediaType = MANIFEST): Behaviour {
  const bytes = Buffer.isBuffer(document) ? document : Buffer.from(JSON.stringify(document));
  return on("/manifests/1", (response) => response.writeHead(200, { "content-type": mediaType }).end(bytes));
}

/** Answers a manifest, and the blobs it needs beside the good ones. */
function answerImage(document: unknown, ...blobs: readonly BuiltBlob[]): Behaviour {
  const top = answerManifest(document);
  return (request, response, count) => {
    const blob = blobs.find(({ digest }) => request.url?.endsWith(digest));
    if (!blob) return top(request, response, count);
    response.end(blob.bytes);
    return true;
  };
}

const manifest = { schemaVersion: 2, config: descriptorOf(image.config), layers: [descriptorOf(layer)] };
const otherImage = buildParts({ name: "b", layers: [{ files: [file("other", "")], compression: "gzip" }] });
const [otherLayer] = otherImage.layers as [BuiltBlob];
const withOther = { schemaVersion: 2, config: descriptorOf(otherImage.config) };
const platform = { os: "linux", architecture: process.arch === "x64" ? "amd64" : process.arch };
const html = { "content-type": "text/html" };

describe("documents", () => {
  const layers = (...list: readonly unknown[]) => answerManifest({ ...manifest, layers: list });
  const foreign = { ...descriptorOf(layer), mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar" };
  const self = { mediaType: INDEX, digest: sha256("self"), size: 10, platform };
  rootTest.each<[string, Behaviour, string | RegExp]>([
    ["95 digest mismatch", on(onLayer, (r) => r.end(Buffer.alloc(layer.bytes.length))), "digest mismatch"],
    ["95 of the config", on(onConfig, (r) => r.end(Buffer.alloc(image.config.bytes.length))), "digest mismatch"],
    ["96 size mismatch, more", on(onLayer, (r) => r.end(Buffer.concat([layer.bytes, noise]))), "size mismatch"],
    ["96 less", on(onLayer, (r) => r.end(layer.bytes.subarray(0, -1))), "ended after"],
    ["97 manifest of 5 MiB", answerManifest(Buffer.alloc(5 * 1024 * 1024, " ")), "body is over 4194304 bytes"],
    ["98 wrong content type", on("/manifests/1", (r) => r.writeHead(200, html).end(image.manifest.bytes)), "text/html"],
    ["98 a web page", on("/manifests/1", (r) => r.writeHead(200, html).end("<html>")), "manifest is not JSON"],
    ["99 both layers and manifests", answerManifest({ ...manifest, manifests: [] }), "both layers and manifests"],
    ["schema 1", answerManifest({ schemaVersion: 1 }), "only schemaVersion 2"],
    ["100 an index of itself", answerManifest({ schemaVersion: 2, manifests: [self] }, INDEX), /status 404/],
    [
      "101 diff id mismatch",
      answerImage({ ...withOther, layers: [descriptorOf(layer)] }, otherImage.config),
      "digest mismatch: uncompressed layer",
    ],
    ["102 129 layers", layers(...Array(129).fill(descriptorOf(layer))), "image of 129 layers is over 128"],
    [
      "a layer more than its config",
      layers(descriptorOf(layer), descriptorOf(layer)),
      "2 layers but its config names 1",
    ],
    ["a digest that is a path", layers({ ...descriptorOf(layer), digest: "sha256:../../etc" }), "is not a digest"],
    [
      "112 gzip labelled zstd",
      answerImage(
        {
          ...withOther,
          layers: [{ ...descriptorOf(otherLayer), mediaType: "application/vnd.oci.image.layer.v1.tar+zstd" }],
        },
        otherImage.config,
        otherLayer,
      ),
      "labelled zstd but is gzip",
    ],
    ["a layer elsewhere (foreign)", layers({ ...foreign, urls: ["http://127.0.0.1/"] }), "is not supported"],
  ])("%s", async (_name, behaviour, message) => {
    const all = await setUp();
    all.registry.behave = behaviour;
    await expectRefused(all, message);
  });

  rootTest("100 an index four deep; three are fine", async () => {
    const all = await setUp();
    const wrap = (inner: BuiltBlob) =>
      jsonBlob(INDEX, { schemaVersion: 2, mediaType: INDEX, manifests: [{ ...descriptorOf(inner), platform }] });
    const one = wrap(image.manifest);
    const two = wrap(one);
    const three = wrap(two);
    all.registry.add("deep", image, one, two, three, wrap(three));
    await expectRefused(all, "nested deeper than 3", "deep");
    all.registry.add("3", image, one, two, three);
    await all.pull("3");
  });

  rootTest("an unknown tag, and a pinned digest that lies", async () => {
    const all = await setUp();
    await expect(all.pull("nope")).rejects.toThrow(`No such image: ${all.registry.host}/a:nope`);
    all.registry.behave = (request, response) => {
      if (!request.url?.includes("/manifests/")) return false;
      response.writeHead(200, { "content-type": MANIFEST }).end(image.manifest.bytes);
      return true;
    };
    await expectRefused(all, "digest mismatch: manifest is", `1@${sha256("other")}`);
  });
});

describe("transport", () => {
  rootTest("103 a redirect to another host goes there without credentials", async () => {
    const all = await setUp({ credentials: PASSWORD });
    const other = await TestRegistry.start();
    cleanups.push(other);
    other.add("1", image);
    all.registry.behave = (request, response) => {
      const { url = "" } = request;
      if (request.headers.authorization === undefined) response.writeHead(401, { "www-authenticate": "Basic" }).end();
      else if (url.includes("/blobs/")) response.writeHead(307, { location: `http://${other.host}${url}` }).end();
      else return false;
      return true;
    };
    await all.pull();
    expect(other.requests.map(({ authorization }) => authorization)).toEqual([undefined, undefined]);
    expect(all.registry.requests.at(-1)?.authorization).toBe(BASIC);
  });

  const redirect = (location: string) => on(onLayer, (response) => response.writeHead(302, { location }).end());
  const login = (header: string) => on("/manifests/1", (r) => r.writeHead(401, { "www-authenticate": header }).end());
  const said = '{"errors":[{"message":"no\\u001b[2J"}]}';
  rootTest.each<[string, Behaviour, string | RegExp]>([
    ["a redirect to no web address", redirect("file:///etc/passwd"), "redirect to no web address"],
    ["a redirect to a metadata service", redirect("http://169.254.169.254/latest"), "refused: a private address"],
    ["106 401 without a challenge", on("/manifests/1", (r) => r.writeHead(401).end()), "does not say how to log in"],
    ["a login that is not at hand", login("Basic"), "wants a user name and password"],
    [
      "107 realm at a metadata service",
      login('Bearer realm="https://169.254.169.254/t"'),
      "refused: a private address",
    ],
    ["107 realm that is no web address", login('Bearer realm="gopher://127.0.0.1/t"'), "refused: token realm"],
    ["403", on("/manifests/1", (r) => r.writeHead(403).end(said)), "status 403: no [2J"],
    ["500, three times", on("/manifests/1", (r) => r.writeHead(500).end()), "status 500"],
    ["silence before headers", on("/manifests/1", () => {}), "no answer in 300 ms"],
    ["110 a byte now and then", on(onLayer, (r) => drip(r)), "less than 65536 bytes in 300 ms"],
  ])("%s", async (_name, behaviour, message) => {
    const all = await setUp();
    all.registry.behave = behaviour;
    await expectRefused(all, message);
  });

  rootTest("104 a redirect loop ends after five", async () => {
    const all = await setUp();
    all.registry.behave = on(onLayer, (response, { url }) => response.writeHead(302, { location: url }).end());
    await expect(all.pull()).rejects.toThrow("more than 5 redirects");
    expect(all.registry.requests.filter(({ line }) => line.endsWith(onLayer))).toHaveLength(6);
    await expectGood(all);
  });

  rootTest("111 429 and 503 wait as they are asked to, and go on", async () => {
    const all = await setUp();
    all.registry.behave = (request, response, count) => {
      if (!request.url?.endsWith("/manifests/1") || count > 2) return false;
      response.writeHead(count === 1 ? 429 : 503, { "retry-after": count === 1 ? "3600" : "0" }).end();
      return true;
    };
    await all.pull();
    expect(all.registry.requests.filter(({ line }) => line.endsWith("/manifests/1"))).toHaveLength(3);
  });

  rootTest.each<[string, Behaviour]>([
    ["206", () => false],
    ["200 from the start", on(onLayer, (response) => response.writeHead(200).end(layer.bytes))],
    [
      "416",
      on(onLayer, (response, { headers }) =>
        response.writeHead(headers.range ? 416 : 200).end(headers.range ? "" : layer.bytes),
      ),
    ],
  ])("F33 a blob cut half-way goes on after %s", async (_name, then) => {
    const all = await setUp();
    all.registry.behave = (request, response, count) => {
      if (!request.url?.endsWith(layer.digest)) return false;
      if (count > 1) return then(request, response, count);
      response.writeHead(200, { "content-length": layer.bytes.length });
      response.write(layer.bytes.subarray(0, 150_000), () => response.destroy());
      return true;
    };
    await all.pull();
    const ranges = all.registry.requests.filter(({ line }) => line.endsWith(layer.digest)).map(({ range }) => range);
    expect(ranges[1]).toMatch(/^bytes=[1-9][0-9]*-$/);
  });

  rootTest("F34 an endless body stops at the first byte too many", async () => {
    const all = await setUp();
    let sentBytes = 0;
    all.registry.behave = on(onLayer, (response) => {
      const more = () => {
        while (response.writable && response.write(Buffer.alloc(65_536))) sentBytes += 65_536;
        if (response.writable) response.once("drain", more);
      };
      more();
    });
    await expectRefused(all, "mismatch");
    expect(sentBytes).toBeLessThan(64 * 1024 * 1024);
  });
});

/** Headers at once, then a byte each 20 ms. */
function drip(response: ServerResponse): void {
  response.writeHead(200);
  const timer = setInterval(() => response.write("x"), 20);
  response.once("close", () => clearInterval(timer));
}

describe("tokens", () => {
  /** A registry that wants a token of its own realm, and what its realm answers. */
  async function withTokens(credentials: RegistryCredentials | undefined, answer: (response: ServerResponse) => void) {
    const all = await setUp(credentials ? { credentials } : {});
    all.registry.behave = (request, response) => {
      if (request.url?.startsWith("/token")) answer(response);
      else if (request.headers.authorization !== "Bearer good") {
        const scope = "repository:everything:push,pull,delete";
        const header = `Bearer realm="http://${all.registry.host}/token",service="a \\"b\\"",scope="${scope}"`;
        response.writeHead(401, { "www-authenticate": header }).end();
      } else return false;
      return true;
    };
    return all;
  }

  rootTest("are asked for what is wanted, not what the challenge says, and kept", async () => {
    const all = await withTokens(PASSWORD, (response) => response.end('{"token":"good","expires_in":300}'));
    await all.pull();
    await all.pull();
    const line = "GET /token?service=a+%22b%22&scope=repository%3Aa%3Apull";
    const asked = all.registry.requests.filter((request) => request.line.includes("/token"));
    expect(asked).toEqual([{ line, authorization: BASIC, range: undefined }]);
  });

  rootTest("come for identity tokens too", async () => {
    const credentials = { kind: "identity-token", token: "id" } as const;
    const all = await withTokens(credentials, (response) => response.end('{"access_token":"good"}'));
    await all.pull();
    expect(all.registry.requests.filter(({ line }) => line === "POST /token").length).toBeGreaterThan(0);
  });

  rootTest.each<[string, (response: ServerResponse) => void, string]>([
    ["108 of 2 MiB", (r) => r.end(JSON.stringify({ token: "x".repeat(2 * 1024 ** 2) })), "body is over 1048576 bytes"],
    ["refused", (r) => r.writeHead(401).end(), "login failed with status 401"],
    ["without a token", (r) => r.end("{}"), "login answered without a token"],
    ["that would split a header", (r) => r.end('{"token":"good\\r\\nx: y"}'), "login answered without a token"],
    ["that does not help", (r) => r.end('{"token":"bad"}'), "status 401"],
  ])("%s", async (_name, answer, message) => {
    await expectRefused(await withTokens(undefined, answer), message);
  });
});

describe("TLS", () => {
  const tls = () => {
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-"];
    const command = ["req", "-x509", "-days", "1", "-subj", "/CN=127.0.0.1", "-out", "-", ...key];
    const pem = String(execFileSync("openssl", command, { stdio: ["ignore", "pipe", "ignore"] }));
    const part = (label: string) =>
      pem.match(new RegExp(`-----BEGIN ${label}-----[^]*?-----END ${label}-----`))?.[0] ?? "";
    return { key: part("PRIVATE KEY"), cert: part("CERTIFICATE") };
  };

  rootTest(
    "109 a self-signed certificate is refused and nothing goes in clear; an insecure registry may have one",
    async () => {
      const strict = await setUp({ tls: tls(), trustsLoopback: false });
      await expect(strict.pull()).rejects.toThrow(/x509: self-signed certificate/);
      expect(strict.registry.requests).toEqual([]);
      await expectGood(await setUp({ tls: tls() }));
    },
  );

  rootTest("105 a redirect from https to http is not followed", async () => {
    const all = await setUp({ tls: tls() });
    all.registry.behave = on(onLayer, (r) => r.writeHead(302, { location: `http://${all.registry.host}/x` }).end());
    await expectRefused(all, "redirect from https to http");
  });

  rootTest("a registry that is not declared insecure is never asked in clear", async () => {
    const all = await setUp({ trustsLoopback: false });
    await expect(all.pull()).rejects.toThrow(/GET https:/);
    expect(all.registry.requests).toEqual([]);
  });
});

test("a registry that is down is tried three times and named", async () => {
  const client = new RegistryClient(clock, systemRandom, { insecureRegistries: [] });
  const pull = client.source().resolve(reference("127.0.0.1:1/a"), NEVER);
  await expect(pull).rejects.toThrow("GET http://127.0.0.1:1: ECONNREFUSED");
});
