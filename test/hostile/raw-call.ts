/** One gRPC call by hand, for requests and headers that no client makes: compressed, cut short, of another shape, too late. */
import { connect, constants, type OutgoingHttpHeaders } from "node:http2";
import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { parseHostPort } from "../../common/base/host-port.ts";
import type { ClientTls } from "../../common/rpc/tls.ts";

/** Whom to call: a manager's socket, or its port as somebody. */
export type Callee = { readonly socket: string } | { readonly address: string; readonly tls: ClientTls };

export interface RawAnswer {
  /** Of HTTP. */
  readonly http: number;
  /** Of gRPC; -1 without one. */
  readonly status: number;
  readonly message: string;
}

/** Calls `path` ("package.Service/Method") with `body` as it is. `isOpen`: says nothing of its end. */
export async function callRaw(
  callee: Callee,
  path: string,
  body: Uint8Array,
  { headers = {}, isOpen = false }: { readonly headers?: OutgoingHttpHeaders; readonly isOpen?: boolean } = {},
): Promise<RawAnswer> {
  const session = connect("http://swarm-manager", { createConnection: () => openConnection(callee) });
  // Whatever happens to the connection, the call hears of it.
  session.on("error", () => {});
  try {
    const call = session.request({
      [constants.HTTP2_HEADER_METHOD]: "POST",
      [constants.HTTP2_HEADER_PATH]: `/${path}`,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    return await new Promise<RawAnswer>((resolve, reject) => {
      let answer: RawAnswer = { http: 0, status: -1, message: "" };
      const read = (fields: Readonly<Record<string, unknown>>) => {
        const { ":status": http, "grpc-status": status, "grpc-message": message } = fields;
        answer = {
          http: Number(http ?? answer.http),
          status: Number(status ?? answer.status),
          message: decodeURI(String(message ?? answer.message)),
        };
      };
      call
        .on("response", read)
        .on("trailers", read)
        .on("error", reject)
        .on("close", () => resolve(answer));
      // The answer is whole, though the request may not be.
      call.on("end", () => setImmediate(() => resolve(answer)));
      call.resume();
      if (isOpen) call.write(body);
      else call.end(body);
    });
  } finally {
    session.destroy();
  }
}

function openConnection(callee: Callee) {
  if ("socket" in callee) return connectTcp(callee.socket);
  const { host = "", port = 0 } = parseHostPort(callee.address) ?? {};
  const { ca, certificate, key } = callee.tls;
  const identity = certificate === undefined || key === undefined ? {} : { cert: certificate, key };
  return connectTls({
    ...{ host, port, servername: "swarm-manager", ALPNProtocols: ["h2"], ...identity },
    ...(ca === undefined ? { rejectUnauthorized: false } : { ca }),
  });
}

/** A message as gRPC frames it; `announced` bytes, if that is not what follows. */
export function framed(
  content: Uint8Array,
  options: { readonly compressed?: boolean; readonly announced?: number } = {},
) {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt8(options.compressed ? 1 : 0, 0);
  prefix.writeUInt32BE(options.announced ?? content.length, 1);
  return Buffer.concat([prefix, content]);
}
