/**
 * Whatever bytes somebody without a certificate may send to a manager's port, drawn from a seed: TLS hellos, HTTP/2 frames, and calls for
 * a first certificate; valid ones with something changed, since what is all wrong gets nowhere.
 */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { connect } from "node:tls";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Random, randomInteger, seededRandom } from "../../common/base/random.ts";
import { IssueCertificateRequestSchema } from "../../proto/gen/swarm/v1/ca_pb.js";
import {
  CALL,
  END_HEADERS,
  END_STREAM,
  encodeHeaders,
  FRAME,
  frame,
  openSecure,
  openSocket,
  PREFACE,
} from "./raw-http2.ts";

export interface FuzzOptions {
  readonly address: string;
  readonly seed: number;
  readonly seconds: number;
}

/** Connections at once. */
const AT_ONCE = 64;
/** How long one may take: whoever is answered has been by then, and whoever is not waits for the other end's patience. */
const PATIENCE_MS = 200;
const FRAMES_MAX = 40;

/** Runs for its time; says how many connections it made, by kind. */
export async function fuzz({ address, seed, seconds }: FuzzOptions): Promise<Readonly<Record<string, number>>> {
  const random = seededRandom(seed);
  const hello = await recordedHello();
  const counts: Record<string, number> = {};
  const endMs = performance.now() + seconds * 1_000;
  const one = async () => {
    while (performance.now() < endMs) {
      const kind = pick(random, ["hello", "frames", "calls"] as const);
      // Others' limits are not what is tried here.
      const from = `127.${1 + randomInteger(random, 250)}.${randomInteger(random, 256)}.${1 + randomInteger(random, 250)}`;
      const bytes = kind === "hello" ? mutated(random, hello) : kind === "frames" ? frames(random) : calls(random);
      counts[kind] = (counts[kind] ?? 0) + 1;
      await send(kind === "hello" ? openSocket : openSecure, { address, from }, bytes);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return counts;
}

async function send(
  open: typeof openSocket,
  { address, from }: { readonly address: string; readonly from: string },
  bytes: Buffer,
): Promise<void> {
  let socket: Socket;
  try {
    socket = await open(address, from);
  } catch {
    // Refused, which is an answer.
    return;
  }
  socket.resume();
  socket.write(bytes);
  const closed = once(socket, "close");
  socket.setTimeout(PATIENCE_MS, () => socket.destroy());
  await closed;
}

/** What Node says first when it begins TLS 1.3. */
async function recordedHello(): Promise<Buffer> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  if (typeof bound !== "object" || bound === null) throw new Error("no address");
  const client = connect({ host: "127.0.0.1", port: bound.port, ALPNProtocols: ["h2"], minVersion: "TLSv1.3" });
  client.on("error", () => {});
  const [socket] = (await once(server, "connection")) as [Socket];
  const [hello] = (await once(socket, "data")) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return hello;
}

/** Changed in up to eight places: bytes turned, left out, said twice, cut off. */
function mutated(random: Random, bytes: Uint8Array): Buffer {
  let changed = Buffer.from(bytes);
  for (let change = randomInteger(random, 8); change >= 0 && changed.length > 0; change--) {
    const at = randomInteger(random, changed.length);
    const length = randomInteger(random, 64);
    switch (randomInteger(random, 5)) {
      case 0:
        changed.writeUInt8(randomInteger(random, 256), at);
        break;
      case 1:
        changed = Buffer.concat([changed.subarray(0, at), changed.subarray(at + length)]);
        break;
      case 2:
        changed = Buffer.concat([changed.subarray(0, at), changed.subarray(at, at + length), changed.subarray(at)]);
        break;
      case 3:
        changed = Buffer.concat([changed.subarray(0, at), someBytes(random, length), changed.subarray(at)]);
        break;
      default:
        changed = changed.subarray(0, Math.max(1, at));
    }
  }
  return changed;
}

/** Frames of all types, mostly on streams that there are, in no sensible order. */
function frames(random: Random): Buffer {
  const types = [...Object.values(FRAME), 5, randomInteger(random, 256)];
  const all = [PREFACE, frame(FRAME.settings, 0, 0)];
  for (let count = randomInteger(random, FRAMES_MAX); count >= 0; count--) {
    const type = pick(random, types);
    const stream = pick(random, [0, 1, 3, 5, 2, randomInteger(random, 2 ** 31)]);
    const flags = pick(random, [0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, randomInteger(random, 256)]);
    const payload = type === FRAME.headers ? mutated(random, encodeHeaders(CALL)) : payloadOf(random, type);
    all.push(frame(type, flags, stream, payload));
  }
  const bytes = Buffer.concat(all);
  return randomInteger(random, 4) === 0 ? mutated(random, bytes) : bytes;
}

/** Mostly of the length that a frame of the type has (RFC 9113, 6). */
function payloadOf(random: Random, type: number): Buffer {
  const usual: Readonly<Record<number, number>> = {
    [FRAME.priority]: 5,
    [FRAME.reset]: 4,
    [FRAME.settings]: 6 * randomInteger(random, 5),
    [FRAME.ping]: 8,
    [FRAME.goAway]: 8,
    [FRAME.windowUpdate]: 4,
  };
  const length = usual[type] ?? randomInteger(random, 300);
  return someBytes(random, randomInteger(random, 10) === 0 ? randomInteger(random, 300) : length);
}

/** Calls for a certificate, with odd headers and requests. */
function calls(random: Random): Buffer {
  const token = `SWMTKN-1-${"0".repeat(50)}-${"1".repeat(25)}`;
  const request = toBinary(
    IssueCertificateRequestSchema,
    create(IssueCertificateRequestSchema, {
      token: randomInteger(random, 3) === 0 ? mutated(random, Buffer.from(token)).toString("latin1") : token,
      certificateRequest: someBytes(random, randomInteger(random, 500)).toString("base64"),
      hosts: Array.from({ length: randomInteger(random, 5) }, () => someBytes(random, 20).toString("latin1")),
    }),
  );
  const method = pick(random, ["IssueCertificate", "GetRootCertificates", "Nothing"]);
  const headers = CALL.map(([name, value]) => [name, name === ":path" ? `/swarm.v1.NodeCa/${method}` : value] as const);
  const odd = [
    ["grpc-timeout", pick(random, ["1S", "0n", "99999999H", "-1m", "x"])],
    ["grpc-encoding", pick(random, ["gzip", "deflate", "identity", "br"])],
    ["grpc-accept-encoding", "gzip,deflate"],
    ["content-type", pick(random, ["application/grpc+proto", "application/grpc-web", "text/html"])],
    [`x-${randomInteger(random, 1_000)}`, someBytes(random, 30).toString("base64")],
    ["x-bin", someBytes(random, 30).toString("latin1")],
  ] as const;
  const all = [PREFACE, frame(FRAME.settings, 0, 0)];
  for (let call = 0; call <= randomInteger(random, 4); call++) {
    const stream = 2 * call + 1;
    const chosen = odd.filter(() => randomInteger(random, 6) === 0);
    all.push(frame(FRAME.headers, END_HEADERS, stream, encodeHeaders([...headers, ...chosen])));
    const body = randomInteger(random, 2) === 0 ? mutated(random, request) : Buffer.from(request);
    const prefix = Buffer.alloc(5);
    prefix.writeUInt8(pick(random, [0, 0, 0, 1, 2]), 0);
    prefix.writeUInt32BE(
      pick(random, [body.length, body.length, 0, body.length + 1, randomInteger(random, 2 ** 31)]),
      1,
    );
    all.push(frame(FRAME.data, pick(random, [END_STREAM, END_STREAM, 0]), stream, Buffer.concat([prefix, body])));
  }
  return Buffer.concat(all);
}

function someBytes(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => randomInteger(random, 256)));
}

function pick<T>(random: Random, choices: readonly T[]): T {
  const choice = choices[randomInteger(random, choices.length)];
  if (choice === undefined) throw new Error("nothing to pick from");
  return choice;
}
