/** A registry in this process for tests, whose every answer a test may replace: hostile, slow, or just refusing. */
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { BuiltBlob, BuiltImage } from "../../test/images.ts";

/** Answers a request, or returns false to let the honest registry do it. `count` is how often this was asked for. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse, count: number) => boolean;

/** One request as it came. */
export interface SeenRequest {
  /** `METHOD path`. */
  readonly line: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

/** Listens on loopback until it is disposed. */
export class TestRegistry implements AsyncDisposable {
  readonly #server: Server;
  readonly #blobs = new Map<string, BuiltBlob>();
  readonly #tags = new Map<string, string>();
  readonly requests: SeenRequest[] = [];
  behave: Behaviour = () => false;

  private constructor(tls: { readonly key: string; readonly cert: string } | undefined) {
    const answer: RequestListener = (request, response) => this.#answer(request, response);
    this.#server = tls ? createTlsServer(tls, answer) : createServer(answer);
  }

  /** Starts one, on HTTPS if it gets a key and certificate. */
  static async start(tls?: { readonly key: string; readonly cert: string }): Promise<TestRegistry> {
    const registry = new TestRegistry(tls);
    const { promise, resolve } = Promise.withResolvers<void>();
    registry.#server.listen(0, "127.0.0.1", resolve);
    await promise;
    return registry;
  }

  /** `127.0.0.1:port`. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Offers an image, and further documents beside it; `tag` names the last. */
  add(tag: string, image: BuiltImage, ...documents: readonly BuiltBlob[]): void {
    for (const blob of [image.config, ...image.layers, image.manifest, ...documents])
      this.#blobs.set(blob.digest, blob);
    this.#tags.set(tag, (documents.at(-1) ?? image.manifest).digest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const line = `${request.method} ${request.url}`;
    const count = this.requests.filter((earlier) => earlier.line === line).length + 1;
    this.requests.push({ line, authorization: request.headers.authorization, range: request.headers.range });
    if (this.behave(request, response, count)) return;
    const [, kind = "", name = ""] = /^\/v2\/.+\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? "") ?? [];
    const blob = this.#blobs.get(kind === "manifests" ? (this.#tags.get(name) ?? name) : name);
    if (!blob) {
      response.writeHead(404).end(JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: "unknown" }] }));
      return;
    }
    const start = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const range = { "content-range": `bytes ${start}-${blob.bytes.length - 1}/${blob.bytes.length}` };
    const type = kind === "manifests" ? blob.mediaType : "application/octet-stream";
    response.writeHead(start > 0 ? 206 : 200, { "content-type": type, ...(start > 0 ? range : {}) });
    response.end(blob.bytes.subarray(start));
  }
}
