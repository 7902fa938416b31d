// Goal: gRPC and the in-memory transport keep one contract. Method: the same suite over both, on the project's own
// services with small implementations.
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { connect as openTls } from "node:tls";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type AgentFrame,
  Content,
  LogBroker,
  type ManagerFrame,
  StreamBroker,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { CertificateAuthority } from "../../test/certificates.ts";
import { eventually } from "../../test/eventually.ts";
import { freePort } from "../../test/free-port.ts";
import { abortable } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { parseHostPort } from "../base/host-port.ts";
import type { ClusterId } from "../base/id.ts";
import { silentLogger } from "../base/logger.ts";
import { GrpcServer } from "./grpc-server.ts";
import { openGrpcTransport } from "./grpc-transport.ts";
import { MemoryNetwork } from "./memory-transport.ts";
import { type CallContext, createClient, type ServiceImplementation, type Transport } from "./service.ts";
import { type ClientTls, MutualTls, type TlsPem } from "./tls.ts";

type ContentMethods = ServiceImplementation<typeof Content>;
type LogMethods = ServiceImplementation<typeof LogBroker>;
type StreamMethods = ServiceImplementation<typeof StreamBroker>;

interface Pair extends AsyncDisposable {
  readonly transport: Transport;
  /** Stops the server alone. */
  stopServer(): Promise<void>;
}

type Open = (content: ContentMethods, logs: LogMethods, streams?: StreamMethods) => Promise<Pair>;

/** A server's and a client's identity under one authority. */
const certificates = mkdtempSync(join(tmpdir(), "rpc-tls-"));
afterAll(() => rm(certificates, { recursive: true }));
const authority = new CertificateAuthority(certificates, "cluster");
const identityFiles = authority.issue({ name: "manager", subjectAltName: "IP:127.0.0.1" });
const identities = {
  server: authority.pem(identityFiles),
  client: authority.pem(authority.issue({ name: "client", organizationalUnit: "swarm-worker" })),
};

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rpc-"));
});
afterEach(() => rm(folder, { recursive: true }));

const overGrpc =
  (addressOf: () => string, tls?: { readonly server: TlsPem; readonly client: TlsPem }): Open =>
  async (content, logs, streams = idle.streams) => {
    const server = new GrpcServer({ logger: silentLogger, ...(tls ? { tls: new MutualTls(tls.server) } : {}) });
    server.addService(Content, content);
    server.addService(LogBroker, logs);
    server.addService(StreamBroker, streams);
    const address = await server.listen(addressOf());
    const transport = openGrpcTransport({ address, ...(tls ? { tls: tls.client } : {}) });
    return {
      transport,
      stopServer: () => server[Symbol.asyncDispose](),
      async [Symbol.asyncDispose]() {
        await transport[Symbol.asyncDispose]();
        await server[Symbol.asyncDispose]();
      },
    };
  };

