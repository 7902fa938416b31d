/** Goal: what is published by UDP is reached on loopback, each client's answers find back. Method: sockets of this process. */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { eventually } from "../../test/eventually.ts";
import { parseIpv4 } from "./address.ts";
import { LoopbackRelay } from "./loopback-relay.ts";
import type { Target } from "./ruleset.ts";

const LOCAL = parseIpv4("127.0.0.1") ?? 0;

async function bound(type: "udp4" | "udp6" = "udp4"): Promise<Socket & AsyncDisposable> {
  const socket = createSocket(type);
  socket.bind(0, type === "udp4" ? "127.0.0.1" : "::1");
  await once(socket, "listening");
  return Object.assign(socket, {
    async [Symbol.asyncDispose]() {
      socket.close();
    },
  });
}

/** Answers each datagram with its name, the datagram and whom it sees as its sender. */
async function serve(name: string) {
  const socket = await bound();
  const clients = new Set<number>();
  socket.on("message", (message, { port, address }) => {
    clients.add(port);
    socket.send(`${name} ${message}`, port, address);
  });
  return Object.assign(socket, { target: { address: LOCAL, port: socket.address().port } as Target, clients });
}

async function freePort(): Promise<number> {
  await using socket = await bound();
  return socket.address().port;
}

async function ask(client: Socket, port: number, text: string, host = "127.0.0.1"): Promise<string> {
  const answer = once(client, "message");
  client.send(text, port, host);
  return String((await answer)[0]);
}

const udp = (port: number, ...targets: readonly Target[]) => ({ key: "key", protocol: "udp", port, targets }) as const;

describe("the loopback relay", () => {
  test("deals clients to the targets in turn; each keeps its own, and gets its own answers", async () => {
    await using a = await serve("a");
    await using b = await serve("b");
    await using relay = new LoopbackRelay(new FakeClock());
    const port = await freePort();
    await relay.listen(udp(port, a.target, b.target));
    await using one = await bound();
    await using other = await bound();
    expect(await ask(one, port, "1")).toBe("a 1");
    expect(await ask(other, port, "2")).toBe("b 2");
    expect(await ask(one, port, "3")).toBe("a 3");
    expect([a.clients.size, b.clients.size], "sockets towards each").toEqual([1, 1]);
    await using six = await bound("udp6");
    expect(await ask(six, port, "4", "::1")).toBe("a 4");
  });

  test("a client whose target has left begins anew, one whose target stays does not", async () => {
    await using a = await serve("a");
    await using b = await serve("b");
    await using relay = new LoopbackRelay(new FakeClock());
    const port = await freePort();
    await relay.listen(udp(port, a.target, b.target));
    await using one = await bound();
    await using other = await bound();
    await ask(one, port, "1");
    await ask(other, port, "1");
    await relay.listen(udp(port, b.target));
    expect(await ask(one, port, "2")).toBe("b 2");
    expect(await ask(other, port, "2")).toBe("b 2");
    expect(b.clients.size).toBe(2);
  });

  test("a target that nobody listens on is tried anew with the next datagram", async () => {
    await using relay = new LoopbackRelay(new FakeClock());
    const [port, gone] = [await freePort(), await freePort()];
    await using b = await serve("b");
    await relay.listen(udp(port, { address: LOCAL, port: gone }, b.target));
    await using client = await bound();
    const answers: string[] = [];
    client.on("message", (message) => answers.push(String(message)));
    await eventually(() => {
      client.send("x", port, "127.0.0.1");
      expect(answers).toContain("b x");
    });
  });

  test("a client that is silent for two minutes is forgotten", async () => {
    await using a = await serve("a");
    const clock = new FakeClock();
    await using relay = new LoopbackRelay(clock);
    const port = await freePort();
    await relay.listen(udp(port, a.target));
    await using client = await bound();
    await ask(client, port, "1");
    await clock.advance(119_000);
    await ask(client, port, "2");
    await clock.advance(119_000);
    await ask(client, port, "3");
    expect(a.clients.size).toBe(1);
    await clock.advance(120_000);
    await ask(client, port, "4");
    expect(a.clients.size).toBe(2);
  });

  test("a port that is taken is said, and one that is closed is free", async () => {
    await using holder = await bound();
    await using relay = new LoopbackRelay(new FakeClock());
    const { port } = holder.address();
    await expect(relay.listen(udp(port))).rejects.toThrow(`published port ${port}/udp: already in use on this node`);
    const free = await freePort();
    await relay.listen(udp(free));
    expect([...relay.open]).toEqual(["key"]);
    await relay.close("key");
    await using again = createSocket("udp4") as Socket & AsyncDisposable;
    again.bind(free, "127.0.0.1");
    await once(again, "listening");
  });
});
