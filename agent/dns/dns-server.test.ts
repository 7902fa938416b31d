/**
 * Goal: dig gets right answers, whatever the other servers do. Method: the server on a loopback port, with real sockets; 127.0.0.1 is
 * a task on two networks, 127.0.0.2 one on an internal network, and a server of the test's own is the one that is passed on to.
 */
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { promisify } from "node:util";
import { decode, encode } from "dns-packet";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { addressBytes, addressOfReverse, canonical } from "./addresses.ts";
import { DnsServer } from "./dns-server.ts";
import { receive } from "./message.ts";
import { type NameData, ServiceNames } from "./names.ts";
import { readFrames, writeFrame } from "./tcp-frames.ts";

const run = promisify(execFile);

const MANY = Array.from({ length: 100 }, (_, index) => `10.0.1.${index + 100}`);

const DATA: NameData = {
  networks: [
    { networkId: "n1", name: "front" },
    { networkId: "n2", name: "back" },
    { networkId: "n3", name: "closed" },
  ],
  services: [
    { serviceId: "s1", name: "web", networks: [{ networkId: "n1", addresses: ["10.0.1.2"], aliases: ["www"] }] },
    {
      serviceId: "s2",
      name: "db",
      networks: [
        { networkId: "n2", addresses: [], aliases: [] },
        { networkId: "n3", addresses: ["10.0.3.2"], aliases: [] },
      ],
    },
    { serviceId: "s3", name: "six", networks: [{ networkId: "n1", addresses: ["10.0.1.3", "fd00::3"], aliases: [] }] },
    { serviceId: "s4", name: "many", networks: [{ networkId: "n1", addresses: [], aliases: [] }] },
    { serviceId: "s5", name: "other", networks: [{ networkId: "n4", addresses: ["10.0.4.2"], aliases: [] }] },
  ],
  tasks: [
    {
      taskId: "t".repeat(25),
      serviceId: "s1",
      slot: "1",
      serving: true,
      networks: [{ networkId: "n1", addresses: ["10.0.1.11"] }],
    },
    {
      taskId: "u".repeat(25),
      serviceId: "s1",
      slot: "2",
      serving: false,
      networks: [{ networkId: "n1", addresses: ["10.0.1.12"] }],
    },
    {
      taskId: "v".repeat(25),
      serviceId: "s2",
      slot: "1",
      serving: true,
      networks: [{ networkId: "n2", addresses: ["10.0.2.11"] }],
    },
    {
      taskId: "w".repeat(25),
      serviceId: "s2",
      slot: "2",
      serving: true,
      networks: [{ networkId: "n2", addresses: ["10.0.2.12"] }],
    },
    ...MANY.map((address, index) => ({
      ...{ taskId: `many${index}`, serviceId: "s4", slot: String(index + 1), serving: true },
      networks: [{ networkId: "n1", addresses: [address] }],
    })),
  ],
  clients: [
    { addresses: ["127.0.0.1"], networkIds: ["n1", "n2"], forwards: true, servers: [] },
    { addresses: ["127.0.0.2"], networkIds: ["n3"], forwards: false, servers: [] },
  ],
};

let server: DnsServer;
let servers: readonly string[] = [];

beforeEach(async () => {
  servers = [];
  const world = { clock: systemClock, random: systemRandom, logger: silentLogger };
  server = await DnsServer.open({ ...world, address: "127.0.0.1", listenPort: 0, servers: () => servers });
  server.setNames(new ServiceNames(DATA));
});
afterEach(() => server[Symbol.asyncDispose]());

/** What dig says; without options of its own it tries once, for two seconds. */
async function dig(...words: readonly string[]): Promise<string> {
  const { stdout } = await run("dig", ["@127.0.0.1", "-p", String(server.port), "+tries=1", "+time=2", ...words]);
  return stdout;
}

async function short(...words: readonly string[]): Promise<readonly string[]> {
  return (await dig("+short", ...words)).trim().split("\n").filter(Boolean);
}