const overMemory: Open = async (content, logs, streams = idle.streams) => {
  const network = new MemoryNetwork();
  const server = network.serve("server");
  server.addService(Content, content);
  server.addService(LogBroker, logs);
  server.addService(StreamBroker, streams);
  const transport = network.transport("caller", "server");
  return {
    transport,
    stopServer: () => server[Symbol.asyncDispose](),
    async [Symbol.asyncDispose]() {
      await transport[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
};

const idle: { readonly content: ContentMethods; readonly logs: LogMethods; readonly streams: StreamMethods } = {
  streams: {
    async *listenStreams() {},
    async *carryStream() {},
  },
  content: {
    resolveImage: async () => ({}),
    async *getBlob() {},
  },
  logs: {
    async *listenSubscriptions() {},
    publishLogs: async () => ({}),
  },
};

const refusal = (code: string) => expect.objectContaining({ name: "SwarmError", code });

describe.each([
  ["grpc over a unix socket", overGrpc(() => `unix:${join(folder, "run", "s.sock")}`)],
  ["grpc over tcp", overGrpc(() => "127.0.0.1:0")],
  ["grpc over mutual TLS", overGrpc(() => "127.0.0.1:0", identities)],
  ["memory", overMemory],
] satisfies readonly (readonly [string, Open])[])("%s", (_name, open) => {
  test("unary: request and answer arrive, with defaults filled in", async () => {
    const seen: string[] = [];
    await using pair = await open(
      {
        ...idle.content,
        resolveImage: async (request, context) => {
          seen.push(request.reference, request.platform?.os ?? "", context.peer.address);
          return { manifestDigest: "sha256:1", manifest: new Uint8Array([1, 2]), holders: [{ id: "m1" }] };
        },
      },
      idle.logs,
    );
    const client = createClient(Content, pair.transport);
    const answer = await client.resolveImage({ reference: "demo/web:1", platform: { os: "linux" } });
    expect(answer.manifestDigest).toBe("sha256:1");
    expect([...answer.manifest]).toEqual([1, 2]);
    expect(answer.holders[0]).toMatchObject({ id: "m1", address: "" });
    expect(seen.slice(0, 2)).toEqual(["demo/web:1", "linux"]);
    expect(seen[2]).not.toBe("");
  });

  test("errors keep code and message; a bug says only that it is one", async () => {
    await using pair = await open(
      {
        resolveImage: async (request) => {
          if (request.reference === "bug") throw new TypeError("secret detail");
          throw new SwarmError("failed_precondition", "session invalid: größer ✓\nsecond line");
        },
        async *getBlob() {
          yield { data: new Uint8Array([1]) };
          throw new SwarmError("not_found", "blob sha256:1 is gone");
        },
      },
      idle.logs,
    );
    const client = createClient(Content, pair.transport);
    await expect(client.resolveImage({})).rejects.toMatchObject({
      name: "SwarmError",
      code: "failed_precondition",
      message: "session invalid: größer ✓\nsecond line",
    });
    const bug = await client.resolveImage({ reference: "bug" }).catch((reason: unknown) => reason);
    expect(bug).toMatchObject({ code: "internal" });
    expect(String(bug)).not.toContain("secret");
    const parts: number[] = [];
    const read = async () => {
      for await (const part of client.getBlob({})) parts.push(part.data.length);
    };
    await expect(read()).rejects.toMatchObject({ code: "not_found", message: "blob sha256:1 is gone" });
    expect(parts).toEqual([1]);
  });

  test("server stream: in order, to its end", async () => {
    await using pair = await open(
      {
        ...idle.content,
        async *getBlob(request) {
          for (let index = 0; index < 100; index++) yield { data: new Uint8Array([Number(request.offset) + index]) };
        },
      },
      idle.logs,
    );
    const got: number[] = [];
    for await (const part of createClient(Content, pair.transport).getBlob({ offset: 5n })) got.push(part.data[0] ?? 0);
    expect(got).toEqual(Array.from({ length: 100 }, (_, index) => index + 5));
  });

  test("client stream: in order, to its end, and the source is closed", async () => {
    const got: string[] = [];
    await using pair = await open(idle.content, {
      ...idle.logs,
      publishLogs: async (requests) => {
        for await (const request of requests) got.push(request.subscriptionId);
        return {};
      },
    });
    const source = async function* () {
      for (let index = 0; index < 50; index++) yield { subscriptionId: `${index}` };
    };
    await createClient(LogBroker, pair.transport).publishLogs(source());
    expect(got).toEqual(Array.from({ length: 50 }, (_, index) => `${index}`));
  });

  test("a server that refuses a client stream early ends the source", async () => {
    await using pair = await open(idle.content, {
      ...idle.logs,
      publishLogs: async (requests) => {
        for await (const _ of requests) break;
        throw new SwarmError("not_found", "no such subscription");
      },
    });
    let closed = false;
    const source = async function* () {
      try {
        while (true) {
          yield { subscriptionId: "x" };
          await nextTurn();
        }
      } finally {
        closed = true;
      }
    };
    const call = createClient(LogBroker, pair.transport).publishLogs(source());
    await expect(call).rejects.toEqual(refusal("not_found"));
    await eventually(() => expect(closed).toBe(true));
  });

  test("a source that fails cancels the call with its own error", async () => {
    let ended: unknown;
    const arrived = Promise.withResolvers<void>();
    await using pair = await open(idle.content, {
      ...idle.logs,
      publishLogs: async (requests) => {
        try {
          for await (const _ of requests) arrived.resolve();
        } catch (reason) {
          ended = reason;
          throw reason;
        }
        return {};
      },
    });
    const source = async function* () {
      yield { subscriptionId: "x" };
      await arrived.promise;
      throw new SwarmError("data_loss", "disk broke");
    };
    const call = createClient(LogBroker, pair.transport).publishLogs(source());
    await expect(call).rejects.toMatchObject({ code: "data_loss", message: "disk broke" });
    await eventually(() => expect(ended).toEqual(refusal("canceled")));
  });

  test("cancel by the caller: both ends stop at once", async () => {
    const server: { context?: CallContext; finished: boolean } = { finished: false };
    await using pair = await open(
      {
        resolveImage: (_, context) => {
          server.context = context;
          return new Promise(() => {});
        },
        async *getBlob(_, context) {
          try {
            server.context = context;
            yield {};
            await new Promise((_resolve, reject) =>
              context.signal.addEventListener("abort", () => reject(context.signal.reason)),
            );
          } finally {
            server.finished = true;
          }
        },
      },
      idle.logs,
    );
    const client = createClient(Content, pair.transport);
    const abort = new AbortController();
    const call = client.resolveImage({}, { signal: abort.signal });
    call.catch(() => {});
    await eventually(() => expect(server.context).toBeDefined());
    abort.abort(new SwarmError("canceled", "changed my mind"));
    await expect(call).rejects.toMatchObject({ code: "canceled", message: "changed my mind" });
    await eventually(() => expect(server.context?.signal.aborted).toBe(true));
    // Leaving the loop is a cancel too.
    for await (const _ of client.getBlob({})) break;
    await eventually(() => expect(server.finished).toBe(true));
    await expect(client.resolveImage({}, { signal: abort.signal })).rejects.toEqual(refusal("canceled"));
  });

  test("a server that stops ends every stream with unavailable", async () => {
    let started = false;
    await using pair = await open(
      {
        ...idle.content,
        async *getBlob(_, context) {
          started = true;
          yield {};
          await new Promise((_resolve, reject) =>
            context.signal.addEventListener("abort", () => reject(context.signal.reason)),
          );
        },
      },
      idle.logs,
    );
    const read = async () => {
      for await (const _ of createClient(Content, pair.transport).getBlob({}));
    };
    const reading = read();
    reading.catch(() => {});
    await eventually(() => expect(started).toBe(true));
    await pair.stopServer();
    await expect(reading).rejects.toEqual(refusal("unavailable"));
    const late = createClient(Content, pair.transport).resolveImage({});
    await expect(late).rejects.toEqual(refusal("unavailable"));
  });

  test("deadline: the caller hears of it, the server stops", async () => {
    let context: CallContext | undefined;
    await using pair = await open(
      {
        ...idle.content,
        resolveImage: (_, given) => {
          context = given;
          return new Promise(() => {});
        },
      },
      idle.logs,
    );
    const call = createClient(Content, pair.transport).resolveImage({}, { timeoutMs: 50 });
    await expect(call).rejects.toEqual(refusal("deadline_exceeded"));
    await expect(call).rejects.toThrow(/ResolveImage.*no answer in|no answer in time to ResolveImage/);
    await eventually(() => expect(context?.signal.aborted).toBe(true));
  });

  test("back-pressure: a reader that stops does not make the server produce for ever", async () => {
    let produced = 0;
    await using pair = await open(
      {
        ...idle.content,
        async *getBlob() {
          const data = new Uint8Array(64 * 1024);
          while (produced < 10_000) {
            produced++;
            yield { data };
            await nextTurn();
          }
        },
      },
      idle.logs,
    );
    const abort = new AbortController();
    const stream = createClient(Content, pair.transport).getBlob({}, { signal: abort.signal });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    let before = -1;
    await eventually(
      () => {
        const now = produced;
        const stopped = now === before;
        before = now;
        expect(stopped).toBe(true);
      },
      { intervalMs: 100 },
    );
    expect(produced).toBeLessThan(200);
    abort.abort();
    await iterator.return?.();
  });

  test("a request above 4 MiB is refused", async () => {
    await using pair = await open(idle.content, {
      ...idle.logs,
      publishLogs: async (requests) => {
        for await (const _ of requests);
        return {};
      },
    });
    const client = createClient(Content, pair.transport);
    const reference = "x".repeat(4 * 1024 * 1024 + 1);
    await expect(client.resolveImage({ reference })).rejects.toEqual(refusal("resource_exhausted"));
    const source = async function* () {
      yield { subscriptionId: reference };
    };
    await expect(createClient(LogBroker, pair.transport).publishLogs(source())).rejects.toEqual(
      refusal("resource_exhausted"),
    );
  });
});

/** A frame that carries a word each way. */
const up = (streamId: string) => ({ content: { case: "greeting", value: { streamId } } }) as const;
const down = (taskId: string) =>
  ({ content: { case: "exec", value: { content: { case: "start", value: { taskId } } } } }) as const;
const wordUp = ({ content }: AgentFrame) => (content.case === "greeting" ? content.value.streamId : "?");
const wordDown = ({ content }: ManagerFrame) =>
  content.case === "exec" && content.value.content.case === "start" ? content.value.content.value.taskId : "?";

describe.each([
  ["grpc over a unix socket", overGrpc(() => `unix:${join(folder, "run", "s.sock")}`)],
  ["grpc over mutual TLS", overGrpc(() => "127.0.0.1:0", identities)],
  ["memory", overMemory],
] satisfies readonly (readonly [string, Open])[])("both directions: %s", (_name, open) => {
  const serve = (carryStream: StreamMethods["carryStream"]) =>
    open(idle.content, idle.logs, { ...idle.streams, carryStream });

  test("talk in turns, and answers go on after the last request", async () => {
    await using pair = await serve(async function* (requests) {
      for await (const request of requests) yield down(`got ${wordUp(request)}`);
      for (let index = 0; index < 3; index++) {
        await nextTurn();
        yield down(`after ${index}`);
      }
    });
    const heard: string[] = [];
    const turn = { next: Promise.withResolvers<void>() };
    const source = async function* () {
      for (const word of ["one", "two"]) {
        yield up(word);
        await turn.next.promise;
        turn.next = Promise.withResolvers();
      }
    };
    for await (const answer of createClient(StreamBroker, pair.transport).carryStream(source())) {
      heard.push(wordDown(answer));
      turn.next.resolve();
    }
    expect(heard).toEqual(["got one", "got two", "after 0", "after 1", "after 2"]);
  });

  test("a server that fails or ends early tells why, and the source is closed", async () => {
    await using pair = await serve(async function* (requests) {
      for await (const request of requests) {
        if (wordUp(request) === "end") return;
        if (wordUp(request) === "fail") throw new SwarmError("not_found", "nobody wants it");
        yield down("more");
      }
    });
    for (const last of ["end", "fail"]) {
      let closed = false;
      const source = async function* () {
        try {
          yield up("go");
          yield up(last);
          while (true) {
            await nextTurn();
            yield up("late");
          }
        } finally {
          closed = true;
        }
      };
      const read = Array.fromAsync(createClient(StreamBroker, pair.transport).carryStream(source()));
      if (last === "fail") await expect(read).rejects.toMatchObject({ code: "not_found", message: "nobody wants it" });
      else expect((await read).map(wordDown)).toEqual(["more"]);
      await eventually(() => expect(closed).toBe(true));
    }
  });

  test("a source that fails ends the call with its own error, and the server hears of it", async () => {
    let ended: unknown;
    await using pair = await serve(async function* (requests) {
      try {
        for await (const _ of requests) yield down("got");
      } catch (reason) {
        ended = reason;
        throw reason;
      }
    });
    const arrived = Promise.withResolvers<void>();
    const source = async function* () {
      yield up("x");
      await arrived.promise;
      throw new SwarmError("data_loss", "disk broke");
    };
    const read = async () => {
      for await (const _ of createClient(StreamBroker, pair.transport).carryStream(source())) arrived.resolve();
    };
    await expect(read()).rejects.toMatchObject({ code: "data_loss", message: "disk broke" });
    await eventually(() => expect(ended).toEqual(refusal("canceled")));
  });

  test("whoever leaves, or aborts, ends both directions", async () => {
    let running = 0;
    await using pair = await serve(async function* (_, { signal }) {
      running++;
      try {
        yield down("up");
        await abortable(new Promise<never>(() => {}), signal);
      } finally {
        running--;
      }
    });
    const silent = async function* () {
      yield up("x");
      await new Promise<never>(() => {});
    };
    const client = createClient(StreamBroker, pair.transport);
    for await (const _ of client.carryStream(silent())) break;
    const abort = new AbortController();
    const read = async () => {
      for await (const _ of client.carryStream(silent(), { signal: abort.signal })) {
        abort.abort(new SwarmError("canceled", "seen enough"));
      }
    };
    await expect(read()).rejects.toMatchObject({ code: "canceled", message: "seen enough" });
    await eventually(() => expect(running).toBe(0));
  });

  test("back-pressure: who does not read stops the other end, each way", async () => {
    const produced = { up: 0, down: 0 };
    const long = "x".repeat(64 * 1024);
    await using pair = await serve(async function* (_, { signal }) {
      // It reads no request at all.
      while (!signal.aborted && produced.down < 10_000) {
        produced.down++;
        yield down(long);
        await nextTurn();
      }
    });
    const source = async function* () {
      while (produced.up < 10_000) {
        produced.up++;
        yield up(long);
        await nextTurn();
      }
    };
    const abort = new AbortController();
    const frames = createClient(StreamBroker, pair.transport).carryStream(source(), { signal: abort.signal });
    const iterator = frames[Symbol.asyncIterator]();
    await iterator.next();
    let before = "";
    await eventually(
      () => {
        const [last, now] = [before, `${produced.up} ${produced.down}`];
        before = now;
        expect(now).toBe(last);
      },
      { intervalMs: 100 },
    );
    expect(produced.up).toBeLessThan(200);
    expect(produced.down).toBeLessThan(200);
    abort.abort();
    await iterator.return?.();
  });
});

describe("grpc", () => {
  test("a unix socket is its owner's only, replaces a dead one and refuses a live one", async () => {
    const path = join(folder, "m.sock");
    const serve = async () => {
      const server = new GrpcServer({ logger: silentLogger });
      server.addService(Content, idle.content);
      await server.listen(`unix:${path}`);
      return server;
    };
    await using first = await serve();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    await expect(serve()).rejects.toEqual(refusal("already_exists"));
    await first[Symbol.asyncDispose]();
    await using again = await serve();
    expect(again).toBeDefined();
  });

  test.each([
    ["in clear", {}],
    ["with TLS", { tls: identities.client }],
  ])("%s, who closed his transport while nobody was there does not come once somebody is", async (_, options) => {
    const address = `127.0.0.1:${await freePort()}`;
    const leaving = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const transport = openGrpcTransport({ address, ...options });
        const call = createClient(Content, transport).resolveImage({});
        await expect(call).rejects.toMatchObject({ code: "unavailable" });
        return transport;
      }),
    );
    for (const transport of leaving) await transport[Symbol.asyncDispose]();
    const comers: Socket[] = [];
    const server = createServer((socket) => comers.push(socket)).listen(Number(address.split(":")[1]), "127.0.0.1");
    // One who stays tries again within 2 s: those who left would have come by the time that he has come three times.
    await using staying = openGrpcTransport({ address, ...options });
    for (let times = 1; times <= 3; times++) {
      const call = createClient(Content, staying)
        .resolveImage({}, { timeoutMs: 5_000 })
        .catch(() => {});
      await eventually(() => expect(comers.length).toBeGreaterThanOrEqual(times));
      comers[times - 1]?.destroy();
      await call;
    }
    expect(comers).toHaveLength(3);
    server.close();
    for (const socket of comers) socket.destroy();
  });

  test("nobody there: unavailable, with address and reason", async () => {
    await using transport = openGrpcTransport({ address: `unix:${join(folder, "none.sock")}` });
    const call = createClient(Content, transport).resolveImage({});
    await expect(call).rejects.toMatchObject({ code: "unavailable", message: expect.stringContaining("ENOENT") });
  });
});

