import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { silentLogger } from "../../common/base/logger.ts";
import { eventually } from "../../test/eventually.ts";
import { parseIpv4 } from "./address.ts";
import { assertPortFree } from "./loopback-port.ts";
import { LoopbackProxy } from "./loopback-proxy.ts";
import type { Target } from "./ruleset.ts";

const LOCAL = parseIpv4("127.0.0.1") ?? 0;

/** A server that lives as long as its block, and where it is. */
class Backend implements AsyncDisposable {
  readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  static async open(serve: (socket: Socket) => void): Promise<Backend> {
    const server = createServer({ allowHalfOpen: true }, serve);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Backend(server);
  }

  get target(): Target {
    const bound = this.server.address();
    return { address: LOCAL, port: typeof bound === "object" && bound !== null ? bound.port : 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.server, "close");
    this.server.close();
    await closed;
  }
}

async function freePort(): Promise<number> {
  await using backend = await Backend.open(() => {});
  return backend.target.port;
}

function dial(port: number, host = "127.0.0.1"): Socket {
  return connect({ port, host, allowHalfOpen: true });
}

/** The one port of a test. */
function tcp(port: number, targets: readonly Target[]) {
  return { key: "key", protocol: "tcp", port, targets } as const;
}

describe("the loopback proxy", () => {
  test("deals connections to the targets in turn, and passes over one that is gone", async () => {
    await using a = await Backend.open((socket) => socket.end("a"));
    await using b = await Backend.open((socket) => socket.end("b"));
    await using proxy = new LoopbackProxy(silentLogger);
    const [port, gone] = [await freePort(), await freePort()];
    await proxy.listen(tcp(port, [a.target, b.target]));
    const answers: string[] = [];
    for (let index = 0; index < 4; index++) answers.push(await text(dial(port).end()));
    expect(answers.join("")).toBe("abab");
    await proxy.listen(tcp(port, [{ address: LOCAL, port: gone }, b.target]));
    for (let index = 0; index < 3; index++) expect(await text(dial(port).end())).toBe("b");
    expect(await text(dial(port, "::1").end())).toBe("b");
  });

  test("passes on the end of one direction while the other goes on, with every byte", async () => {
    const size = 3_000_000;
    // Answers only once the client has ended: it needs the half-close.
    await using echo = await Backend.open((socket) => {
      const parts: Buffer[] = [];
      socket.on("data", (part) => parts.push(part)).on("end", () => socket.end(Buffer.concat(parts)));
    });
    await using proxy = new LoopbackProxy(silentLogger);
    const port = await freePort();
    await proxy.listen(tcp(port, [echo.target]));
    const answer = await text(dial(port).end(Buffer.alloc(size, "x")));
    expect(answer.length).toBe(size);
  });

  test("resets the client when no target answers, and when one breaks off", async () => {
    await using rude = await Backend.open((socket) => socket.resetAndDestroy());
    await using proxy = new LoopbackProxy(silentLogger);
    const port = await freePort();
    await proxy.listen(tcp(port, [{ address: LOCAL, port: await freePort() }]));
    await expect(once(dial(port).resume(), "close")).rejects.toThrow("ECONNRESET");
    await proxy.listen(tcp(port, [rude.target]));
    await expect(once(dial(port).resume(), "close")).rejects.toThrow("ECONNRESET");
  });

  test("says that a port is taken, and holds none of it", async () => {
    await using holder = await Backend.open(() => {});
    await using proxy = new LoopbackProxy(silentLogger);
    const { port } = holder.target;
    const message = `published port ${port}/tcp: already in use on this node`;
    await expect(proxy.listen(tcp(port, []))).rejects.toThrow(message);
    await expect(assertPortFree({ protocol: "tcp", port })).rejects.toThrow(message);
    expect(proxy.open.size).toBe(0);
    await assertPortFree({ protocol: "udp", port });
    await assertPortFree({ protocol: "tcp", port: await freePort() });
  });

  test("lets connections go on when a port is withdrawn, and ends them when it is disposed", async () => {
    await using echo = await Backend.open((socket) => socket.on("error", () => {}).pipe(socket));
    const proxy = new LoopbackProxy(silentLogger);
    const port = await freePort();
    await proxy.listen(tcp(port, [echo.target]));
    const client = dial(port);
    client.write("1");
    expect(String(await once(client, "data"))).toBe("1");
    await proxy.close("key");
    await eventually(() => expect(once(dial(port), "connect")).rejects.toThrow("ECONNREFUSED"));
    client.write("2");
    expect(String(await once(client, "data"))).toBe("2");
    const closed = expect(once(client, "close")).rejects.toThrow("ECONNRESET");
    await proxy[Symbol.asyncDispose]();
    await closed;
  });
});
