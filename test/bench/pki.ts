/**
 * What identities cost a manager: signing a certificate, and a new connection with certificates on both ends. The clients
 * are a process of their own, so that this one's time is the manager's alone.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import { identityOf } from "../../common/pki/identity.ts";
import { ClusterPki, type Member } from "../cluster-pki.ts";
import type { Figure } from "./figure.ts";

const CERTIFICATES = 500;
const CONNECTIONS = 500;
/** Code runs at full speed only after a while. */
const WARM_UPS = 100;

export async function measurePki(): Promise<readonly Figure[]> {
  const pki = await ClusterPki.open(Date.now());
  const member = await pki.join(pki.node("swarm-worker"));
  const joinMs = await cpuMs(CERTIFICATES, () => pki.join(pki.node("swarm-worker")));
  const identityMs = await cpuMs(CERTIFICATES, () => identityOf(member.certificate, [pki.authority.root]));
  return [
    { name: "pki: key, request and signed certificate, CPU", value: joinMs, unit: "ms" },
    { name: "pki: identity of a certificate, CPU", value: identityMs, unit: "ms" },
    { name: "pki: new TLS connection, manager's CPU", value: await connectionMs(pki, member), unit: "ms", goal: 3 },
  ];
}

/** Handshakes in full (no session is resumed), and who it is. */
async function connectionMs(pki: ClusterPki, { key, chain, trust }: Member): Promise<number> {
  const manager = await pki.join(pki.node("swarm-manager"));
  const server = createServer({
    ...{ key: manager.key, cert: manager.chain, ca: manager.trust, minVersion: "TLSv1.3" },
    ...{ requestCert: true, rejectUnauthorized: true },
  });
  let strangers = 0;
  server.on("tlsClientError", () => strangers++);
  server.on("secureConnection", (socket: TLSSocket) => {
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined || !identityOf(certificate, [pki.authority.root]).ok) strangers++;
    socket.end("welcome");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const connect = (count: number) => runClients({ port, count, key, chain, trust });
  try {
    await connect(WARM_UPS);
    const before = process.cpuUsage();
    await connect(CONNECTIONS);
    const { user, system } = process.cpuUsage(before);
    if (strangers > 0) throw new Error(`${strangers} clients were not known`);
    return (user + system) / 1000 / CONNECTIONS;
  } finally {
    server.close();
  }
}

async function runClients(task: Readonly<Record<string, unknown>>): Promise<void> {
  const script = new URL("pki-clients.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [script], { stdio: ["pipe", "ignore", "inherit"] });
  child.stdin.end(JSON.stringify(task));
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`the clients ended with ${code}`);
}

/** CPU time in ms of this process for one call, of `count`. */
async function cpuMs(count: number, work: () => unknown): Promise<number> {
  for (let index = 0; index < WARM_UPS; index++) await work();
  const before = process.cpuUsage();
  for (let index = 0; index < count; index++) await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / count;
}