describe("mutual TLS", () => {
  const other = new CertificateAuthority(certificates, "other");

  /** What a caller with `client` is told, or who the server takes it for. */
  async function identityOf(client: ClientTls): Promise<unknown> {
    let peer: unknown;
    const resolveImage: ContentMethods["resolveImage"] = async (_, context) => {
      peer = context.peer.identity;
      return {};
    };
    const identify = ({ subject }: { readonly subject: string }) =>
      ({
        kind: "user",
        name: subject,
        role: "swarm-viewer",
        clusterId: "c" as ClusterId,
        serial: "1",
        notAfterMs: 0,
      }) as const;
    await using server = new GrpcServer({ logger: silentLogger, tls: new MutualTls(identities.server), identify });
    server.addService(Content, { ...idle.content, resolveImage });
    await using transport = openGrpcTransport({ address: await server.listen("127.0.0.1:0"), tls: client });
    await createClient(Content, transport).resolveImage({});
    return peer;
  }

  test("a certificate's names are the peer's identity", async () => {
    expect(await identityOf(identities.client)).toMatchObject({ name: "CN=client\nOU=swarm-worker" });
  });

  test.each<[string, () => ClientTls]>([
    ["no certificate", () => ({ ca: identities.client.ca })],
    ["a stranger's", () => ({ ...other.pem(other.issue({ name: "eve" })), ca: identities.client.ca })],
    ["an expired one", () => authority.pem(authority.issue({ name: "old", notAfter: "20240101000000Z" }))],
    ["a server of another authority", () => ({ ...identities.client, ca: other.pem(identityFiles).ca })],
  ])("nobody gets in with %s", async (_, client) => {
    await expect(identityOf(client())).rejects.toEqual(refusal("unavailable"));
  });

  test("a connection's certificate is read once, however many calls come", async () => {
    const shown: unknown[] = [];
    const identify = (certificate: object) => {
      shown.push(certificate);
      return { kind: "operator", name: "o" } as const;
    };
    await using server = new GrpcServer({ logger: silentLogger, tls: new MutualTls(identities.server), identify });
    server.addService(Content, { ...idle.content, resolveImage: async () => ({}) });
    const address = await server.listen("127.0.0.1:0");
    for (const calls of [3, 1]) {
      await using transport = openGrpcTransport({ address, tls: identities.client });
      for (let call = 0; call < calls; call++) await createClient(Content, transport).resolveImage({});
    }
    expect(shown).toHaveLength(4);
    expect(new Set(shown).size).toBe(2);
  });

  test("a connection that has become old takes no more calls, and lets go of those that it has later", async () => {
    const addresses: string[] = [];
    await using server = new GrpcServer({
      logger: silentLogger,
      tls: new MutualTls(identities.server),
      connectionAgeMsMax: 200,
    });
    const open = Promise.withResolvers<void>();
    server.addService(Content, {
      async resolveImage(_, { peer }) {
        addresses.push(peer.address);
        return {};
      },
      async *getBlob() {
        await open.promise;
        yield {};
      },
    });
    await using transport = openGrpcTransport({
      address: await server.listen("127.0.0.1:0"),
      tls: identities.client,
    });
    const client = createClient(Content, transport);
    const stream = Array.fromAsync(client.getBlob({}));
    await eventually(async () => {
      await client.resolveImage({});
      expect(new Set(addresses).size).toBeGreaterThan(2);
    });
    open.resolve();
    expect(await stream).toHaveLength(1);
  });

  test("a server that lets strangers in knows them as nobody, whatever certificate they show", async () => {
    const called: unknown[] = [];
    await using server = new GrpcServer({
      logger: silentLogger,
      tls: new MutualTls(identities.server, { anonymous: true }),
      identify: () => {
        throw new SwarmError("permission_denied", "read");
      },
      authorize: ({ name }, { identity }) => {
        called.push([name, identity]);
        if (name === "GetBlob") throw new SwarmError("unauthenticated", "who are you");
      },
    });
    server.addService(Content, { ...idle.content, resolveImage: async () => ({}) });
    const address = await server.listen("127.0.0.1:0");
    const stranger = other.pem(other.issue({ name: "eve" }));
    for (const tls of [{ ca: identities.client.ca }, { ...stranger, ca: identities.client.ca }]) {
      await using transport = openGrpcTransport({ address, tls });
      const client = createClient(Content, transport);
      await client.resolveImage({});
      await expect(Array.fromAsync(client.getBlob({}))).rejects.toEqual(refusal("unauthenticated"));
    }
    expect(called).toEqual(
      Array.from({ length: 2 }, () => [
        ["ResolveImage", undefined],
        ["GetBlob", undefined],
      ]).flat(),
    );
    // Whom TLS knows and nobody names is refused.
    await using known = openGrpcTransport({ address, tls: identities.client });
    await expect(createClient(Content, known).resolveImage({})).rejects.toEqual(refusal("permission_denied"));
  });

  test("a server is verified by the name that it must have, whatever its address", async () => {
    const named = authority.pem(authority.issue({ name: "m", subjectAltName: "DNS:swarm-manager" }));
    await using server = new GrpcServer({ logger: silentLogger, tls: new MutualTls(named) });
    server.addService(Content, { ...idle.content, resolveImage: async () => ({}) });
    const address = await server.listen("127.0.0.1:0");
    const call = async (serverName?: string) => {
      const tls = { ...identities.client, ...(serverName !== undefined && { serverName }) };
      await using transport = openGrpcTransport({ address, tls });
      return await createClient(Content, transport).resolveImage({});
    };
    await call("swarm-manager");
    await expect(call("swarm-worker")).rejects.toEqual(refusal("unavailable"));
    await expect(call()).rejects.toEqual(refusal("unavailable"));
  });

  test("a certificate for another name is not the server's", async () => {
    const elsewhere = authority.pem(authority.issue({ name: "elsewhere", subjectAltName: "IP:127.0.0.2" }));
    await using pair = await overGrpc(() => "127.0.0.1:0", { ...identities, server: elsewhere })(
      idle.content,
      idle.logs,
    );
    await expect(createClient(Content, pair.transport).resolveImage({})).rejects.toEqual(refusal("unavailable"));
  });

  test("TLS 1.2 is not spoken", async () => {
    await using server = new GrpcServer({ logger: silentLogger, tls: new MutualTls(identities.server) });
    const { host = "", port = 0 } = parseHostPort(await server.listen("127.0.0.1:0")) ?? {};
    const socket = openTls({ host, port, maxVersion: "TLSv1.2", rejectUnauthorized: false });
    const [error] = await once(socket, "error");
    expect(String(error)).toMatch(/alert protocol version/);
  });
});

