/** HTTP/2 by frames (RFC 9113), for what no decent client sends: a connection over TLS without a certificate, or in the clear. */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { parseHostPort } from "../../common/base/host-port.ts";

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

const ACK = 1;
export const END_STREAM = 1;
export const END_HEADERS = 4;

/** What every call of IssueCertificate begins with. */
export const CALL: readonly (readonly [string, string])[] = [
  [":method", "POST"],
  [":scheme", "https"],
  [":path", "/swarm.v1.NodeCa/IssueCertificate"],
  [":authority", "swarm-manager"],
  ["content-type", "application/grpc"],
  ["te", "trailers"],
];

/** One frame, its payload as it is given. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Header fields as literals that enter no table (RFC 7541, 6.2.2). */
export function encodeHeaders(headers: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(headers.flatMap((pair) => [Buffer.of(0), ...pair.map(literal)]));
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([integer(bytes.length), bytes]);
}

/** With a prefix of seven bits (RFC 7541, 5.1). */
function integer(value: number): Buffer {
  if (value < 127) return Buffer.of(value);
  const bytes = [127];
  let rest = value - 127;
  for (; rest >= 128; rest >>= 7) bytes.push((rest & 127) | 128);
  return Buffer.of(...bytes, rest);
}

/** Opens a connection that has said nothing yet. `from`: the local address. */
export function openSocket(address: string, from: string): Promise<Socket> {
  const { host = "", port = 0 } = parseHostPort(address) ?? {};
  const socket = connectTcp({ host, port, localAddress: from });
  return opened(socket, "connect");
}

/** Opens one with TLS, and without a certificate. */
export function openSecure(address: string, from: string): Promise<Socket> {
  const { host = "", port = 0 } = parseHostPort(address) ?? {};
  const socket = connectTcp({ host, port, localAddress: from });
  return opened(connectTls({ socket, ALPNProtocols: ["h2"], rejectUnauthorized: false }), "secureConnect");
}

/** Errors are the other end's good right from here on. */
function opened(socket: Socket, event: "connect" | "secureConnect"): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once(event, () => resolve(socket));
    socket.once("close", () => reject(new Error("closed")));
    socket.on("error", () => {});
  });
}

/** A connection on which HTTP/2 has begun. It reads what comes. */
export class RawHttp2 {
  readonly socket: Socket;
  /** Frames that came, by type. */
  readonly received = new Map<number, number>();
  /** Streams that the other end has ended. */
  readonly ended = new Set<number>();
  #unread = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (data: Buffer) => this.#read(data));
    socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
  }

  static async open(address: string, from: string): Promise<RawHttp2> {
    return new RawHttp2(await openSecure(address, from));
  }

  get isOpen(): boolean {
    return !this.socket.destroyed && this.socket.writable;
  }

  /** Sends, as fast as the socket takes it. False once the connection is over. */
  async send(...parts: readonly Buffer[]): Promise<boolean> {
    if (!this.isOpen) return false;
    if (!this.socket.write(Buffer.concat(parts))) {
      await new Promise<void>((resolve) => {
        const settle = () => {
          this.socket.off("drain", settle).off("close", settle);
          resolve();
        };
        this.socket.on("drain", settle).on("close", settle);
      });
    }
    return this.isOpen;
  }

  #read(data: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, data]);
    while (this.#unread.length >= 9) {
      const length = this.#unread.readUIntBE(0, 3);
      if (this.#unread.length < 9 + length) return;
      const [type, flags, stream] = [
        this.#unread.readUInt8(3),
        this.#unread.readUInt8(4),
        this.#unread.readUInt32BE(5),
      ] as const;
      // Whoever answers pings is not taken for dead.
      if (type === FRAME.ping && (flags & ACK) === 0) {
        this.socket.write(frame(FRAME.ping, ACK, 0, this.#unread.subarray(9, 17)));
      }
      if ((type === FRAME.headers && (flags & END_STREAM) !== 0) || type === FRAME.reset) this.ended.add(stream);
      this.received.set(type, (this.received.get(type) ?? 0) + 1);
      this.#unread = this.#unread.subarray(9 + length);
    }
  }
}
