/** The other end of `pki.ts`: connects `count` times, one after the other, as a node that is new to the manager. */
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { connect } from "node:tls";

const { port, count, key, chain, trust } = JSON.parse(await text(process.stdin)) as {
  readonly port: number;
  readonly count: number;
  readonly key: string;
  readonly chain: string;
  readonly trust: string;
};

for (let index = 0; index < count; index++) {
  const options = { key, cert: chain, ca: trust, minVersion: "TLSv1.3", servername: "swarm-manager" } as const;
  const socket = connect({ ...options, host: "127.0.0.1", port });
  socket.resume();
  await once(socket, "close");
}