describe("memory network", () => {
  test("a partition is unavailable to both ends; a healed one works again", async () => {
    let cut = false;
    const network = new MemoryNetwork({
      link: async ({ from, to }) => {
        if (cut) throw new SwarmError("unavailable", `${from} cannot reach ${to}`);
      },
    });
    await using server = network.serve("m1");
    server.addService(Content, idle.content);
    await using transport = network.transport("a1", "m1");
    const client = createClient(Content, transport);
    cut = true;
    await expect(client.resolveImage({})).rejects.toEqual(refusal("unavailable"));
    cut = false;
    await expect(client.resolveImage({})).resolves.toBeDefined();
  });

  test("a crash of the caller reaches the server's signal", async () => {
    let context: CallContext | undefined;
    const network = new MemoryNetwork();
    await using server = network.serve("m1");
    server.addService(Content, {
      ...idle.content,
      resolveImage: (_, given) => {
        context = given;
        return new Promise(() => {});
      },
    });
    const call = createClient(Content, network.transport("a1", "m1")).resolveImage({});
    call.catch(() => {});
    await eventually(() => expect(context).toBeDefined());
    network.disconnect("a1");
    await expect(call).rejects.toEqual(refusal("unavailable"));
    expect(context?.signal.aborted).toBe(true);
  });
});