describe("names of the task's own networks", () => {
  test.each([
    [["web"], ["10.0.1.2"]],
    [["WeB"], ["10.0.1.2"]],
    [["www"], ["10.0.1.2"]],
    [["web.front"], ["10.0.1.2"]],
    [["tasks.web"], ["10.0.1.11"]],
    [["tasks.www.front"], ["10.0.1.11"]],
    [["2.web"], ["10.0.1.12"]],
    [[`web.1.${"t".repeat(25)}`], ["10.0.1.11"]],
    [["t".repeat(12)], ["10.0.1.11"]],
    [["web.back"], []],
    [["six", "AAAA"], ["fd00::3"]],
    [["six"], ["10.0.1.3"]],
    [["-x", "10.0.1.2"], ["web.front."]],
    [["-x", "10.0.1.11"], [`web.1.${"t".repeat(25)}.front.`]],
    [["-x", "fd00::3"], ["six.front."]],
  ])("%j is %j", async (words, expected) => {
    expect(await short(...words)).toEqual(expected);
  });

  test("several tasks come in another order each time", async () => {
    const first = new Set<string>();
    for (let index = 0; index < 4; index++) first.add((await short("db"))[0] ?? "");
    expect([...first].toSorted()).toEqual(["10.0.2.11", "10.0.2.12"]);
  });

  test("a name without an address of that kind is no error, and one of another network is none of ours", async () => {
    expect(await dig("web", "AAAA")).toMatch(/status: NOERROR.*ANSWER: 0/s);
    expect(await dig("web", "MX")).toMatch(/status: NOERROR.*ANSWER: 0/s);
    expect(await dig("-b", "127.0.0.2", "web")).toContain("status: NXDOMAIN");
    expect(await short("-b", "127.0.0.2", "db")).toEqual(["10.0.3.2"]);
    expect(await dig("-b", "127.0.0.3", "web")).toContain("status: REFUSED");
  });

  test("how long an answer holds is said: tasks may change at once, a virtual address not", async () => {
    expect(await dig("web")).toMatch(/^web\.\s+60\s+IN\s+A\s+10\.0\.1\.2$/m);
    expect(await dig("tasks.web")).toMatch(/^tasks\.web\.\s+0\s+IN\s+A\s+10\.0\.1\.11$/m);
  });

  test("a long answer is cut to what the client takes, and whole over TCP", async () => {
    const cut = await dig("+noedns", "+ignore", "many");
    expect(cut).toMatch(/flags: qr aa tc/);
    expect(Number(/MSG SIZE\s+rcvd: (\d+)/.exec(cut)?.[1])).toBeLessThanOrEqual(512);
    expect(await short("many")).toHaveLength(100);
    expect(await short("+tcp", "many")).toHaveLength(100);
  });
});

/** A server that answers as `answer` says; undefined: not at all. */
async function otherServer(
  answer: (name: string, tcp: boolean) => string | "truncate" | "forge" | "fail" | "refuse" | undefined,
) {
  const udp = createSocket("udp4");
  const respond = (message: Uint8Array, tcp: boolean, send: (bytes: Uint8Array) => void) => {
    const query = decode(Buffer.from(message));
    const [question] = query.questions ?? [];
    const address = question && answer(question.name, tcp);
    if (!question || address === undefined) return;
    const base = { type: "response" as const, id: query.id ?? 0, questions: [question] };
    if (address === "fail") return send(encode({ ...base, flags: 0x8182 }));
    if (address === "refuse") return send(encode({ ...base, flags: 0x8185 }));
    if (address === "truncate") return send(encode({ ...base, flags: 0x8200 | 0x200 }));
    if (address === "forge") {
      send(
        encode({ ...base, id: (base.id + 1) & 0xffff, answers: [{ type: "A", name: question.name, data: "6.6.6.6" }] }),
      );
      return send(
        encode({
          ...base,
          questions: [{ type: "A", name: "bank.example" }],
          answers: [{ type: "A", name: "bank.example", data: "6.6.6.6" }],
        }),
      );
    }
    send(encode({ ...base, answers: [{ type: "A", name: question.name, ttl: 9, data: address }] }));
  };
  udp.on("message", (message, from) => respond(message, false, (bytes) => udp.send(bytes, from.port, from.address)));
  const converse = async (socket: Socket) => {
    socket.on("error", () => {});
    for await (const frame of readFrames(socket)) respond(frame, true, (bytes) => writeFrame(socket, bytes));
  };
  const tcp = createServer((socket) => void converse(socket));
  tcp.listen(0, "127.0.0.1");
  await once(tcp, "listening");
  udp.bind((tcp.address() as AddressInfo).port, "127.0.0.1");
  await once(udp, "listening");
  onTestFinished(() => {
    udp.close();
    tcp.close();
  });
  return `127.0.0.1:${udp.address().port}`;
}

describe("names that others know", () => {
  test("are passed on; a server that is silent is passed over", async () => {
    servers = [await otherServer(() => undefined), await otherServer(() => "198.51.100.7")];
    expect(await short("example.test")).toEqual(["198.51.100.7"]);
    expect(await dig("example.test")).toMatch(/^example\.test\.\s+9\s+IN/m);
  });

  test("one that cannot answer, or will not, is passed over too; its answer counts where there is no other", async () => {
    const [failing, refusing] = [await otherServer(() => "fail"), await otherServer(() => "refuse")];
    servers = [failing, refusing, await otherServer(() => "198.51.100.7")];
    expect(await short("example.test")).toEqual(["198.51.100.7"]);
    servers = [failing, refusing];
    expect(await dig("example.test")).toContain("status: REFUSED");
    servers = [refusing, await otherServer(() => undefined)];
    expect(await dig("example.test")).toContain("status: REFUSED");
  });

  test("with none that answers: SERVFAIL in three seconds, while names of ours are answered as before", async () => {
    servers = [await otherServer(() => undefined)];
    const slow = dig("+time=5", "example.test");
    const startMs = performance.now();
    const before = performance.now();
    expect(await short("web")).toEqual(["10.0.1.2"]);
    expect(performance.now() - before).toBeLessThan(1_000);
    expect(await slow).toContain("status: SERVFAIL");
    expect(performance.now() - startMs).toBeLessThan(4_500);
    servers = ["127.0.0.1:1"];
    expect(await dig("example.test")).toContain("status: SERVFAIL");
    servers = [];
    expect(await dig("example.test")).toContain("status: SERVFAIL");
  });

  test("come over TCP where the client asks so, after an answer that was cut", async () => {
    servers = [await otherServer((_, tcp) => (tcp ? "198.51.100.8" : "truncate"))];
    expect(await short("long.test")).toEqual(["198.51.100.8"]);
  });

  test("an answer with another id, or to another question, is not believed", async () => {
    servers = [await otherServer(() => "forge"), await otherServer(() => "198.51.100.9")];
    expect(await short("example.test")).toEqual(["198.51.100.9"]);
  });

  test("a task's own servers come before the host's", async () => {
    servers = [await otherServer(() => "198.51.100.1")];
    const own = await otherServer(() => "198.51.100.2");
    const clients = [{ addresses: ["127.0.0.1"], networkIds: ["n1"], forwards: true, servers: [own] }];
    server.setNames(new ServiceNames({ ...DATA, clients }));
    expect(await short("example.test")).toEqual(["198.51.100.2"]);
  });

  test("a thousand questions at a time are all answered", async () => {
    servers = [await otherServer((name) => `198.51.100.${Number(name.split(".")[0]) % 250}`)];
    const socket = createSocket("udp4");
    onTestFinished(() => void socket.close());
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    const answered = new Set<number>();
    const all = new Promise<void>((resolve) => {
      socket.on("message", (message) => {
        const { id = 0, answers = [] } = decode(message);
        const [answer] = answers;
        if (answer?.type === "A" && answer.data === `198.51.100.${id % 250}`) answered.add(id);
        if (answered.size === 1_000) resolve();
      });
    });
    for (let id = 0; id < 1_000; id++) {
      const questions = [{ type: "A" as const, name: `${id}.test` }];
      socket.send(encode({ type: "query", id, flags: 0x100, questions }), server.port, "127.0.0.1");
    }
    await all;
    expect(answered.size).toBe(1_000);
  });
});

describe("what is no question", () => {
  test("never does any harm", () => {
    const question = encode({ type: "query", id: 7, questions: [{ type: "A", name: "web.example" }] });
    const damaged = fc
      .tuple(fc.nat(question.length - 1), fc.integer({ min: 0, max: 255 }), fc.nat(question.length))
      .map(([at, value, length]) => {
        const bytes = Buffer.from(question);
        bytes[at] = value;
        return bytes.subarray(0, length);
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 600 }), damaged), (bytes) => {
        const received = receive(bytes);
        if (received.kind === "bad") expect(received.answer).toHaveLength(12);
        if (received.kind === "query") expect(received.query.name.length).toBeLessThan(256);
      }),
      { numRuns: 3_000 },
    );
  });

  test.each([
    ["nothing", "", "noise"],
    ["a response", "000781000001000000000000037765620000010001", "noise"],
    ["another operation", "000728000001000000000000037765620000010001", "bad"],
    ["no question", "000701000000000000000000", "bad"],
    ["two questions", "000701000002000000000000037765620000010001037765620000010001", "bad"],
    ["a name that points at itself", "000701000001000000000000c00c00010001", "bad"],
    ["a name that is cut off", "0007010000010000000000003f7765620000010001", "bad"],
  ])("%s", (_, hex, kind) => {
    expect(receive(Buffer.from(hex, "hex")).kind).toBe(kind);
  });

  test("a name of 300 bytes is refused", () => {
    const name = Buffer.concat(Array.from({ length: 10 }, () => Buffer.concat([Buffer.of(30), Buffer.alloc(30, "a")])));
    const header = Buffer.from("000701000001000000000000", "hex");
    const message = Buffer.concat([header, name, Buffer.from("0000010001", "hex")]);
    expect(receive(message).kind).toBe("bad");
  });
});

test("addresses go to records and back from reverse names", () => {
  expect(addressBytes("10.0.1.2")).toEqual(Uint8Array.of(10, 0, 1, 2));
  expect(Buffer.from(addressBytes("fd00::1:2") ?? []).toString("hex")).toBe("fd000000000000000000000000010002");
  expect(addressBytes("web")).toBeUndefined();
  expect(addressOfReverse("2.1.0.10.in-addr.arpa")).toBe("10.0.1.2");
  expect(addressOfReverse("300.1.0.10.in-addr.arpa")).toBeUndefined();
  expect(canonical("FD00:0:0::3")).toBe("fd00::3");
});
